//! Staging a volume: its image becomes a device, gets its file system the first time, and is
//! mounted. A raw block volume has only its device.

mod file_system;
mod fitting;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tonic::Code;

use super::create::lay_out;
use super::validate::{LookupError, look_up};
use super::{At, Coded};
use crate::failpoint;
use crate::kernel::loop_device::{self, AttachError, DetachError, LoopDevice};
use crate::kernel::mount_table::{self, MountTable};
use crate::kernel::mounting::MountError;
use crate::kernel::tools::ToolError;
use crate::kernel::{Attempt as _, Failed, extents};
use crate::pool::{AttachmentRecord, Busy, Pool, RecordError, StagingRecord, VolumeRecord};
use crate::volume::{Access, Capability, VolumeId};

pub use fitting::{FitError, fit, fit_where_staged};

/// Why a volume is not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The volume has another file system than is asked for, or none.
    #[error("the volume has {found}, and that is not what is asked for")]
    Content {
        /// What it has.
        found: &'static str,
    },
    /// It is not attached to this node.
    #[error("the volume is not attached to this node; ControllerPublishVolume has to come first")]
    NotAttached,
    /// It is staged at this path in another way.
    #[error("the volume is staged at {} with the mount options {flags:?}; unstage it first", .path.display())]
    Differs {
        /// The staging path.
        path: PathBuf,
        /// How it is staged.
        flags: Vec<String>,
    },
    /// It is in use from another staging path.
    #[error("the volume is staged at {} already; unstage it there first", .0.display())]
    Elsewhere(PathBuf),
    /// Something else is mounted at the staging path.
    #[error("{} has another file system mounted on it ({file_system}); unmount it", .path.display())]
    Obstructed {
        /// The staging path.
        path: PathBuf,
        /// What is there.
        file_system: String,
    },
    /// The file system that was made is not there any more, or cannot be used as it is.
    #[error(
        "the image {} holds no usable {expected} ({found}); it was left as it is: restore the \
         volume from a snapshot or a backup, or repair the image with {expected}'s tools",
        .image.display()
    )]
    Damaged {
        /// The image.
        image: PathBuf,
        /// The file system that was made.
        expected: &'static str,
        /// What is there now.
        found: String,
    },
    /// The steps lead nowhere: something undoes them.
    #[error("the volume keeps changing while it is staged; is another program at work on it?")]
    Unsteady,
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No loop device.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A loop device that is wrong does not go.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// No file system.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The file system does not mount.
    #[error("{0} (if an option is wrong, mend mountOptions of the StorageClass or volume)")]
    Mount(#[from] MountError),
    /// It did not get its size, or its attributes.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for StageError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::Content { .. } | Self::Elsewhere(_) | Self::NotAttached => {
                Code::FailedPrecondition
            }
            Self::Differs { .. } => Code::AlreadyExists,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Record(error) => error.code(),
            Self::Fit(error) => error.code(),
            Self::Failed(failed) => failed.code(),
            Self::Obstructed { .. }
            | Self::Unsteady
            | Self::Attach(_)
            | Self::Detach(_)
            | Self::Tool(_)
            | Self::Mount(_) => Code::Internal,
        }
    }
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Observed {
    /// The loop device, if there is one, and whether it has the right geometry.
    device: Option<Geometry>,
    /// Whether the image has all that it needs: its file system, or nothing for a block device.
    formatted: bool,
    /// Whether anything was ever written to the image.
    written: bool,
    /// Whether it is mounted at the staging path; for a block device, whether it is written down
    /// that it is staged there.
    staged: bool,
}

/// Whether a loop device is as it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Geometry {
    Right,
    Wrong,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Detach,
    Empty,
    Attach,
    Format,
    Show,
    Done,
}

/// A file system is only made on an image in which nothing was ever written, so that all of it
/// reads as zeros; what an interrupted mkfs left is thrown away before.
fn next(observed: Observed) -> Step {
    let leavings = !observed.formatted && observed.written;
    match observed {
        Observed { staged: true, .. } => Step::Done,
        Observed {
            device: Some(Geometry::Wrong),
            ..
        } => Step::Detach,
        Observed {
            device: Some(Geometry::Right),
            ..
        } if leavings => Step::Detach,
        Observed { device: None, .. } if leavings => Step::Empty,
        Observed { device: None, .. } => Step::Attach,
        Observed {
            formatted: false, ..
        } => Step::Format,
        Observed {
            formatted: true, ..
        } => Step::Show,
    }
}

/// More steps than any state of things needs.
const MOST_STEPS: usize = 8;

