//! Creating a volume: a booking, an image with holes, and a record.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use tonic::Code;

use super::{Coded, code_of};
use crate::failpoint;
use crate::kernel::{Attempt as _, Failed, files};
use crate::pool::{AdmissionError, Busy, ClearError, Pool, RecordError, VolumeRecord};
use crate::volume::{FileSystem, SizeError, SizeRange, VolumeId};

/// A volume that is wanted.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its CSI name: the same name is the same volume.
    pub name: String,
    /// How large it may be.
    pub size: SizeRange,
    /// Its file system.
    pub file_system: FileSystem,
    /// The nodes it may live on; empty for any.
    pub nodes: Vec<String>,
}

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// A volume of this name is there, and is not what is wanted.
    #[error(
        "the volume {name:?} exists with {found}, which is not what is asked for; ask for that, or choose another name"
    )]
    Exists {
        /// Its CSI name.
        name: String,
        /// What it has.
        found: String,
    },
    /// No size fits.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// It has to be on another node.
    #[error("the volume has to be on one of the nodes {wanted:?}, and this is {here}")]
    Elsewhere {
        /// Where it may be.
        wanted: Vec<String>,
        /// Where this driver is.
        here: String,
    },
    /// The pool does not admit it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// Its record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Leavings of an earlier attempt do not go.
    #[error(transparent)]
    Leavings(#[from] ClearError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for CreateError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Size(SizeError::Negative | SizeError::Contradiction { .. }) => {
                Code::InvalidArgument
            }
            Self::Size(SizeError::Limit { .. } | SizeError::Huge(_)) => Code::OutOfRange,
            Self::Elsewhere { .. } | Self::Admission(AdmissionError::Full { .. }) => {
                Code::ResourceExhausted
            }
            Self::Admission(AdmissionError::Failed(failed)) | Self::Failed(failed) => {
                code_of(failed)
            }
            Self::Record(RecordError::Failed(failed)) => code_of(failed),
            Self::Record(RecordError::Damaged { .. } | RecordError::Newer { .. })
            | Self::Leavings(_) => Code::Internal,
        }
    }
}

/// Creates the volume, or finds that it is there already.
pub fn create(pool: &Pool, new: &NewVolume) -> Result<(VolumeId, VolumeRecord), CreateError> {
    let here = pool.node.as_str();
    if !new.nodes.is_empty() && !new.nodes.iter().any(|node| node == here) {
        return Err(CreateError::Elsewhere {
            wanted: new.nodes.clone(),
            here: here.to_owned(),
        });
    }
    let id = VolumeId::of(&new.name, &pool.node);
    let _lock = pool.locks.begin(&id)?;
    if let Some(record) = pool.layout.load(&id)? {
        compare(&record, new)?;
        return Ok((id, record));
    }
    if pool.layout.folder(&id).exists() {
        pool.clear(&id)?;
    }
    let size_bytes = new.size.choose(new.file_system.minimum())?;
    let record = VolumeRecord {
        name: new.name.clone(),
        size_bytes,
        file_system: new.file_system,
        formatted: false,
    };
    let promise = pool.books.promise(&id, size_bytes, || pool.capacity())?;
    if let Err(error) = make(pool, &id, &record) {
        // What is left now is cleared at the next attempt or start, and the first error is the
        // one to tell.
        if let Err(leavings) = pool.clear(&id) {
            tracing::warn!("a failed creation left something behind: {leavings}");
        }
        return Err(error);
    }
    promise.keep();
    Ok((id, record))
}

/// Whether a volume that is there is what is wanted.
fn compare(found: &VolumeRecord, wanted: &NewVolume) -> Result<(), CreateError> {
    let differs = |found: String| {
        let name = wanted.name.clone();
        Err(CreateError::Exists { name, found })
    };
    if found.name != wanted.name {
        differs(format!("the name {:?}", found.name))
    } else if !wanted.size.admits(found.size_bytes) {
        differs(format!("{} bytes", found.size_bytes))
    } else if found.file_system != wanted.file_system {
        differs(found.file_system.name().to_owned())
    } else {
        Ok(())
    }
}

/// The record comes last: without it, all the rest is leavings.
fn make(pool: &Pool, id: &VolumeId, record: &VolumeRecord) -> Result<(), CreateError> {
    failpoint::around("create.image", || make_image(pool, id, record.size_bytes))?;
    failpoint::around("create.record", || pool.layout.store(id, record))?;
    Ok(())
}

fn make_image(pool: &Pool, id: &VolumeId, size: u64) -> Result<(), Failed> {
    let folder = pool.layout.folder(id);
    let image = pool.layout.image(id);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .attempt(|| format!("make {}", folder.display()))?;
    let file: File = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&image)
        .attempt(|| format!("make {}", image.display()))?;
    file.set_len(size)
        .and_then(|()| file.sync_all())
        .attempt(|| format!("give {} its size", image.display()))?;
    files::sync_directory(&pool.layout.volumes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_exists_must_be_what_is_wanted() {
        let found = VolumeRecord {
            name: "pvc".into(),
            size_bytes: 1 << 30,
            file_system: FileSystem::Ext4,
            formatted: true,
        };
        let wanted = |name: &str, required, limit, file_system| {
            let size = SizeRange::parse(required, limit).unwrap();
            NewVolume {
                name: name.into(),
                size,
                file_system,
                nodes: Vec::new(),
            }
        };
        for (new, same) in [
            (wanted("pvc", 0, 0, FileSystem::Ext4), true),
            (wanted("pvc", 1 << 30, 1 << 30, FileSystem::Ext4), true),
            (wanted("pvc", 1, 0, FileSystem::Ext4), true),
            (wanted("pvc", (1 << 30) + 1, 0, FileSystem::Ext4), false),
            (wanted("pvc", 0, (1 << 30) - 1, FileSystem::Ext4), false),
            (wanted("pvc", 0, 0, FileSystem::Xfs), false),
            (wanted("other", 0, 0, FileSystem::Ext4), false),
        ] {
            let result = compare(&found, &new);
            assert_eq!(result.is_ok(), same, "{new:?}");
            assert!(
                result
                    .err()
                    .is_none_or(|error| error.code() == Code::AlreadyExists)
            );
        }
    }
}
