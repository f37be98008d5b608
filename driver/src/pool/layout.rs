//! Where things lie in a pool.

use std::path::{Path, PathBuf};

use crate::volume::{GroupId, Id, Kind, SnapshotId, VolumeId};

/// The paths of a pool: `volumes/<id>/{image,volume.json,staging.json,attachment.json,
/// intent.json}`, `snapshots/<id>/{image,snapshot.json,intent.json}` and `groups/<id>/{group.json,intent.json}`.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A pool at this directory.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The pool's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of all volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The directory of all snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The directory of all groups of snapshots.
    pub fn groups(&self) -> PathBuf {
        self.root.join("groups")
    }

    /// The directory of one volume.
    pub fn folder(&self, id: &VolumeId) -> PathBuf {
        self.volumes().join(id.as_str())
    }

    /// A volume's data.
    pub fn image(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("image")
    }

    /// The end of an image's path that is the same in every mount namespace.
    pub fn image_tail<K: Kind>(id: &Id<K>) -> PathBuf {
        Path::new(id.as_str()).join("image")
    }

    /// What is known of a volume. A volume exists exactly while this does.
    pub fn record(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("volume.json")
    }

    /// How a volume was staged last.
    pub fn staging(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("staging.json")
    }

    /// How a volume is attached, where `--attach` keeps book of that.
    pub fn attachment(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("attachment.json")
    }

    /// Which volume may be frozen for the sake of this clone of it.
    pub fn intent(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("intent.json")
    }

    /// The directory of one snapshot.
    pub fn snapshot_folder(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots().join(id.as_str())
    }

    /// A snapshot's data.
    pub fn snapshot_image(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot_folder(id).join("image")
    }

    /// What is known of a snapshot. A snapshot exists exactly while this does.
    pub fn snapshot_record(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot_folder(id).join("snapshot.json")
    }

    /// Which volume may be frozen for the sake of a snapshot.
    pub fn snapshot_intent(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot_folder(id).join("intent.json")
    }

    /// The directory of one group of snapshots.
    pub fn group_folder(&self, id: &GroupId) -> PathBuf {
        self.groups().join(id.as_str())
    }

    /// What is known of a group. A group and its snapshots exist exactly while this does.
    pub fn group_record(&self, id: &GroupId) -> PathBuf {
        self.group_folder(id).join("group.json")
    }

    /// Which volumes may be frozen for the sake of a group.
    pub fn group_intent(&self, id: &GroupId) -> PathBuf {
        self.group_folder(id).join("intent.json")
    }
}
