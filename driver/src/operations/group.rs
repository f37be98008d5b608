//! Taking snapshots of several volumes at one moment: a group.
//!
//! The group's record comes last. Without it, its snapshots are leavings, whichever of them are
//! there.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use tonic::Code;

use super::Coded;
use super::copying::{self, Copied, Copy, CopyError, Plan};
use super::list::{self, ListError};
use super::snapshot;
use super::validate::{self, LookupError};
use crate::failpoint;
use crate::kernel::{Attempt as _, Failed, files};
use crate::pool::{
    Busy, GroupRecord, Lock, Member, Pool, Promise, RecordError, SnapshotRecord, VolumeRecord,
};
use crate::volume::{GroupId, SnapshotId, VolumeId};

/// The most volumes in a group. All of them are frozen until the last is copied.
pub const MOST_MEMBERS: usize = 128;

/// A group that is wanted.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// Its CSI name: the same name is the same group.
    pub name: String,
    /// The volumes that it is to show.
    pub volumes: BTreeSet<VolumeId>,
    /// Whether mounted file systems are frozen meanwhile.
    pub freeze: bool,
}

/// A group with its snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is known by.
    pub id: GroupId,
    /// When it was taken, in nanoseconds since 1970.
    pub taken_nanoseconds: u64,
    /// Its snapshots, by volume.
    pub snapshots: Vec<(SnapshotId, SnapshotRecord)>,
}

