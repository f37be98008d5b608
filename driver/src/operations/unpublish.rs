//! Unpublishing a volume: the mount at the target ends, and the target goes.

use std::io;
use std::path::{Path, PathBuf};

use tonic::Code;

use super::{At, Coded};
use crate::failpoint;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{MountTable, existing};
use crate::kernel::{Failed, files, mounting};
use crate::pool::{Busy, Pool};
use crate::volume::VolumeId;

/// Why a volume is still published.
#[derive(Debug, thiserror::Error)]
pub enum UnpublishError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Something else is mounted at the target.
    #[error("{} has another file system mounted on it ({file_system}), which was left alone", .path.display())]
    Obstructed {
        /// The target.
        path: PathBuf,
        /// What is there.
        file_system: String,
    },
    /// The target is no directory.
    #[error("{} is not a directory, and was left alone", .0.display())]
    NotDirectory(PathBuf),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for UnpublishError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Obstructed { .. } => Code::FailedPrecondition,
            Self::NotDirectory(_) | Self::Failed(_) => Code::Internal,
        }
    }
}

/// Unpublishes the volume from `target`, or finds that it is not published there.
///
/// Of a directory that is in the way only an empty one is removed.
pub fn unpublish(pool: &Pool, id: &VolumeId, target: &Path) -> Result<(), UnpublishError> {
    let _lock = pool.locks.begin(id)?;
    let Some(target) = existing(target)? else {
        return Ok(());
    };
    loop {
        let number = pool.device(id)?.as_ref().map(LoopDevice::number);
        match At::look(&MountTable::read()?, &target, number) {
            At::Volume(_) => {
                failpoint::around("unpublish.unmount", || mounting::unmount(&target))?;
            }
            At::Foreign(mount) => {
                let path = mount.point;
                return Err(UnpublishError::Obstructed {
                    path,
                    file_system: mount.file_system,
                });
            }
            At::Nothing => break,
        }
    }
    match target.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(failpoint::around("unpublish.remove", || {
            files::remove_directory(&target)
        })?),
        Ok(_) => Err(UnpublishError::NotDirectory(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failed::new(format!("look at {}", target.display()), error).into()),
    }
}
