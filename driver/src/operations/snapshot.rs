//! Taking a snapshot of a volume.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use tonic::Code;

use super::Coded;
use super::copying::{self, Copied, Copy, CopyError, Plan};
use super::validate::{self, LookupError};
use crate::failpoint;
use crate::kernel::{Attempt as _, Failed, files};
use crate::pool::{Busy, Pool, Promise, RecordError, SnapshotRecord, VolumeRecord};
use crate::volume::{GroupId, SnapshotId, VolumeId};

/// A snapshot that is wanted.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// Its CSI name: the same name is the same snapshot.
    pub name: String,
    /// The volume that it is to show.
    pub volume: VolumeId,
    /// Whether a mounted file system is frozen meanwhile.
    pub freeze: bool,
    /// The nodes it may live on; empty for any.
    pub nodes: Vec<String>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A snapshot of this name is there, of another volume.
    #[error("the snapshot {name:?} exists and shows {volume}; choose another name")]
    Exists {
        /// Its CSI name.
        name: String,
        /// What it shows.
        volume: VolumeId,
    },
    /// It has to be on another node.
    #[error("the snapshot has to be on one of the nodes {wanted:?}, and the volume is on {here}")]
    Elsewhere {
        /// Where it may be.
        wanted: Vec<String>,
        /// Where the volume is.
        here: String,
    },
    /// The image was not copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Its record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for SnapshotError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Elsewhere { .. } => Code::ResourceExhausted,
            Self::Copy(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// Takes the snapshot, or finds that it is there already.
pub fn take(pool: &Pool, new: &NewSnapshot) -> Result<(SnapshotId, SnapshotRecord), SnapshotError> {
    let here = pool.node.as_str();
    if !new.nodes.is_empty() && !new.nodes.iter().any(|node| node == here) {
        return Err(SnapshotError::Elsewhere {
            wanted: new.nodes.clone(),
            here: here.to_owned(),
        });
    }
    let id = SnapshotId::of(&new.name, &pool.node);
    let _lock = pool.locks.begin(&id)?;
    if let Some(found) = pool.layout.load::<SnapshotRecord>(&id)? {
        return if found.volume == new.volume {
            Ok((id, found))
        } else {
            Err(SnapshotError::Exists {
                name: new.name.clone(),
                volume: found.volume,
            })
        };
    }
    let _source = pool.locks.begin(&new.volume)?;
    let volume = validate::look_up(pool, &new.volume)?;
    if pool.layout.snapshot_folder(&id).exists() {
        pool.clear_snapshot(&id)?;
    }
    match make(pool, &id, new, &volume) {
        Ok(record) => Ok((id, record)),
        Err(error) => {
            if let Err(leavings) = pool.clear_snapshot(&id) {
                tracing::warn!("a failed snapshot left something behind: {leavings}");
            }
            Err(error)
        }
    }
}

fn make(
    pool: &Pool,
    id: &SnapshotId,
    new: &NewSnapshot,
    volume: &VolumeRecord,
) -> Result<SnapshotRecord, SnapshotError> {
    make_folder(pool, id)?;
    let plan = Plan {
        copies: &[Copy {
            source: new.volume.clone(),
            image: pool.layout.snapshot_image(id),
        }],
        intent: &pool.layout.snapshot_intent(id),
        freeze: new.freeze,
    };
    let Copied { promises, frozen } = copying::copy(pool, &plan)?;
    let record = record(&new.name, &new.volume, volume, now(), None);
    failpoint::around("snapshot.record", || pool.layout.store(id, &record))?;
    promises.into_iter().for_each(Promise::keep);
    tracing::info!(snapshot.id = %id, ?frozen, "took a snapshot");
    Ok(record)
}

/// Finds the snapshot. One of a group that is not whole does not exist.
pub fn look_up(pool: &Pool, id: &SnapshotId) -> Result<SnapshotRecord, LookupError> {
    let found: Option<SnapshotRecord> = pool.layout.load(id)?;
    found
        .filter(|record| {
            let group = record.group.as_ref();
            group.is_none_or(|group| pool.layout.group_record(group).exists())
        })
        .ok_or_else(|| LookupError::NotFound(id.to_string()))
}

/// The folder of a snapshot, durably there.
pub(super) fn make_folder(pool: &Pool, id: &SnapshotId) -> Result<(), Failed> {
    let folder = pool.layout.snapshot_folder(id);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .attempt(|| format!("make {}", folder.display()))?;
    files::sync_directory(&pool.layout.snapshots())
}

/// What is written down of a snapshot.
pub(super) fn record(
    name: &str,
    id: &VolumeId,
    volume: &VolumeRecord,
    taken_nanoseconds: u64,
    group: Option<GroupId>,
) -> SnapshotRecord {
    SnapshotRecord {
        name: name.to_owned(),
        volume: id.clone(),
        size_bytes: volume.size_bytes,
        file_system: volume.file_system,
        formatted: volume.formatted,
        mkfs_options: volume.mkfs_options.clone(),
        taken_nanoseconds,
        group,
    }
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}
