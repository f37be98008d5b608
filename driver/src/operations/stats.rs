//! How full a volume is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tonic::Code;

use super::validate::{LookupError, look_up};
use super::{At, Coded};
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{MountTable, existing, is_node};
use crate::kernel::{Attempt as _, Failed};
use crate::pool::{Pool, VolumeRecord};
use crate::volume::VolumeId;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is not mounted at the path.
    #[error("the volume is not mounted at {}", .0.display())]
    NotThere(PathBuf),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for StatsError {
    fn code(&self) -> Code {
        match self {
            Self::Lookup(error) => error.code(),
            Self::NotThere(_) => Code::NotFound,
            Self::Failed(_) => Code::Internal,
        }
    }
}

/// An amount of something: bytes, or inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// All there is.
    pub total: u64,
    /// What is taken.
    pub used: u64,
    /// What ordinary users can still take.
    pub available: u64,
}

/// How full a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Its bytes.
    pub bytes: Usage,
    /// Its inodes; `None` for a block device.
    pub inodes: Option<Usage>,
}

/// Reads how full the volume is that is staged or published at `path`. Needs no lock, for it
/// changes nothing.
pub fn stats(pool: &Pool, id: &VolumeId, path: &Path) -> Result<Stats, StatsError> {
    let record = look_up(pool, id)?;
    let not_there = || StatsError::NotThere(path.to_owned());
    let resolved = existing(path)?.ok_or_else(not_there)?;
    let device = pool.device(id)?.ok_or_else(not_there)?;
    if record.file_system.is_none() {
        return if is_node(&resolved, device.number()) {
            block_stats(pool, id, &record)
        } else {
            Err(not_there())
        };
    }
    match At::look(
        &MountTable::read()?,
        &resolved,
        Some(LoopDevice::number(&device)),
    ) {
        At::Volume(_) => {}
        At::Nothing | At::Foreign(_) => return Err(not_there()),
    }
    let space = rustix::fs::statvfs(&resolved)
        .attempt(|| format!("ask for the space at {}", resolved.display()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Ok(Stats {
        bytes: Usage {
            total: bytes(space.f_blocks),
            used: bytes(space.f_blocks.saturating_sub(space.f_bfree)),
            available: bytes(space.f_bavail),
        },
        inodes: Some(Usage {
            total: space.f_files,
            used: space.f_files.saturating_sub(space.f_ffree),
            available: space.f_favail,
        }),
    })
}

/// All of a block device is its user's; what of it is in use only its user knows. What its image
/// takes in the pool is the best that can be said.
fn block_stats(pool: &Pool, id: &VolumeId, record: &VolumeRecord) -> Result<Stats, StatsError> {
    let image = pool.layout.image(id);
    let metadata = image
        .symlink_metadata()
        .attempt(|| format!("look at {}", image.display()))?;
    let used = (metadata.blocks() * 512).min(record.size_bytes);
    Ok(Stats {
        bytes: Usage {
            total: record.size_bytes,
            used,
            available: record.size_bytes - used,
        },
        inodes: None,
    })
}
