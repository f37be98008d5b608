//! Deleting a snapshot: its record first, so that a crash leaves a whole snapshot or leavings.

use tonic::Code;

use super::Coded;
use crate::failpoint;
use crate::kernel::{Failed, files};
use crate::pool::{Busy, Pool, RecordError, SnapshotRecord};
use crate::volume::{GroupId, SnapshotId};

/// Why a snapshot is still there.
#[derive(Debug, thiserror::Error)]
pub enum DeleteSnapshotError {
    /// Another operation is under way, such as the creation of a volume from it.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It is another node's.
    #[error("the snapshot lives on the node {0}, and only the driver there can delete it")]
    Elsewhere(String),
    /// It belongs to a group.
    #[error("the snapshot belongs to the group {0}; delete the group as a whole")]
    Member(GroupId),
    /// Its record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for DeleteSnapshotError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Elsewhere(_) => Code::FailedPrecondition,
            Self::Member(_) => Code::InvalidArgument,
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// Deletes the snapshot, or finds that there is none.
pub fn delete_snapshot(pool: &Pool, id: &SnapshotId) -> Result<(), DeleteSnapshotError> {
    let _lock = pool.locks.begin(id)?;
    if !pool.layout.snapshot_folder(id).exists() {
        // To say that another node's snapshot is gone would be a lie that costs its space.
        return match id.node() {
            node if node == pool.node.as_str() => Ok(()),
            node => Err(DeleteSnapshotError::Elsewhere(node.to_owned())),
        };
    }
    // A damaged record stops here: it may be all that tells what the image was.
    let record: Option<SnapshotRecord> = pool.layout.load(id)?;
    if let Some(group) = record.and_then(|record| record.group)
        && pool.layout.group_record(&group).exists()
    {
        return Err(DeleteSnapshotError::Member(group));
    }
    failpoint::around("snapshot.forget", || {
        pool.layout.forget::<SnapshotRecord>(id)?;
        files::sync_directory(&pool.layout.snapshot_folder(id))
    })?;
    failpoint::around("snapshot.clear", || pool.clear_snapshot(id))?;
    Ok(())
}
