//! Attaching a volume: with `--attach`, it is written down which node may stage it. An image is on
//! one node only, so that is the node of this driver, or none.

use std::sync::PoisonError;

use tonic::Code;

use super::Coded;
use super::limit::most_volumes;
use super::validate::{LookupError, look_up};
use crate::failpoint;
use crate::kernel::{Attempt as _, Failed};
use crate::pool::{AttachmentRecord, Busy, Pool, RecordError};
use crate::volume::{Capability, VolumeId};

/// Why a volume is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
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
    /// It cannot be attached to that node.
    #[error("there is no node {wanted:?} here; the volume lies on {here}")]
    NoNode {
        /// The node.
        wanted: String,
        /// The driver's node.
        here: String,
    },
    /// It is attached to another node.
    #[error("the volume is attached to {0}; ControllerUnpublishVolume has to come first")]
    Elsewhere(String),
    /// It is attached in another way.
    #[error(
        "the volume is attached to {node} with another access mode, mount options or readonly; \
         ControllerUnpublishVolume has to come first"
    )]
    Differs {
        /// The node.
        node: String,
    },
    /// The node has as many volumes as it can.
    #[error("{most} volumes are attached to {node}, and more it cannot have; detach some")]
    Limit {
        /// The node.
        node: String,
        /// How many it can have.
        most: u64,
    },
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for AttachError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::NoNode { .. } => Code::NotFound,
            Self::Content { .. } | Self::Elsewhere(_) => Code::FailedPrecondition,
            Self::Differs { .. } => Code::AlreadyExists,
            Self::Limit { .. } => Code::ResourceExhausted,
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Attach,
    Done,
    RefuseNode,
    RefuseElsewhere,
    RefuseDiffers,
}

/// A volume that is attached stays as it is attached: another node or use is for the caller to
/// detach it first.
fn next(found: Option<&AttachmentRecord>, wanted: &AttachmentRecord, here: &str) -> Step {
    match found {
        Some(found) if found == wanted => Step::Done,
        Some(found) if found.node == wanted.node => Step::RefuseDiffers,
        Some(_) => Step::RefuseElsewhere,
        None if wanted.node != here => Step::RefuseNode,
        None => Step::Attach,
    }
}

/// Attaches the volume to a node, or finds it attached so.
pub fn attach(
    pool: &Pool,
    id: &VolumeId,
    node: &str,
    capability: &Capability,
    read_only: bool,
) -> Result<(), AttachError> {
    let _lock = pool.locks.begin(id)?;
    let record = look_up(pool, id)?;
    let wanted = AttachmentRecord {
        node: node.to_owned(),
        read_only: read_only || capability.read_only,
        shared: capability.shared,
        mount_flags: capability.flags().to_vec(),
    };
    let found: Option<AttachmentRecord> = pool.layout.load(id)?;
    let here = pool.node.as_str();
    match next(found.as_ref(), &wanted, here) {
        Step::Done => Ok(()),
        Step::RefuseDiffers => Err(AttachError::Differs { node: wanted.node }),
        Step::RefuseElsewhere => {
            let node = found.map_or_else(String::new, |found| found.node);
            Err(AttachError::Elsewhere(node))
        }
        Step::RefuseNode => Err(AttachError::NoNode {
            wanted: wanted.node,
            here: here.to_owned(),
        }),
        Step::Attach if !capability.suits(record.file_system) => Err(AttachError::Content {
            found: record.content_name(),
        }),
        Step::Attach => {
            // Counted and written down as one, or two at once would both be the last.
            let _counted = pool
                .attaching
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let most = most_volumes(pool)?;
            if attached(pool)? >= most {
                let node = wanted.node;
                return Err(AttachError::Limit { node, most });
            }
            Ok(failpoint::around("attach.record", || {
                pool.layout.store(id, &wanted)
            })?)
        }
    }
}

/// How many volumes are attached.
fn attached(pool: &Pool) -> Result<u64, Failed> {
    let volumes = pool.layout.volumes();
    let attempt = || format!("list {}", volumes.display());
    let mut count = 0;
    for entry in std::fs::read_dir(&volumes).attempt(attempt)? {
        let name = entry.attempt(attempt)?.file_name();
        let id = name.to_str().and_then(VolumeId::parse);
        count += u64::from(id.is_some_and(|id| pool.layout.attachment(&id).exists()));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(node: &str, read_only: bool) -> AttachmentRecord {
        AttachmentRecord {
            node: node.to_owned(),
            read_only,
            shared: false,
            mount_flags: Vec::new(),
        }
    }

    #[test]
    fn an_attachment_is_made_once_and_never_changed() {
        let here = record("here", false);
        for (found, wanted, step) in [
            (None, record("here", false), Step::Attach),
            (None, record("there", false), Step::RefuseNode),
            (Some(&here), record("here", false), Step::Done),
            (Some(&here), record("here", true), Step::RefuseDiffers),
            (Some(&here), record("there", false), Step::RefuseElsewhere),
        ] {
            assert_eq!(next(found, &wanted, "here"), step, "{found:?} {wanted:?}");
        }
        let shared = AttachmentRecord {
            shared: true,
            ..here.clone()
        };
        assert_eq!(next(Some(&here), &shared, "here"), Step::RefuseDiffers);
        // The pool's disk came from a node of another name.
        let old = record("old", false);
        assert_eq!(next(Some(&old), &here, "here"), Step::RefuseElsewhere);
        assert_eq!(next(Some(&old), &old, "here"), Step::Done);
    }
}
