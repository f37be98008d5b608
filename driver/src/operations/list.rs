//! Looking through all volumes or all snapshots, page by page.
//!
//! Pages go by id, and a page's token is the last id before it: what is deleted or made between
//! two pages neither repeats nor hides anything else.

use std::path::Path;

use tonic::Code;

use super::Coded;
use crate::kernel::{Attempt as _, Failed};
use crate::pool::{Pool, Record, RecordError, SnapshotRecord, VolumeRecord};
use crate::volume::{GroupId, Id, Kind, OfSnapshot, OfVolume, SnapshotId, VolumeId};

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K: Kind> {
    /// The last id of the page before; `None` for the first.
    pub after: Option<Id<K>>,
    /// How many at most; `None` for all.
    pub most: Option<usize>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<K: Kind, R> {
    /// What is in it, by id.
    pub entries: Vec<(Id<K>, R)>,
    /// What the next page comes after; `None` when this is the last.
    pub next: Option<Id<K>>,
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for ListError {
    fn code(&self) -> Code {
        match self {
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// The volumes on a page.
pub fn volumes(
    pool: &Pool,
    page: &Page<OfVolume>,
) -> Result<Listed<OfVolume, VolumeRecord>, ListError> {
    let ids: Vec<VolumeId> = ids(&pool.layout.volumes())?;
    Ok(read(pool, ids, page, |_| true))
}

/// The snapshots on a page of those that `wanted` picks.
pub fn snapshots(
    pool: &Pool,
    page: &Page<OfSnapshot>,
    wanted: impl Fn(&SnapshotRecord) -> bool,
) -> Result<Listed<OfSnapshot, SnapshotRecord>, ListError> {
    let ids: Vec<SnapshotId> = ids(&pool.layout.snapshots())?;
    // While a group is being made or deleted, its snapshots do not exist.
    let whole = |record: &SnapshotRecord| {
        let group = record.group.as_ref();
        group.is_none_or(|group| pool.layout.group_record(group).exists())
    };
    Ok(read(pool, ids, page, |record| {
        whole(record) && wanted(record)
    }))
}

/// The snapshots that name a group, whether or not it has a record.
pub(super) fn snapshots_of(pool: &Pool, group: &GroupId) -> Result<Vec<SnapshotId>, ListError> {
    let mut ids: Vec<SnapshotId> = ids(&pool.layout.snapshots())?;
    ids.retain(|id| {
        let record: Result<Option<SnapshotRecord>, _> = pool.layout.load(id);
        matches!(record, Ok(Some(record)) if record.group.as_ref() == Some(group))
    });
    Ok(ids)
}

/// The ids of all that is in a folder, in order.
pub(super) fn ids<K: Kind>(folder: &Path) -> Result<Vec<Id<K>>, Failed> {
    let attempt = || format!("list {}", folder.display());
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).attempt(attempt)? {
        let name = entry.attempt(attempt)?.file_name();
        ids.extend(name.to_str().and_then(Id::parse));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn read<K: Kind, R: Record<Id = Id<K>>>(
    pool: &Pool,
    ids: Vec<Id<K>>,
    page: &Page<K>,
    wanted: impl Fn(&R) -> bool,
) -> Listed<K, R> {
    gather(ids, page, |id| match pool.layout.load::<R>(id) {
        Ok(record) => record.filter(&wanted),
        // It exists, and nothing true can be said of it here; its health says more.
        Err(error) => {
            report(&error);
            None
        }
    })
}

/// Asks for entries until the page is full. One more is asked for, to know whether there is a
/// next page.
pub(super) fn gather<K: Kind, R>(
    ids: Vec<Id<K>>,
    page: &Page<K>,
    entry: impl Fn(&Id<K>) -> Option<R>,
) -> Listed<K, R> {
    let mut entries: Vec<(Id<K>, R)> = Vec::new();
    let after = |id: &Id<K>| page.after.as_ref().is_none_or(|after| id > after);
    for id in ids.into_iter().filter(after) {
        let Some(found) = entry(&id) else {
            continue;
        };
        if page.most.is_some_and(|most| entries.len() == most) {
            let next = entries.last().map(|(id, _)| id.clone());
            return Listed { entries, next };
        }
        entries.push((id, found));
    }
    Listed {
        entries,
        next: None,
    }
}

fn report(error: &RecordError) {
    tracing::warn!("left out of a list: {error}");
}
