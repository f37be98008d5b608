//! Deleting a volume: its record first, so that a crash leaves a whole volume or leavings.

use std::path::PathBuf;

use tonic::Code;

use super::Coded;
use crate::failpoint;
use crate::kernel::loop_device::DetachError;
use crate::kernel::mount_table::MountTable;
use crate::kernel::{Failed, files};
use crate::pool::{AttachmentRecord, Busy, ClearError, Pool, RecordError, VolumeRecord};
use crate::volume::VolumeId;

/// Why a volume is still there.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It is mounted.
    #[error("the volume is mounted at {points:?}; unpublish and unstage it first")]
    Mounted {
        /// Where, as far as can be seen from here.
        points: Vec<PathBuf>,
    },
    /// It is attached, where `--attach` keeps book of that.
    #[error("the volume is attached to {0}; ControllerUnpublishVolume has to come first")]
    Attached(String),
    /// It is another node's.
    #[error("the volume lives on the node {0}, and only the driver there can delete it")]
    Elsewhere(String),
    /// Its record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Something of it does not go.
    #[error(transparent)]
    Clear(#[from] ClearError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl From<DetachError> for DeleteError {
    fn from(error: DetachError) -> Self {
        Self::Clear(error.into())
    }
}

impl Coded for DeleteError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Mounted { .. }
            | Self::Attached(_)
            | Self::Elsewhere(_)
            | Self::Clear(ClearError::Detach(DetachError::InUse(_))) => Code::FailedPrecondition,
            Self::Record(_)
            | Self::Clear(ClearError::Failed(_) | ClearError::Detach(DetachError::Failed(_)))
            | Self::Failed(_) => Code::Internal,
        }
    }
}

/// Deletes the volume, or finds that there is none.
pub fn delete(pool: &Pool, id: &VolumeId) -> Result<(), DeleteError> {
    let _lock = pool.locks.begin(id)?;
    if !pool.layout.folder(id).exists() {
        // To say that another node's volume is gone would be a lie that costs its space.
        return match id.node() {
            node if node == pool.node.as_str() => Ok(()),
            node => Err(DeleteError::Elsewhere(node.to_owned())),
        };
    }
    // A damaged record stops here: it may be all that tells what the image was.
    pool.layout.load::<VolumeRecord>(id)?;
    // What is left of a time with `--attach` binds nobody.
    if pool.attach
        && let Some(attachment) = pool.layout.load::<AttachmentRecord>(id)?
    {
        return Err(DeleteError::Attached(attachment.node));
    }
    if let Some(device) = pool.device(id)? {
        let table = MountTable::read()?;
        let points: Vec<_> = table
            .showing(device.path(), device.number())
            .map(|mount| mount.point.clone())
            .collect();
        if !points.is_empty() {
            return Err(DeleteError::Mounted { points });
        }
        // Mounted where it cannot be seen from here, it does not detach.
        device.detach()?;
    }
    failpoint::around("delete.record", || {
        pool.layout.forget::<VolumeRecord>(id)?;
        files::sync_directory(&pool.layout.folder(id))
    })?;
    failpoint::around("delete.image", || pool.clear(id))?;
    Ok(())
}
