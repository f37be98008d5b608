//! Unpublishing a volume: the mount at the target ends, and the target goes.

use std::io;
use std::path::{Path, PathBuf};

use tonic::Code;

use super::Coded;
use crate::failpoint;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{self, MountTable, existing};
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
    /// The target is neither a directory nor an empty file.
    #[error("{} is neither a directory nor an empty file, and was left alone", .0.display())]
    WrongKind(PathBuf),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for UnpublishError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Obstructed { .. } => Code::FailedPrecondition,
            Self::WrongKind(_) | Self::Failed(_) => Code::Internal,
        }
    }
}

/// Unpublishes the volume from `target`, or finds that it is not published there.
///
/// Of a directory or file that is in the way only an empty one is removed.
pub fn unpublish(pool: &Pool, id: &VolumeId, target: &Path) -> Result<(), UnpublishError> {
    let _lock = pool.locks.begin(id)?;
    let Some(target) = existing(target)? else {
        return Ok(());
    };
    loop {
        let number = pool.device(id)?.as_ref().map(LoopDevice::number);
        let table = MountTable::read()?;
        let Some(mount) = table.at(&target) else {
            break;
        };
        let ours = |number| mount.device == number || mount_table::is_node(&target, number);
        if !number.is_some_and(ours) {
            return Err(UnpublishError::Obstructed {
                path: mount.point.clone(),
                file_system: mount.file_system.clone(),
            });
        }
        failpoint::around("unpublish.unmount", || mounting::unmount(&target))?;
    }
    match target.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(failpoint::around("unpublish.remove", || {
            files::remove_directory(&target)
        })?),
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            Ok(failpoint::around("unpublish.remove", || {
                files::remove(&target)
            })?)
        }
        Ok(_) => Err(UnpublishError::WrongKind(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failed::new(format!("look at {}", target.display()), error).into()),
    }
}
