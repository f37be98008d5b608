//! Deleting a group with its snapshots: its record first, so that a crash leaves a whole group or
//! leavings.

use std::collections::BTreeSet;

use tonic::Code;

use super::Coded;
use super::group::{self, GroupError};
use crate::failpoint;
use crate::kernel::{Failed, files};
use crate::pool::{Busy, GroupRecord, Lock, Pool, RecordError};
use crate::volume::GroupId;

/// Why a group is still there.
#[derive(Debug, thiserror::Error)]
pub enum DeleteGroupError {
    /// Another operation is under way, such as the creation of a volume from a member.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It is another node's.
    #[error("the group lives on the node {0}, and only the driver there can delete it")]
    Elsewhere(String),
    /// The caller takes other snapshots for its members, or leavings of it do not go.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Its record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for DeleteGroupError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Elsewhere(_) => Code::FailedPrecondition,
            Self::Group(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// Deletes the group, or finds that there is none. `expected` are the snapshots that the caller
/// takes for its members; none for whatever they are.
pub fn delete_group(
    pool: &Pool,
    id: &GroupId,
    expected: &BTreeSet<String>,
) -> Result<(), DeleteGroupError> {
    let _lock = pool.locks.begin(id)?;
    if !pool.layout.group_folder(id).exists() {
        // To say that another node's group is gone would be a lie that costs its space.
        return match id.node() {
            node if node == pool.node.as_str() => Ok(()),
            node => Err(DeleteGroupError::Elsewhere(node.to_owned())),
        };
    }
    let Some(record) = pool.layout.load::<GroupRecord>(id)? else {
        return Ok(group::clear_leavings(pool, id)?);
    };
    group::compare(id, &record, expected)?;
    // Nothing is forgotten while a volume is being made from a member.
    let _members: Vec<Lock> = record
        .members
        .iter()
        .map(|member| pool.locks.begin(&member.snapshot))
        .collect::<Result<_, _>>()?;
    failpoint::around("group.forget", || {
        pool.layout.forget::<GroupRecord>(id)?;
        files::sync_directory(&pool.layout.group_folder(id))
    })?;
    failpoint::around("group.clear", || group::clear(pool, id, &record.members))?;
    Ok(())
}
