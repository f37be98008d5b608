//! Creating a volume: a booking, an image, and a record. The image has holes, or all its blocks,
//! or shares those of a snapshot or of another volume.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use tonic::Code;

use super::Coded;
use super::copying::{self, Copy, CopyError, Plan};
use super::snapshot;
use super::validate::LookupError;
use crate::failpoint;
use crate::kernel::superblock::{self, Superblock};
use crate::kernel::{Attempt as _, Failed, files, reflink};
use crate::pool::{
    AdmissionError, Busy, ClearError, Lock, Pool, Promise, RecordError, Source, VolumeRecord,
};
use crate::volume::{
    Attributes, Content, DEFAULT_SIZE, FileSystem, MkfsOptionError, MkfsOptions, Provisioning,
    SizeError, SizeRange, VolumeId,
};

/// A volume that is wanted.
#[derive(Debug, Clone)]
pub struct NewVolume {
    /// Its CSI name: the same name is the same volume.
    pub name: String,
    /// How large it may be.
    pub size: SizeRange,
    /// What it is to have.
    pub content: Content,
    /// How its blocks are to be laid out.
    pub provisioning: Provisioning,
    /// Options for its one mkfs.
    pub mkfs_options: MkfsOptions,
    /// What may be changed later.
    pub attributes: Attributes,
    /// What it is made from; `None` for nothing.
    pub source: Option<Source>,
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
        "the volume {name:?} exists with {found}, which is not what is asked for; ask for that, \
         or choose another name"
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
    /// There is no such source.
    #[error("there is no {0} here to make the volume from")]
    NoSource(String),
    /// The source has something else than is wanted.
    #[error("the source has {found}, and {wanted} was asked for; use a StorageClass for {found}")]
    Content {
        /// What the source has.
        found: &'static str,
        /// What is wanted.
        wanted: &'static str,
    },
    /// An option that is not for the volume's file system.
    #[error(transparent)]
    Mkfs(#[from] MkfsOptionError),
    /// An attribute that the volume's file system does not have.
    #[error("reservedPercent is for ext4, and the volume has {0}; remove it")]
    Reserved(&'static str),
    /// The pool does not admit it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The source is not copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
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
            Self::Size(SizeError::Negative | SizeError::Contradiction { .. })
            | Self::Content { .. }
            | Self::Mkfs(_)
            | Self::Reserved(_) => Code::InvalidArgument,
            Self::Size(SizeError::Limit { .. } | SizeError::Huge(_)) => Code::OutOfRange,
            Self::Elsewhere { .. } => Code::ResourceExhausted,
            Self::NoSource(_) => Code::NotFound,
            Self::Admission(error) => error.code(),
            Self::Copy(error) => error.code(),
            Self::Failed(failed) => failed.code(),
            Self::Record(error) => error.code(),
            Self::Leavings(_) => Code::Internal,
        }
    }
}

/// A source as far as the new volume is concerned.
struct Origin {
    size_bytes: u64,
    file_system: Option<FileSystem>,
    formatted: bool,
    mkfs_options: MkfsOptions,
    /// Keeps it from being changed meanwhile.
    _lock: Lock,
}

/// Creates the volume, or finds that it is there already.
pub fn create(pool: &Pool, new: &NewVolume) -> Result<(VolumeId, VolumeRecord), CreateError> {
    check_place(pool, new)?;
    let id = VolumeId::of(&new.name, &pool.node);
    let _lock = pool.locks.begin(&id)?;
    if let Some(record) = pool.layout.load(&id)? {
        compare(&record, new)?;
        return Ok((id, record));
    }
    if pool.layout.folder(&id).exists() {
        pool.clear(&id)?;
    }
    let origin = match &new.source {
        Some(source) => Some(look_up(pool, source)?),
        None => None,
    };
    let record = plan(pool, new, origin.as_ref())?;
    let promise = pool.promise(&id, record.size_bytes)?;
    match make(pool, &id, &record) {
        Ok(pins) => {
            promise.keep();
            pins.into_iter().for_each(Promise::keep);
            Ok((id, record))
        }
        Err(error) => {
            // What is left now is cleared at the next attempt or start, and the first error is
            // the one to tell.
            if let Err(leavings) = pool.clear(&id) {
                tracing::warn!("a failed creation left something behind: {leavings}");
            }
            Err(error)
        }
    }
}

