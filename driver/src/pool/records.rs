//! The small files beside an image that say what it is.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Layout;
use crate::kernel::{Failed, files};
use crate::volume::{FileSystem, VolumeId};

/// The format that this program writes, and the only one so far.
const FORMAT: u32 = 1;

/// What is known of a volume: `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// The CSI name by which it was created.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its file system.
    pub file_system: FileSystem,
    /// Whether the file system was made. It is made once, before the first mount ever, and this
    /// is set in between: so an image that is formatted is never formatted again, and one that is
    /// not holds nothing but the leavings of an interrupted mkfs.
    pub formatted: bool,
}

/// How a volume was staged last: `staging.json`, written before the mount. Whether it is staged
/// at this moment, the kernel alone says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingRecord {
    /// The staging path, without symbolic links.
    pub path: PathBuf,
    /// The mount options, as they came.
    pub mount_flags: Vec<String>,
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
    /// Reads a volume's record; `None` when there is no such volume.
    pub fn load(&self, id: &VolumeId) -> Result<Option<VolumeRecord>, RecordError> {
        read(&self.record(id))
    }

    /// Writes a volume's record, durably.
    pub fn store(&self, id: &VolumeId, record: &VolumeRecord) -> Result<(), RecordError> {
        write(&self.record(id), record)
    }

    /// Reads how a volume was staged last; `None` if never, or not since it was unstaged.
    pub fn load_staging(&self, id: &VolumeId) -> Result<Option<StagingRecord>, RecordError> {
        read(&self.staging(id))
    }

    /// Writes how a volume is about to be staged.
    pub fn store_staging(&self, id: &VolumeId, record: &StagingRecord) -> Result<(), RecordError> {
        write(&self.staging(id), record)
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
        let id = VolumeId::of("pvc-1", &NodeName::parse("node").unwrap());
        std::fs::create_dir_all(layout.folder(&id)).unwrap();
        assert_eq!(layout.load(&id).unwrap(), None);
        let record = VolumeRecord {
            name: "pvc-1".into(),
            size_bytes: 1 << 30,
            file_system: FileSystem::Xfs,
            formatted: false,
        };
        layout.store(&id, &record).unwrap();
        assert_eq!(layout.load(&id).unwrap(), Some(record));
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
