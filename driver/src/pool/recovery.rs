//! What is done when a pool opens: what a crash left frozen is thawed, what is whole is booked,
//! and what is half made or half deleted is cleared away. What is in use is not touched.

use std::path::Path;

use super::{GroupRecord, Intent, Layout, Pool, RecordError, SnapshotRecord, VolumeRecord};
use crate::kernel::freezing::{self, Target};
use crate::kernel::mount_table::MountTable;
use crate::kernel::{Attempt as _, Failed};
use crate::volume::{GroupId, Id, Kind, SnapshotId, VolumeId};

/// What an entry in the pool is.
#[derive(Debug, PartialEq, Eq)]
enum Entry<R> {
    /// Something whole.
    Whole(R),
    /// A creation or deletion that was interrupted: no record.
    Leavings,
    /// A record that cannot be used; everything of it is kept.
    Unreadable(String),
}

impl<R> Entry<R> {
    fn of(loaded: Result<Option<R>, RecordError>) -> Self {
        match loaded {
            Ok(Some(record)) => Self::Whole(record),
            Ok(None) => Self::Leavings,
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

/// Looks at every entry. What cannot be cleared is left, with an error in the log: it keeps the
/// driver from that object only.
pub(super) fn run(pool: &Pool) -> Result<(), Failed> {
    let layout = &pool.layout;
    let volumes = entries(&layout.volumes())?;
    let snapshots = entries(&layout.snapshots())?;
    let groups = entries(&layout.groups())?;
    // Before anything else: whatever writes to a frozen file system waits.
    for intent in volumes
        .iter()
        .map(|id| layout.intent(id))
        .chain(snapshots.iter().map(|id| layout.snapshot_intent(id)))
        .chain(groups.iter().map(|id| layout.group_intent(id)))
    {
        thaw(pool, &intent)?;
    }
    let mut left = snapshots.len();
    for id in &snapshots {
        if !snapshot(pool, id) {
            left -= 1;
        }
    }
    for id in &groups {
        group(pool, id);
    }
    for id in volumes {
        volume(pool, id);
    }
    pool.measure()?;
    let totals = pool.books.totals();
    tracing::info!(
        volumes = totals.volumes,
        snapshots = left,
        promised_bytes = totals.promised,
        pinned_bytes = totals.pinned,
        "pool is open"
    );
    Ok(())
}

/// The ids in a folder; other names are pointed out and left alone.
fn entries<K: Kind>(folder: &Path) -> Result<Vec<Id<K>>, Failed> {
    let attempt = || format!("list {}", folder.display());
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).attempt(attempt)? {
        let name = entry.attempt(attempt)?.file_name();
        if let Some(id) = name.to_str().and_then(Id::parse) {
            ids.push(id);
        } else {
            tracing::warn!(entry = ?name, "not this driver's; left as it is");
        }
    }
    Ok(ids)
}

/// Thaws what an intent names, and forgets the intent.
fn thaw(pool: &Pool, path: &Path) -> Result<(), Failed> {
    let intent = match Intent::read(path) {
        Ok(Some(intent)) => intent,
        Ok(None) => return Ok(()),
        Err(error) => {
            tracing::error!("{error}");
            return Ok(());
        }
    };
    let table = MountTable::read()?;
    for id in &intent.volumes {
        let Some(device) = pool.device(id)? else {
            continue;
        };
        let Some(mount) = table.of(device.number()).next() else {
            continue;
        };
        let target = Target {
            point: mount.point.clone(),
            device: mount.device,
        };
        match freezing::thaw(&target) {
            Ok(true) => tracing::warn!(volume.id = %id, "thawed what a crash left frozen"),
            Ok(false) => {}
            Err(error) => tracing::error!(volume.id = %id, "{error}"),
        }
    }
    crate::kernel::files::remove(path)
}

/// Whether the snapshot stays. One whose group was never completed, or is being deleted, goes.
fn snapshot(pool: &Pool, id: &SnapshotId) -> bool {
    match Entry::<SnapshotRecord>::of(pool.layout.load(id)) {
        Entry::Whole(record) => match &record.group {
            Some(group) if !pool.layout.group_record(group).exists() => {}
            _ => return true,
        },
        Entry::Unreadable(reason) => {
            tracing::error!(snapshot.id = %id, "{reason}");
            return true;
        }
        Entry::Leavings => {}
    }
    match pool.clear_snapshot(id) {
        Ok(()) => {
            tracing::info!(snapshot.id = %id, "removed an unfinished snapshot");
            false
        }
        Err(error) => {
            tracing::error!(snapshot.id = %id, "an unfinished snapshot stays: {error}");
            true
        }
    }
}

fn group(pool: &Pool, id: &GroupId) {
    match Entry::<GroupRecord>::of(pool.layout.load(id)) {
        Entry::Whole(_) => {}
        Entry::Unreadable(reason) => tracing::error!(group.id = %id, "{reason}"),
        Entry::Leavings => match pool.clear_group(id) {
            Ok(()) => tracing::info!(group.id = %id, "removed an unfinished group of snapshots"),
            Err(error) => tracing::error!(group.id = %id, "an unfinished group stays: {error}"),
        },
    }
}

fn volume(pool: &Pool, id: VolumeId) {
    match Entry::<VolumeRecord>::of(pool.layout.load(&id)) {
        Entry::Whole(mut record) => {
            // An expansion gives the image its size first: it was admitted, so it is finished.
            let size = image_size(&pool.layout, &id);
            if size > record.size_bytes {
                record.size_bytes = size;
                if let Err(error) = pool.layout.store(&id, &record) {
                    tracing::error!(volume.id = %id, "an unfinished expansion stays: {error}");
                }
            }
            pool.books.record(id, record.size_bytes);
        }
        Entry::Unreadable(reason) => {
            tracing::error!(volume.id = %id, "{reason}");
            let size = image_size(&pool.layout, &id);
            pool.books.record(id, size);
        }
        Entry::Leavings => match pool.clear(&id) {
            Ok(()) => tracing::info!(volume.id = %id, "removed an unfinished volume"),
            Err(error) => {
                tracing::error!(volume.id = %id, "an unfinished volume stays: {error}");
                let size = image_size(&pool.layout, &id);
                pool.books.record(id, size);
            }
        },
    }
}

/// What an image may come to take; nothing when there is none.
fn image_size(layout: &Layout, id: &VolumeId) -> u64 {
    layout
        .image(id)
        .symlink_metadata()
        .map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::NodeName;

    #[test]
    fn only_what_has_no_record_is_leavings() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        let id = VolumeId::of("pvc", &NodeName::parse("node").unwrap());
        std::fs::create_dir_all(layout.folder(&id)).unwrap();
        let look = || Entry::<VolumeRecord>::of(layout.load(&id));
        assert_eq!(look(), Entry::Leavings);
        std::fs::write(layout.image(&id), [0; 8192]).unwrap();
        assert_eq!(look(), Entry::Leavings);
        std::fs::write(layout.record(&id), "{").unwrap();
        assert!(matches!(look(), Entry::Unreadable(_)));
        assert_eq!(image_size(&layout, &id), 8192);
        let old =
            r#"{"format":1,"name":"pvc","size_bytes":8192,"file_system":"xfs","formatted":true}"#;
        std::fs::write(layout.record(&id), old).unwrap();
        assert!(matches!(look(), Entry::Whole(record) if record.size_bytes == 8192));
    }

    #[test]
    fn only_ids_of_the_right_kind_are_entries() {
        let directory = tempfile::tempdir().unwrap();
        let id = VolumeId::of("pvc", &NodeName::parse("node").unwrap());
        for name in [id.as_str(), "lost+found", "snap-x.node", "vol-1"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        assert_eq!(entries(directory.path()).unwrap(), [id]);
    }
}