/// A volume can be made here if it may live here, and its source does.
fn check_place(pool: &Pool, new: &NewVolume) -> Result<(), CreateError> {
    let here = pool.node.as_str();
    let elsewhere = |wanted: Vec<String>| CreateError::Elsewhere {
        wanted,
        here: here.to_owned(),
    };
    if !new.nodes.is_empty() && !new.nodes.iter().any(|node| node == here) {
        return Err(elsewhere(new.nodes.clone()));
    }
    let source = new.source.as_ref().map(|source| match source {
        Source::Snapshot(id) => id.node(),
        Source::Volume(id) => id.node(),
    });
    match source {
        Some(node) if node != here => Err(elsewhere(vec![node.to_owned()])),
        _ => Ok(()),
    }
}

fn look_up(pool: &Pool, source: &Source) -> Result<Origin, CreateError> {
    match source {
        Source::Snapshot(id) => {
            // Many volumes may be made from one snapshot at once.
            let lock = pool.locks.read(id)?;
            let record = snapshot::look_up(pool, id).map_err(|error| match error {
                LookupError::NotFound(id) => CreateError::NoSource(id),
                LookupError::Record(error) => error.into(),
            })?;
            Ok(Origin {
                size_bytes: record.size_bytes,
                file_system: record.file_system,
                formatted: record.formatted,
                mkfs_options: record.mkfs_options,
                _lock: lock,
            })
        }
        Source::Volume(id) => {
            let lock = pool.locks.begin(id)?;
            let record: VolumeRecord = pool
                .layout
                .load(id)?
                .ok_or_else(|| CreateError::NoSource(id.to_string()))?;
            Ok(Origin {
                size_bytes: record.size_bytes,
                file_system: record.file_system,
                formatted: record.formatted,
                mkfs_options: record.mkfs_options,
                _lock: lock,
            })
        }
    }
}

/// What will be written down of the volume.
fn plan(
    pool: &Pool,
    new: &NewVolume,
    origin: Option<&Origin>,
) -> Result<VolumeRecord, CreateError> {
    let (file_system, formatted) = match (origin, new.content) {
        (_, Content::Block) => (None, false),
        (None, Content::Mount(wanted)) => (Some(wanted.unwrap_or(FileSystem::Ext4)), false),
        (Some(origin), Content::Mount(wanted)) => match origin.file_system {
            Some(found) => (Some(agree(found, wanted)?), origin.formatted),
            None => (Some(agree(inside(pool, new)?, wanted)?), true),
        },
    };
    let mkfs_options = match origin {
        Some(origin) => origin.mkfs_options.clone(),
        None => new.mkfs_options.clone(),
    };
    if let Some(file_system) = file_system {
        new.mkfs_options.check(file_system)?;
    }
    if new.attributes.reserved_percent.is_some() && file_system != Some(FileSystem::Ext4) {
        return Err(CreateError::Reserved(name(file_system)));
    }
    let least = FileSystem::least(file_system);
    let size_bytes = match origin {
        Some(origin) => new.size.choose(origin.size_bytes, origin.size_bytes)?,
        None => new.size.choose(least, DEFAULT_SIZE)?,
    };
    Ok(VolumeRecord {
        name: new.name.clone(),
        size_bytes,
        file_system,
        formatted,
        provisioning: new.provisioning,
        mkfs_options,
        source: new.source.clone(),
        attributes: new.attributes,
    })
}

fn agree(found: FileSystem, wanted: Option<FileSystem>) -> Result<FileSystem, CreateError> {
    match wanted {
        Some(wanted) if wanted != found => Err(CreateError::Content {
            found: found.name(),
            wanted: wanted.name(),
        }),
        _ => Ok(found),
    }
}

