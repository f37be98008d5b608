//! What a node remembers of its volumes: one durable file for each order.
//!
//! ```text
//! <work dir>/<order uid>/record.json   written before anything that it describes exists
//!                        writing       while the archive is written, see `interruptions`
//!                        state/        the checkpoint of its restore, kept by the archive engine
//!                        stage/        NodeStageVolume
//!                        target        NodePublishVolume, made by the driver
//! ```
//!
//! The orders themselves are the truth; a record is what is left when an order is removed by force,
//! and what tells a new process which volumes an old one may have left mounted.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crds::restore_order::{MadeVolume, OrderVolume, RestoreOrder};
use crds::volume_restore::RestoreResult;
use serde::{Deserialize, Serialize};

const FILE: &str = "record.json";
const FORMAT: u32 = 1;

/// Failures to mount a volume that is gone on with, after which another one is made.
const SETBACKS_MAX: u32 = 3;

/// What may exist on this node for one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    format: u32,
    /// The order's name.
    pub order: String,
    /// The order's UID.
    pub uid: String,
    /// The volume that it wants, so that it can be deleted when the order is gone.
    pub volume: OrderVolume,
    /// The line that its order stood in, where others may be made to hold the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The snapshot that it is made of, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether there is a volume.
    pub made: Made,
    /// Whether it may be staged or published.
    pub mounted: bool,
    /// Whether what is in the volume is of no use to a later attempt.
    #[serde(default)]
    pub spoiled: bool,
    /// Attempts in a row that were to go on with the volume and could not so much as mount it.
    #[serde(default)]
    pub setbacks: u32,
    /// What was restored, once the volume is complete. Written before it is reported: from then on
    /// the volume may become a PersistentVolume at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<Filled>,
}

/// Whether a volume exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Made {
    /// No.
    No,
    /// CreateVolume was called, or is about to be, and has not answered.
    Perhaps,
    /// Yes, this one.
    Yes(MadeVolume),
    /// Yes, by the driver's own provisioner: whoever had it made has it deleted.
    Given(MadeVolume),
}

impl Made {
    /// The volume, if it is known that there is one.
    pub fn volume(&self) -> Option<&MadeVolume> {
        match self {
            Self::Yes(made) | Self::Given(made) => Some(made),
            Self::No | Self::Perhaps => None,
        }
    }
}

/// A complete volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filled {
    /// The volume.
    pub volume: MadeVolume,
    /// What was restored into it.
    pub result: RestoreResult,
}

impl Record {
    /// A record of an order whose volume is about to be made, or was given.
    pub fn new(order: &RestoreOrder) -> Self {
        let given = order.spec.provisioned.as_ref();
        Self {
            format: FORMAT,
            order: order.metadata.name.clone().unwrap_or_default(),
            uid: order.metadata.uid.clone().unwrap_or_default(),
            volume: order.spec.volume.clone(),
            line: super::snapshots::line(order),
            source: None,
            made: given.map_or(Made::Perhaps, |it| Made::Given(it.volume.clone())),
            mounted: false,
            spoiled: false,
            setbacks: 0,
            filled: None,
        }
    }

    /// The record of an order that this node has none of any more, though its status may know of a
    /// volume: it is taken for mounted.
    pub fn recovered(order: &RestoreOrder, made: Option<&MadeVolume>) -> Self {
        Self {
            made: match (made, &order.spec.prime) {
                (None, _) => Made::No,
                (Some(made), None) => Made::Yes(made.clone()),
                (Some(made), Some(_)) => Made::Given(made.clone()),
            },
            mounted: true,
            ..Self::new(order)
        }
    }

    /// Whether a later attempt may go on with the volume, should there be a checkpoint of it.
    pub fn is_worth_keeping(&self) -> bool {
        self.made.volume().is_some()
            && self.filled.is_none()
            && !self.spoiled
            && self.setbacks < SETBACKS_MAX
    }
}

