//! The small files beside an image that say what it is.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Layout;
use crate::kernel::{Failed, files};
use crate::volume::{
    Attributes, FileSystem, GroupId, MkfsOptions, Provisioning, SnapshotId, VolumeId,
};

/// The format that this program writes, and the only one so far.
const FORMAT: u32 = 1;

/// Something that is written down about an object with an id.
pub trait Record: Serialize + DeserializeOwned {
    /// What the object is known by.
    type Id;

    /// Where it is written down.
    fn path(layout: &Layout, id: &Self::Id) -> PathBuf;
}

/// What is known of a volume: `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// The CSI name by which it was created.
    pub name: String,
    /// Its size in bytes. The image may be larger while an expansion is under way, never smaller.
    pub size_bytes: u64,
    /// Its file system; `None` for a raw block device.
    pub file_system: Option<FileSystem>,
    /// Whether the file system was made. It is made once, before the first mount ever, and this
    /// is set in between: so an image that is formatted is never formatted again, and one that is
    /// not holds nothing but the leavings of an interrupted mkfs.
    pub formatted: bool,
    /// How its blocks are laid out.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// Options for the one mkfs.
    #[serde(default)]
    pub mkfs_options: MkfsOptions,
    /// What it was made from; `None` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What may be changed while it is in use.
    #[serde(default)]
    pub attributes: Attributes,
}

impl VolumeRecord {
    /// What users find in it, in words.
    pub fn content_name(&self) -> &'static str {
        self.file_system
            .map_or("a raw block device", FileSystem::name)
    }

    /// Whether it has all its blocks from the beginning.
    pub fn is_thick(&self) -> bool {
        self.provisioning == Provisioning::Thick
    }
}

/// What a volume was made from. It need not exist any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// Another volume.
    Volume(VolumeId),
}

/// How a volume was staged last: `staging.json`, written before the mount. Whether it is staged
/// at this moment, the kernel alone says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingRecord {
    /// The staging path, without symbolic links.
    pub path: PathBuf,
    /// The mount options, as they came.
    pub mount_flags: Vec<String>,
    /// Whether it may be published at several targets.
    #[serde(default)]
    pub shared: bool,
    /// Whether nobody may write.
    #[serde(default)]
    pub read_only: bool,
}

/// How a volume is attached: `attachment.json`, where `--attach` keeps book of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// The node.
    pub node: String,
    /// Whether for reading only.
    pub read_only: bool,
    /// Whether it may be published at several targets.
    pub shared: bool,
    /// The mount options, as they came.
    pub mount_flags: Vec<String>,
}

/// What is known of a snapshot: `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The CSI name by which it was created; that of its group, if it has one.
    pub name: String,
    /// The volume that it shows. It need not exist any more.
    pub volume: VolumeId,
    /// The volume's size in bytes.
    pub size_bytes: u64,
    /// The volume's file system; `None` for a raw block device.
    pub file_system: Option<FileSystem>,
    /// Whether the file system was made by then.
    pub formatted: bool,
    /// The volume's options for mkfs, in case it was not.
    #[serde(default)]
    pub mkfs_options: MkfsOptions,
    /// When it was taken, in nanoseconds since 1970.
    pub taken_nanoseconds: u64,
    /// The group that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
}

/// What is known of a group of snapshots: `group.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The CSI name by which it was created.
    pub name: String,
    /// Its snapshots, each with the volume that it shows.
    pub members: Vec<Member>,
    /// When it was taken, in nanoseconds since 1970.
    pub taken_nanoseconds: u64,
}

/// A snapshot in a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// The volume.
    pub volume: VolumeId,
    /// The snapshot.
    pub snapshot: SnapshotId,
}

/// What is about to be frozen, written before it is: `intent.json`. Found at start, the volumes
/// are thawed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The volumes.
    pub volumes: Vec<VolumeId>,
}

macro_rules! records {
    ($($record:ty: of $id:ty, at $path:ident;)*) => {$(
        impl Record for $record {
            type Id = $id;

            fn path(layout: &Layout, id: &$id) -> PathBuf {
                layout.$path(id)
            }
        }
    )*};
}