/// Stages the volume at `path`, or finds it staged there.
pub fn stage(
    pool: &Pool,
    id: &VolumeId,
    path: &Path,
    capability: &Capability,
) -> Result<(), StageError> {
    let _lock = pool.locks.begin(id)?;
    let mut record = look_up(pool, id)?;
    if !capability.suits(record.file_system) {
        return Err(StageError::Content {
            found: record.content_name(),
        });
    }
    let attachment = if pool.attach {
        let found: Option<AttachmentRecord> = pool.layout.load(id)?;
        let here = found.filter(|attachment| attachment.node == pool.node.as_str());
        Some(here.ok_or(StageError::NotAttached)?)
    } else {
        None
    };
    let wanted = StagingRecord {
        path: mount_table::resolved(path)?,
        mount_flags: capability.flags().to_vec(),
        shared: capability.shared,
        read_only: capability.read_only || attachment.is_some_and(|it| it.read_only),
    };
    for _ in 0..MOST_STEPS {
        let device = pool.device(id)?;
        let observed = observe(pool, id, &record, device.as_ref(), &wanted)?;
        let step = next(observed);
        tracing::debug!(?observed, ?step, "staging");
        match (step, device) {
            (Step::Done, Some(device)) => {
                let point = record.file_system.map(|_| wanted.path.as_path());
                return Ok(fit(&record, &device, point, wanted.read_only)?);
            }
            (Step::Attach, _) => {
                // Whatever is written down was true of a device that is no more, before a reboot.
                pool.layout.forget::<StagingRecord>(id)?;
                let image = pool.layout.image(id);
                failpoint::around("stage.attach", || loop_device::attach(&image))?;
            }
            (Step::Empty, _) => lay_out(&pool.layout.image(id), &record)?,
            (Step::Detach, Some(device)) => device.detach()?,
            (Step::Format, Some(device)) => {
                file_system::format(pool, id, &mut record, &device)?;
            }
            (Step::Show, Some(device)) => {
                show(pool, id, &record, device, &wanted, capability)?;
            }
            // The device is gone since it was looked at: look again.
            (Step::Done | Step::Detach | Step::Format | Step::Show, None) => {}
        }
    }
    Err(StageError::Unsteady)
}

fn observe(
    pool: &Pool,
    id: &VolumeId,
    record: &VolumeRecord,
    device: Option<&LoopDevice>,
    wanted: &StagingRecord,
) -> Result<Observed, StageError> {
    let written_down = pool.layout.load::<StagingRecord>(id)?;
    let block = record.file_system.is_none();
    let staged_at = match (block, device) {
        (_, None) => None,
        (true, Some(_)) => written_down.as_ref().map(|it| it.path.clone()),
        (false, Some(device)) => mounted_at(device, &wanted.path)?,
    };
    let staged = staged_at.as_ref() == Some(&wanted.path);
    match staged_at {
        Some(elsewhere) if !staged => return Err(StageError::Elsewhere(elsewhere)),
        _ => {}
    }
    if staged && let Some(found) = written_down.filter(|found| found != wanted) {
        return Err(StageError::Differs {
            path: found.path,
            flags: found.mount_flags,
        });
    }
    let geometry = match device.map(LoopDevice::is_as_attached).transpose()? {
        Some(true) => Some(Geometry::Right),
        Some(false) => Some(Geometry::Wrong),
        None => None,
    };
    let image = pool.layout.image(id);
    let metadata = image
        .symlink_metadata()
        .attempt(|| format!("look at {}", image.display()))?;
    // A thick image has blocks from the beginning; those never written to read as zeros.
    let written = !record.formatted && metadata.blocks() > 0 && extents::is_written(&image)?;
    Ok(Observed {
        device: geometry,
        formatted: record.formatted || block,
        written: written && !block,
        staged,
    })
}

/// Where the device's file system is mounted: at `path` if it is, or elsewhere.
fn mounted_at(device: &LoopDevice, path: &Path) -> Result<Option<PathBuf>, StageError> {
    let table = MountTable::read()?;
    match At::look(&table, path, Some(device.number())) {
        At::Volume(mount) => Ok(Some(mount.point)),
        At::Foreign(mount) => Err(StageError::Obstructed {
            path: mount.point,
            file_system: mount.file_system,
        }),
        At::Nothing => {
            let other = table.of(device.number()).next();
            Ok(other.map(|mount| mount.point.clone()))
        }
    }
}

/// Mounts the file system, or writes down that the device is staged. When that fails, nothing
/// stays attached.
fn show(
    pool: &Pool,
    id: &VolumeId,
    record: &VolumeRecord,
    device: LoopDevice,
    wanted: &StagingRecord,
    capability: &Capability,
) -> Result<(), StageError> {
    let result = match (record.file_system, &capability.access) {
        (Some(expected), Access::Mount { options, .. }) => {
            file_system::mount(pool, id, record, expected, &device, wanted, options)
        }
        _ => device
            .set_read_only(wanted.read_only)
            .map_err(StageError::from)
            .and_then(|()| Ok(pool.layout.store(id, wanted)?)),
    };
    if result.is_err()
        && let Err(stays) = device.detach()
    {
        tracing::warn!("a volume that was not staged stays attached: {stays}");
    }
    result
}

#[cfg(test)]
mod tests;
