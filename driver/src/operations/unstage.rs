//! Unstaging a volume: the mount ends, then the device is given back.

use std::path::{Path, PathBuf};

use tonic::Code;

use super::{At, Coded};
use crate::failpoint;
use crate::kernel::loop_device::{DetachError, LoopDevice};
use crate::kernel::mount_table::{MountTable, existing};
use crate::kernel::{Failed, mounting};
use crate::pool::{Busy, Pool, RecordError, StagingRecord};
use crate::volume::VolumeId;

/// Why a volume is still staged.
#[derive(Debug, thiserror::Error)]
pub enum UnstageError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It is still published.
    #[error("the volume is mounted at {} as well; unpublish it there first", .0.display())]
    Published(PathBuf),
    /// Something else is mounted at the staging path.
    #[error("{} has another file system mounted on it ({file_system}), which was left alone", .path.display())]
    Obstructed {
        /// The staging path.
        path: PathBuf,
        /// What is there.
        file_system: String,
    },
    /// How it was staged cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The device does not detach.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for UnstageError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Published(_) | Self::Obstructed { .. } => Code::FailedPrecondition,
            Self::Record(_) | Self::Detach(_) | Self::Failed(_) => Code::Internal,
        }
    }
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    /// Whether the volume is mounted at the staging path.
    mounted: bool,
    /// Where else it is mounted.
    other: Option<PathBuf>,
    /// Whether it has a loop device.
    attached: bool,
    /// Whether it was staged at another path after this one.
    staged_elsewhere: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Unmount,
    Detach,
    Done,
    Refuse(PathBuf),
}

/// A repeated unstage must not disturb a volume that was staged anew elsewhere meanwhile.
fn next(observed: Observed) -> Step {
    match observed {
        Observed {
            mounted: false,
            staged_elsewhere: true,
            ..
        } => Step::Done,
        Observed {
            other: Some(point), ..
        } => Step::Refuse(point),
        Observed { mounted: true, .. } => Step::Unmount,
        Observed { attached: true, .. } => Step::Detach,
        Observed { .. } => Step::Done,
    }
}

/// Unstages the volume from `path`, or finds that it is not staged there.
pub fn unstage(pool: &Pool, id: &VolumeId, path: &Path) -> Result<(), UnstageError> {
    let _lock = pool.locks.begin(id)?;
    let path = existing(path)?.unwrap_or_else(|| path.to_owned());
    loop {
        let device = pool.device(id)?;
        match (next(observe(pool, id, &path, device.as_ref())?), device) {
            (Step::Refuse(point), _) => return Err(UnstageError::Published(point)),
            (Step::Unmount, _) => {
                failpoint::around("unstage.unmount", || mounting::unmount(&path))?;
            }
            (Step::Detach, Some(device)) => {
                failpoint::around("unstage.detach", || device.detach())?;
                pool.layout.forget::<StagingRecord>(id)?;
            }
            (Step::Detach, None) | (Step::Done, _) => return Ok(()),
        }
    }
}

fn observe(
    pool: &Pool,
    id: &VolumeId,
    path: &Path,
    device: Option<&LoopDevice>,
) -> Result<Observed, UnstageError> {
    let table = MountTable::read()?;
    let number = device.map(LoopDevice::number);
    let mounted = match At::look(&table, path, number) {
        At::Nothing => false,
        At::Volume(_) => true,
        At::Foreign(mount) => {
            let path = mount.point;
            return Err(UnstageError::Obstructed {
                path,
                file_system: mount.file_system,
            });
        }
    };
    let other = device.and_then(|device| {
        let mut shown = table.showing(device.path(), device.number());
        shown.find(|mount| mount.point != path).cloned()
    });
    let staged: Option<StagingRecord> = pool.layout.load(id)?;
    Ok(Observed {
        mounted,
        other: other.map(|mount| mount.point),
        attached: device.is_some(),
        staged_elsewhere: staged.is_some_and(|staged| staged.path != path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_ends_before_the_device_goes() {
        let pod = || Some(PathBuf::from("/pod"));
        for (mounted, other, attached, staged_elsewhere, step) in [
            (false, None, false, false, Step::Done),
            (true, None, true, false, Step::Unmount),
            (false, None, true, false, Step::Detach),
            (true, pod(), true, false, Step::Refuse("/pod".into())),
            (false, pod(), true, false, Step::Refuse("/pod".into())),
            (false, pod(), true, true, Step::Done),
            (false, None, true, true, Step::Done),
        ] {
            let observed = Observed {
                mounted,
                other,
                attached,
                staged_elsewhere,
            };
            assert_eq!(next(observed.clone()), step, "{observed:?}");
        }
    }
}