/// The file system that its user has made in a raw block volume.
fn inside(pool: &Pool, new: &NewVolume) -> Result<FileSystem, CreateError> {
    let image = match &new.source {
        Some(Source::Snapshot(id)) => pool.layout.snapshot_image(id),
        Some(Source::Volume(id)) => pool.layout.image(id),
        None => return Err(CreateError::NoSource("source".to_owned())),
    };
    match superblock::read(&image)? {
        Superblock::Ext4 { .. } => Ok(FileSystem::Ext4),
        Superblock::Xfs { .. } => Ok(FileSystem::Xfs),
        Superblock::Unknown => Err(CreateError::Content {
            found: "a raw block device without a file system",
            wanted: "a file system",
        }),
    }
}

fn name(file_system: Option<FileSystem>) -> &'static str {
    file_system.map_or("a raw block device", FileSystem::name)
}

/// Whether a volume that is there is what is wanted.
fn compare(found: &VolumeRecord, wanted: &NewVolume) -> Result<(), CreateError> {
    let differs = |found: String| {
        let name = wanted.name.clone();
        Err(CreateError::Exists { name, found })
    };
    let suits = match wanted.content {
        Content::Block => found.file_system.is_none(),
        Content::Mount(None) => found.file_system.is_some(),
        Content::Mount(wanted) => found.file_system == wanted,
    };
    if found.name != wanted.name {
        differs(format!("the name {:?}", found.name))
    } else if !wanted.size.admits(found.size_bytes) {
        differs(format!("{} bytes", found.size_bytes))
    } else if !suits {
        differs(name(found.file_system).to_owned())
    } else if found.source != wanted.source {
        differs("another source".to_owned())
    } else if found.provisioning != wanted.provisioning {
        differs("another provisioning".to_owned())
    } else {
        Ok(())
    }
}

/// The record comes last: without it, all the rest is leavings.
fn make<'a>(
    pool: &'a Pool,
    id: &VolumeId,
    record: &VolumeRecord,
) -> Result<Vec<Promise<'a>>, CreateError> {
    let pins = failpoint::around("create.image", || make_image(pool, id, record))?;
    failpoint::around("create.record", || pool.layout.store(id, record))?;
    Ok(pins)
}

fn make_image<'a>(
    pool: &'a Pool,
    id: &VolumeId,
    record: &VolumeRecord,
) -> Result<Vec<Promise<'a>>, CreateError> {
    let folder = pool.layout.folder(id);
    let image = pool.layout.image(id);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .attempt(|| format!("make {}", folder.display()))?;
    let pins = match &record.source {
        None => {
            reflink::new_image(&image)?;
            Vec::new()
        }
        Some(Source::Snapshot(snapshot)) => {
            reflink::copy(&pool.layout.snapshot_image(snapshot), &image)?;
            Vec::new()
        }
        Some(Source::Volume(volume)) => {
            let plan = Plan {
                copies: &[Copy {
                    source: volume.clone(),
                    image: image.clone(),
                }],
                intent: &pool.layout.intent(id),
                freeze: true,
            };
            copying::copy(pool, &plan)?.promises
        }
    };
    give_size(&image, record)?;
    files::sync_directory(&folder)?;
    files::sync_directory(&pool.layout.volumes())?;
    Ok(pins)
}

/// Gives an image its size and its layout; what is in it stays.
pub(super) fn give_size(image: &Path, record: &VolumeRecord) -> Result<(), Failed> {
    let attempt = || format!("give {} its size", image.display());
    let file = OpenOptions::new()
        .write(true)
        .open(image)
        .attempt(attempt)?;
    file.set_len(record.size_bytes).attempt(attempt)?;
    if record.is_thick() {
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, record.size_bytes)
            .attempt(attempt)?;
    }
    file.sync_all().attempt(attempt)
}

/// Throws away what is in an image, such as what an interrupted mkfs left, and lays it out anew.
pub(super) fn lay_out(image: &Path, record: &VolumeRecord) -> Result<(), Failed> {
    OpenOptions::new()
        .write(true)
        .open(image)
        .and_then(|file| file.set_len(0))
        .attempt(|| format!("empty {}", image.display()))?;
    give_size(image, record)
}

#[cfg(test)]
mod tests;