records! {
    VolumeRecord: of VolumeId, at record;
    StagingRecord: of VolumeId, at staging;
    AttachmentRecord: of VolumeId, at attachment;
    SnapshotRecord: of SnapshotId, at snapshot_record;
    GroupRecord: of GroupId, at group_record;
}

/// A record as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Stored<T> {
    format: u32,
    #[serde(flatten)]
    content: T,
}

/// Just enough of a record of any format.
#[derive(Debug, Deserialize)]
struct Version {
    format: u32,
}

/// Why a record cannot be used. It is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read or written.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// It is damaged.
    #[error("{} is damaged ({reason}); nothing was changed: mend it, or remove its directory to \
             give the volume up", .path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A later program wrote it.
    #[error("{} has format {found}, and this program knows format {FORMAT}; use the newer program",
            .path.display())]
    Newer {
        /// The record.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Layout {
    /// Reads what is written down of an object; `None` when nothing is.
    pub fn load<R: Record>(&self, id: &R::Id) -> Result<Option<R>, RecordError> {
        read(&R::path(self, id))
    }

    /// Writes it down, durably.
    pub fn store<R: Record>(&self, id: &R::Id, record: &R) -> Result<(), RecordError> {
        write(&R::path(self, id), record)
    }

    /// Forgets it. Durable only after the directory is synced.
    pub fn forget<R: Record>(&self, id: &R::Id) -> Result<(), Failed> {
        files::remove(&R::path(self, id))
    }
}

impl Intent {
    /// Reads the intent at a path; `None` when there is none.
    pub fn read(path: &Path) -> Result<Option<Self>, RecordError> {
        read(path)
    }

    /// Writes it at a path, durably.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        write(path, self)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failed::new(format!("read {}", path.display()), error).into()),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, RecordError> {
    let damaged = |error: serde_json::Error| RecordError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let Version { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(RecordError::Newer {
            path: path.to_owned(),
            found: format,
        });
    }
    let stored: Stored<T> = serde_json::from_slice(bytes).map_err(damaged)?;
    Ok(stored.content)
}

fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), RecordError> {
    let mut bytes = serde_json::to_vec_pretty(&Stored {
        format: FORMAT,
        content,
    })
    .map_err(|error| Failed::new(format!("encode {}", path.display()), error))?;
    bytes.push(b'\n');
    Ok(files::write(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::NodeName;

    #[test]
    fn records_come_back_as_they_were_stored() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        let node = NodeName::parse("node").unwrap();
        let id = VolumeId::of("pvc-1", &node);
        std::fs::create_dir_all(layout.folder(&id)).unwrap();
        assert_eq!(layout.load::<VolumeRecord>(&id).unwrap(), None);
        let record = VolumeRecord {
            name: "pvc-1".into(),
            size_bytes: 1 << 30,
            file_system: Some(FileSystem::Xfs),
            formatted: false,
            provisioning: Provisioning::Thick,
            mkfs_options: MkfsOptions::parse("-i size=512").unwrap(),
            source: Some(Source::Snapshot(SnapshotId::of("snapshot-1", &node))),
            attributes: Attributes::default(),
        };
        layout.store(&id, &record).unwrap();
        assert_eq!(layout.load(&id).unwrap(), Some(record));
        layout.forget::<VolumeRecord>(&id).unwrap();
        assert_eq!(layout.load::<VolumeRecord>(&id).unwrap(), None);
    }

    #[test]
    fn a_record_of_the_first_release_is_still_read() {
        let old = br#"{"format":1,"name":"pvc-1","size_bytes":1073741824,"file_system":"ext4","formatted":true}"#;
        let record: VolumeRecord = parse(Path::new("volume.json"), old).unwrap();
        assert_eq!(record.file_system, Some(FileSystem::Ext4));
        assert_eq!(
            (record.source, record.provisioning),
            (None, Provisioning::Thin)
        );
    }

    #[test]
    fn what_is_damaged_or_newer_is_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("volume.json");
        for (bytes, words) in [
            (&b""[..], "damaged"),
            (b"\0\0\0\0", "damaged"),
            (b"{\"format\":1}", "damaged"),
            (b"{\"format\":2,\"name\":\"x\"}", "format 2"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = read::<VolumeRecord>(&path).unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("volume.json"),
                "{error}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}
