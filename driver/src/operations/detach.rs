//! Detaching a volume: the note of its node goes, unless the volume is still staged there.

use tonic::Code;

use super::Coded;
use crate::failpoint;
use crate::kernel::loop_device::DetachError;
use crate::kernel::mount_table::MountTable;
use crate::kernel::{Failed, files};
use crate::pool::{AttachmentRecord, Busy, Pool, RecordError, StagingRecord};
use crate::volume::VolumeId;

/// Why a volume is still attached.
#[derive(Debug, thiserror::Error)]
pub enum DetachVolumeError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It is staged.
    #[error("the volume is still staged on {0}; unpublish and unstage it first")]
    Staged(String),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its loop device stays.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for DetachVolumeError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Staged(_) | Self::Detach(DetachError::InUse(_)) => Code::FailedPrecondition,
            Self::Record(error) => error.code(),
            Self::Detach(DetachError::Failed(failed)) | Self::Failed(failed) => failed.code(),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Refuse,
    Detach,
}

fn next(attached_to: Option<&str>, from: Option<&str>, staged: bool) -> Step {
    match (attached_to, from) {
        (None, _) => Step::Done,
        // It is not attached to that node.
        (Some(node), Some(from)) if node != from => Step::Done,
        (Some(_), _) if staged => Step::Refuse,
        (Some(_), _) => Step::Detach,
    }
}

/// Detaches the volume from a node, or with `None` from whichever; or finds that it is not
/// attached there.
pub fn detach(pool: &Pool, id: &VolumeId, from: Option<&str>) -> Result<(), DetachVolumeError> {
    let _lock = pool.locks.begin(id)?;
    let found: Option<AttachmentRecord> = pool.layout.load(id)?;
    let node = found.as_ref().map(|found| found.node.as_str());
    match next(node, from, is_staged(pool, id)?) {
        Step::Done => Ok(()),
        Step::Refuse => Err(DetachVolumeError::Staged(
            node.unwrap_or_default().to_owned(),
        )),
        Step::Detach => {
            // Left by a staging that was cut off; mounted where it cannot be seen from here, it
            // does not detach.
            if let Some(device) = pool.device(id)? {
                device.detach()?;
            }
            Ok(failpoint::around("detach.record", || {
                pool.layout.forget::<AttachmentRecord>(id)?;
                files::sync_directory(&pool.layout.folder(id))
            })?)
        }
    }
}

/// Whether it is mounted, or, as a block device, written down as staged.
fn is_staged(pool: &Pool, id: &VolumeId) -> Result<bool, DetachVolumeError> {
    let Some(device) = pool.device(id)? else {
        return Ok(false);
    };
    let table = MountTable::read()?;
    let shown = table.showing(device.path(), device.number()).next();
    if shown.is_some() {
        return Ok(true);
    }
    let block = super::validate::look_up(pool, id).is_ok_and(|it| it.file_system.is_none());
    Ok(block && pool.layout.load::<StagingRecord>(id)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_attached_there_and_not_staged_is_detached() {
        for (attached_to, from, staged, step) in [
            (None, Some("here"), false, Step::Done),
            (None, None, true, Step::Done),
            (Some("here"), Some("there"), true, Step::Done),
            (Some("here"), Some("here"), true, Step::Refuse),
            (Some("here"), None, true, Step::Refuse),
            (Some("here"), Some("here"), false, Step::Detach),
            (Some("here"), None, false, Step::Detach),
        ] {
            assert_eq!(
                next(attached_to, from, staged),
                step,
                "{attached_to:?} {from:?}"
            );
        }
    }
}