/// What went wrong with a record or its folder.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}", .path.display())]
pub struct RecordError {
    /// What was tried.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

pub(super) trait Context<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, RecordError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, RecordError> {
        self.map_err(|source| RecordError {
            what,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

/// The work directory.
///
/// All calls block for as long as the node's disk takes for a small file and its fsync. They are not
/// handed to another thread: a future that is dropped halfway must not leave a write on its way.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// The records in this work directory, which is made where it is missing.
    pub fn open(folder: &Path) -> Result<Self, RecordError> {
        fs::create_dir_all(folder).context("making the work directory", folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The folder of an order.
    pub fn folder(&self, uid: &str) -> PathBuf {
        self.folder.join(uid)
    }

    /// Where an order's volume is staged.
    pub fn stage(&self, uid: &str) -> PathBuf {
        self.folder(uid).join("stage")
    }

    /// Where an order's volume is published.
    pub fn target(&self, uid: &str) -> PathBuf {
        self.folder(uid).join("target")
    }

    /// Where the restore into an order's volume keeps its checkpoint.
    pub fn state(&self, uid: &str) -> PathBuf {
        self.folder(uid).join("state")
    }

    /// Removes that, once the volume is not to be gone on with.
    pub fn remove_state(&self, uid: &str) -> Result<(), RecordError> {
        let state = self.state(uid);
        gone(fs::remove_dir_all(&state)).context("removing", &state)
    }

    /// All records. A file that cannot be read is reported and left alone: what it stands for is
    /// unknown.
    pub fn load(&self) -> Result<Vec<Record>, RecordError> {
        let mut records = Vec::new();
        let entries = fs::read_dir(&self.folder).context("listing", &self.folder)?;
        for entry in entries {
            let folder = entry.context("listing", &self.folder)?.path();
            let path = folder.join(FILE);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // The lock; or a folder whose record was never written or is removed already.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error).context("reading", &path),
            };
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.format == FORMAT => records.push(record),
                Ok(record) => tracing::error!(
                    path = %path.display(), format = record.format,
                    "a record is of a newer version of this program and is left alone"
                ),
                Err(error) => tracing::error!(
                    path = %path.display(), %error,
                    "a record cannot be understood and is left alone; look for a volume of it"
                ),
            }
        }
        Ok(records)
    }

    /// Writes a record; it is durable when this returns.
    pub fn save(&self, record: &Record) -> Result<(), RecordError> {
        let folder = self.folder(&record.uid);
        match fs::create_dir(&folder) {
            Ok(()) => sync(&self.folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("making", &folder),
        }
        write(&folder, FILE, record)
    }

    /// Makes the staging folder.
    pub fn make_stage(&self, uid: &str) -> Result<(), RecordError> {
        let stage = self.stage(uid);
        match fs::create_dir(&stage) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).context("making", &stage)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the folders of a mount that is gone, or what a device was shown at: a file, a node of its
    /// own or a link. What is in a folder is never removed: that could be a volume after all.
    pub fn remove_mounts(&self, uid: &str) -> Result<(), RecordError> {
        let target = self.target(uid);
        // While a device is mounted on it, this fails (unlink(2), EBUSY).
        if fs::symlink_metadata(&target).is_ok_and(|found| !found.is_dir()) {
            gone(fs::remove_file(&target)).context("removing", &target)?;
        }
        remove_folder(&target)?;
        remove_folder(&self.stage(uid))
    }

    /// Removes the record and, with it, the last of an order.
    pub fn remove(&self, uid: &str) -> Result<(), RecordError> {
        self.remove_mounts(uid)?;
        self.remove_state(uid)?;
        self.end_writing(uid)?;
        let folder = self.folder(uid);
        remove(&folder, FILE)?;
        remove_folder(&folder)?;
        sync(&self.folder)
    }
}

/// Writes a value into a file, as JSON; see [`write_text`].
pub(super) fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), RecordError> {
    let json = serde_json::to_string_pretty(value)
        .map_err(io::Error::from)
        .context("writing", &folder.join(name))?;
    write_text(folder, name, &json)
}

/// Writes a file, for root alone; it is durable when this returns, and never there in part.
pub(super) fn write_text(folder: &Path, name: &str, text: &str) -> Result<(), RecordError> {
    let (path, next) = (folder.join(name), next(folder, name));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&next)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .context("writing", &next)?;
    sync(&next)?;
    fs::rename(&next, &path).context("renaming", &next)?;
    sync(folder)
}

/// Removes a file, with what a crash has left of its successor.
pub(super) fn remove(folder: &Path, name: &str) -> Result<(), RecordError> {
    for path in [next(folder, name), folder.join(name)] {
        gone(fs::remove_file(&path)).context("removing", &path)?;
    }
    sync(folder)
}

fn next(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.next"))
}

fn remove_folder(path: &Path) -> Result<(), RecordError> {
    gone(fs::remove_dir(path)).context("removing the folder", path)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync(path: &Path) -> Result<(), RecordError> {
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .context("syncing", path)
}