/// Why there is no group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, group or snapshot, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A volume is another node's, and no moment is the same on two.
    #[error(
        "{volume} lives on the node {node}, and only volumes of {here} can be taken together \
         here; make a group of volumes that share a node"
    )]
    Elsewhere {
        /// The volume.
        volume: VolumeId,
        /// Its node.
        node: String,
        /// This node.
        here: String,
    },
    /// A group of this name is there, of other volumes.
    #[error("the group {name:?} exists and shows {volumes:?}; choose another name")]
    Exists {
        /// Its CSI name.
        name: String,
        /// What it shows.
        volumes: Vec<String>,
    },
    /// The caller takes other snapshots for its members.
    #[error(
        "the snapshots of {group} are {members:?}, and not those that were named; name all of \
         them, or none"
    )]
    Members {
        /// The group.
        group: GroupId,
        /// What is in it.
        members: Vec<String>,
    },
    /// The images were not copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Leavings of an earlier attempt cannot be looked through.
    #[error(transparent)]
    List(#[from] ListError),
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for GroupError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::Elsewhere { .. } => Code::FailedPrecondition,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Members { .. } => Code::InvalidArgument,
            Self::Copy(error) => error.code(),
            Self::List(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// Takes the snapshots, or finds that they are there already.
pub fn take(pool: &Pool, new: &NewGroup) -> Result<Group, GroupError> {
    let id = GroupId::of(&new.name, &pool.node);
    let _lock = pool.locks.begin(&id)?;
    if let Some(found) = pool.layout.load::<GroupRecord>(&id)? {
        return if shows(&found, &new.volumes) {
            whole(pool, id, &found)
        } else {
            Err(GroupError::Exists {
                name: new.name.clone(),
                volumes: found
                    .members
                    .iter()
                    .map(|it| it.volume.to_string())
                    .collect(),
            })
        };
    }
    if let Some(volume) = new
        .volumes
        .iter()
        .find(|it| it.node() != pool.node.as_str())
    {
        return Err(GroupError::Elsewhere {
            volume: volume.clone(),
            node: volume.node().to_owned(),
            here: pool.node.as_str().to_owned(),
        });
    }
    if pool.layout.group_folder(&id).exists() {
        clear_leavings(pool, &id)?;
    }
    let members = members(pool, &id, &new.volumes);
    let _locks = lock_all(pool, &members)?;
    let sources: Vec<VolumeRecord> = new
        .volumes
        .iter()
        .map(|volume| validate::look_up(pool, volume))
        .collect::<Result<_, _>>()?;
    clear_members(pool, &members)?;
    match make(pool, &id, new, &members, &sources) {
        Ok(group) => Ok(group),
        Err(error) => {
            if let Err(leavings) = clear(pool, &id, &members) {
                tracing::warn!("a failed group of snapshots left something behind: {leavings}");
            }
            Err(error)
        }
    }
}

/// Finds the group. `expected` are the snapshots that the caller takes for its members; none for
/// whatever they are.
pub fn look_up(
    pool: &Pool,
    id: &GroupId,
    expected: &BTreeSet<String>,
) -> Result<Group, GroupError> {
    let record: GroupRecord = pool
        .layout
        .load(id)?
        .ok_or_else(|| LookupError::NotFound(id.to_string()))?;
    compare(id, &record, expected)?;
    whole(pool, id.clone(), &record)
}

/// Whether the caller knows the members, as far as any are named.
pub(super) fn compare(
    id: &GroupId,
    record: &GroupRecord,
    expected: &BTreeSet<String>,
) -> Result<(), GroupError> {
    let members: BTreeSet<String> = record
        .members
        .iter()
        .map(|member| member.snapshot.to_string())
        .collect();
    if expected.is_empty() || *expected == members {
        Ok(())
    } else {
        Err(GroupError::Members {
            group: id.clone(),
            members: members.into_iter().collect(),
        })
    }
}

/// Removes what is left of a group without a record: every snapshot that names it, then its
/// folder, by which it is known that there may be something.
pub(super) fn clear_leavings(pool: &Pool, id: &GroupId) -> Result<(), GroupError> {
    for snapshot in list::snapshots_of(pool, id)? {
        let _lock = pool.locks.begin(&snapshot)?;
        pool.clear_snapshot(&snapshot)?;
    }
    Ok(pool.clear_group(id)?)
}

/// Removes a group's snapshots, then its folder. The caller holds their locks.
pub(super) fn clear(pool: &Pool, id: &GroupId, members: &[Member]) -> Result<(), Failed> {
    clear_members(pool, members)?;
    pool.clear_group(id)
}

fn clear_members(pool: &Pool, members: &[Member]) -> Result<(), Failed> {
    for member in members {
        if pool.layout.snapshot_folder(&member.snapshot).exists() {
            pool.clear_snapshot(&member.snapshot)?;
        }
    }
    Ok(())
}

fn shows(record: &GroupRecord, volumes: &BTreeSet<VolumeId>) -> bool {
    let shown: BTreeSet<_> = record.members.iter().map(|it| &it.volume).collect();
    shown == volumes.iter().collect()
}

fn members(pool: &Pool, id: &GroupId, volumes: &BTreeSet<VolumeId>) -> Vec<Member> {
    volumes
        .iter()
        .map(|volume| Member {
            volume: volume.clone(),
            snapshot: SnapshotId::in_group(id, volume, &pool.node),
        })
        .collect()
}

/// Volumes by id, so that of two groups that share some, one gets them all.
fn lock_all(pool: &Pool, members: &[Member]) -> Result<Vec<Lock>, Busy> {
    let mut locks = Vec::with_capacity(2 * members.len());
    for member in members {
        locks.push(pool.locks.begin(&member.volume)?);
        locks.push(pool.locks.begin(&member.snapshot)?);
    }
    Ok(locks)
}

fn make(
    pool: &Pool,
    id: &GroupId,
    new: &NewGroup,
    members: &[Member],
    sources: &[VolumeRecord],
) -> Result<Group, GroupError> {
    let folder = pool.layout.group_folder(id);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .attempt(|| format!("make {}", folder.display()))?;
    files::sync_directory(&pool.layout.groups())?;
    for member in members {
        snapshot::make_folder(pool, &member.snapshot)?;
    }
    let copies: Vec<_> = members
        .iter()
        .map(|member| Copy {
            source: member.volume.clone(),
            image: pool.layout.snapshot_image(&member.snapshot),
        })
        .collect();
    let plan = Plan {
        copies: &copies,
        intent: &pool.layout.group_intent(id),
        freeze: new.freeze,
    };
    let Copied { promises, frozen } = copying::copy(pool, &plan)?;
    let taken_nanoseconds = snapshot::now();
    let records: Vec<_> = members
        .iter()
        .zip(sources)
        .map(|(member, source)| {
            let group = Some(id.clone());
            let record =
                snapshot::record(&new.name, &member.volume, source, taken_nanoseconds, group);
            (member.snapshot.clone(), record)
        })
        .collect();
    failpoint::around("group.members", || {
        records
            .iter()
            .try_for_each(|(snapshot, record)| pool.layout.store(snapshot, record))
    })?;
    let record = GroupRecord {
        name: new.name.clone(),
        members: members.to_vec(),
        taken_nanoseconds,
    };
    failpoint::around("group.record", || pool.layout.store(id, &record))?;
    promises.into_iter().for_each(Promise::keep);
    tracing::info!(group.id = %id, members = members.len(), ?frozen, "took a group of snapshots");
    Ok(Group {
        id: id.clone(),
        taken_nanoseconds,
        snapshots: records,
    })
}

/// The group as its record has it, with its snapshots.
fn whole(pool: &Pool, id: GroupId, record: &GroupRecord) -> Result<Group, GroupError> {
    let snapshots = record.members.iter().map(|member| {
        let found = snapshot::look_up(pool, &member.snapshot)?;
        Ok((member.snapshot.clone(), found))
    });
    Ok(Group {
        id,
        taken_nanoseconds: record.taken_nanoseconds,
        snapshots: snapshots.collect::<Result<_, LookupError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::NodeName;

    #[test]
    fn a_group_is_the_set_of_its_volumes_and_of_its_snapshots() {
        let node = NodeName::parse("node").unwrap();
        let id = GroupId::of("group", &node);
        let [a, b, c] = ["a", "b", "c"].map(|name| VolumeId::of(name, &node));
        let member = |volume: &VolumeId| Member {
            volume: volume.clone(),
            snapshot: SnapshotId::in_group(&id, volume, &node),
        };
        let record = GroupRecord {
            name: "group".into(),
            members: vec![member(&a), member(&b)],
            taken_nanoseconds: 1,
        };
        assert!(shows(&record, &[b.clone(), a.clone()].into()));
        assert!(!shows(&record, &[a.clone()].into()));
        assert!(!shows(&record, &[a.clone(), b.clone(), c.clone()].into()));
        let named = |volumes: &[&VolumeId]| {
            volumes
                .iter()
                .map(|volume| member(volume).snapshot.to_string())
                .collect()
        };
        assert!(compare(&id, &record, &BTreeSet::new()).is_ok());
        assert!(compare(&id, &record, &named(&[&b, &a])).is_ok());
        for wrong in [named(&[&a]), named(&[&a, &c]), named(&[&a, &b, &c])] {
            let error = compare(&id, &record, &wrong).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        }
    }
}
