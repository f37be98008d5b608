//! What is done when a pool opens: volumes are booked, and half-made ones cleared away.

use super::{Layout, Pool};
use crate::kernel::{Attempt as _, Failed};
use crate::volume::VolumeId;

/// What an entry among the volumes is.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A volume of this size in bytes.
    Volume(u64),
    /// A creation or deletion that was interrupted: no record.
    Leavings,
    /// A record that cannot be used; the image with this size is kept and booked.
    Unreadable(u64, String),
}

/// Looks at every entry. What cannot be cleared is left, with an error in the log: it keeps the
/// driver from that volume only.
pub(super) fn run(pool: &Pool) -> Result<(), Failed> {
    let volumes = pool.layout.volumes();
    let attempt = || format!("list {}", volumes.display());
    for entry in std::fs::read_dir(&volumes).attempt(attempt)? {
        let name = entry.attempt(attempt)?.file_name();
        let Some(id) = name.to_str().and_then(VolumeId::parse) else {
            tracing::warn!(entry = ?name, "not a volume; left as it is");
            continue;
        };
        match look(&pool.layout, &id) {
            Entry::Volume(size) => pool.books.record(id, size),
            Entry::Unreadable(size, reason) => {
                tracing::error!(volume.id = %id, "{reason}");
                pool.books.record(id, size);
            }
            Entry::Leavings => match pool.clear(&id) {
                Ok(()) => tracing::info!(volume.id = %id, "removed an unfinished volume"),
                Err(error) => {
                    tracing::error!(volume.id = %id, "an unfinished volume stays: {error}");
                    pool.books.record(id.clone(), image_size(&pool.layout, &id));
                }
            },
        }
    }
    let (promised, count) = pool.books.totals();
    tracing::info!(volumes = count, promised_bytes = promised, "pool is open");
    Ok(())
}

fn look(layout: &Layout, id: &VolumeId) -> Entry {
    match layout.load(id) {
        Ok(Some(record)) => Entry::Volume(record.size_bytes),
        Ok(None) => Entry::Leavings,
        Err(error) => Entry::Unreadable(image_size(layout, id), error.to_string()),
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
    use crate::pool::VolumeRecord;
    use crate::volume::{FileSystem, NodeName};

    #[test]
    fn only_what_has_no_record_is_leavings() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        let id = VolumeId::of("pvc", &NodeName::parse("node").unwrap());
        std::fs::create_dir_all(layout.folder(&id)).unwrap();
        assert_eq!(look(&layout, &id), Entry::Leavings);
        std::fs::write(layout.image(&id), [0; 8192]).unwrap();
        assert_eq!(look(&layout, &id), Entry::Leavings);
        std::fs::write(layout.record(&id), "{").unwrap();
        assert!(matches!(look(&layout, &id), Entry::Unreadable(8192, _)));
        let record = VolumeRecord {
            name: "pvc".into(),
            size_bytes: 1 << 20,
            file_system: FileSystem::Ext4,
            formatted: true,
        };
        layout.store(&id, &record).unwrap();
        assert_eq!(look(&layout, &id), Entry::Volume(1 << 20));
    }
}
