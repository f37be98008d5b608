//! Expanding a volume, in use or not: a booking, the image, the record, and then the device and
//! the file system where the volume is staged. One that is not staged grows when it is staged
//! next.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use tonic::Code;

use super::Coded;
use super::create::give_size;
use super::stage::{FitError, fit_where_staged};
use super::validate::{LookupError, look_up};
use crate::failpoint;
use crate::kernel::mount_table::{self, MountTable};
use crate::kernel::{Attempt as _, Failed};
use crate::pool::{AdmissionError, Busy, Pool, RecordError, StagingRecord, VolumeRecord};
use crate::volume::{SizeError, SizeRange, VolumeId};

/// Why a volume did not grow.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is not where it is said to be.
    #[error("the volume is neither staged nor published at {}", .0.display())]
    NotThere(PathBuf),
    /// No size fits.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The pool does not admit it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// Its record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It has its size, and its device or its file system does not show it yet.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for ExpandError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::NotThere(_) => Code::NotFound,
            Self::Size(SizeError::Negative | SizeError::Contradiction { .. }) => {
                Code::InvalidArgument
            }
            Self::Size(SizeError::Limit { .. } | SizeError::Huge(_)) => Code::OutOfRange,
            Self::Admission(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Fit(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// Has the volume come to a size within `range`, or finds that it has one, and returns its size.
///
/// With `paths`, one of them must be where the volume is staged or published. Whatever an earlier
/// attempt left undone is done.
pub fn expand(
    pool: &Pool,
    id: &VolumeId,
    range: SizeRange,
    paths: Option<&[PathBuf]>,
) -> Result<u64, ExpandError> {
    let _lock = pool.locks.begin(id)?;
    let mut record = look_up(pool, id)?;
    if let Some(paths) = paths {
        check_place(pool, id, paths)?;
    }
    let size = range.grow(record.size_bytes)?;
    if size > record.size_bytes {
        grow(pool, id, &mut record, size)?;
    }
    fit_where_staged(pool, id, &record)?;
    Ok(record.size_bytes)
}

/// The image grows before the record does: one that is larger than its record says was admitted,
/// and the next start finishes it.
fn grow(
    pool: &Pool,
    id: &VolumeId,
    record: &mut VolumeRecord,
    size_bytes: u64,
) -> Result<(), ExpandError> {
    let image = pool.layout.image(id);
    let promise = pool.promise(id, size_bytes)?;
    let grown = VolumeRecord {
        size_bytes,
        ..record.clone()
    };
    match failpoint::around("expand.image", || give_size(&image, &grown)) {
        Ok(()) => promise.keep(),
        Err(error) => {
            // The device still has its old size, so nobody has written beyond that.
            if let Err(stays) = cut(&image, record.size_bytes) {
                tracing::warn!("a failed expansion keeps its booking: {stays}");
                promise.keep();
            }
            return Err(error.into());
        }
    }
    failpoint::around("expand.record", || pool.layout.store(id, &grown))?;
    tracing::info!(from = record.size_bytes, to = size_bytes, "expanded");
    *record = grown;
    Ok(())
}

fn cut(image: &Path, size: u64) -> Result<(), Failed> {
    OpenOptions::new()
        .write(true)
        .open(image)
        .and_then(|file| file.set_len(size))
        .attempt(|| format!("cut {} back", image.display()))
}

/// The path may be the staging path or any at which the volume is published; for a block volume
/// also its device, or a link to one of these, for kubelet has several ways to name it.
fn check_place(pool: &Pool, id: &VolumeId, paths: &[PathBuf]) -> Result<(), ExpandError> {
    let first = paths.first().cloned().unwrap_or_default();
    let not_there = || ExpandError::NotThere(first.clone());
    let device = pool.device(id)?.ok_or_else(not_there)?;
    let staged: Option<StagingRecord> = pool.layout.load(id)?;
    let table = MountTable::read()?;
    for path in paths {
        let Ok(path) = path.canonicalize() else {
            continue;
        };
        let mounted = table
            .at(&path)
            .is_some_and(|mount| mount.device == device.number());
        if mounted
            || mount_table::is_node(&path, device.number())
            || staged.as_ref().is_some_and(|staged| staged.path == path)
        {
            return Ok(());
        }
    }
    Err(not_there())
}
