//! The directory in which a restore keeps its checkpoints: the record, which is replaced as a whole, and
//! the list of directories, which grows.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::checkpoint::Record;
use crate::error::RestoreError;

const RECORD: &str = "record";
const NEW_RECORD: &str = "record.new";
const DIRECTORIES: &str = "directories";

/// More than any record has: the headers of an entry, a window of 32 KiB and a sparse file's extents.
const RECORD_MAX: u64 = 64 << 20;

/// The directory, which nobody else uses meanwhile.
pub(super) struct State {
    path: PathBuf,
    directory: File,
}

impl State {
    /// Takes it, and makes it where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, RestoreError> {
        let open = || {
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let directory = File::open(path)?;
            flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            Ok(directory)
        };
        let directory = open().map_err(failed("taking the directory of checkpoints", path))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
        })
    }

    /// What is written there, if anything; or what is odd about it.
    pub(super) fn record(&self) -> Result<Option<Record>, String> {
        let file = match File::open(self.path.join(RECORD)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = String::new();
        let read = file.take(RECORD_MAX).read_to_string(&mut text);
        read.map_err(|error| error.to_string())?;
        Record::parse(&text).map(Some)
    }

    /// Puts a record in the place of the one before, durably.
    pub(super) fn write(&self, record: &Record) -> Result<(), RestoreError> {
        let write = || {
            let new = self.path.join(NEW_RECORD);
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(record.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.path.join(RECORD))?;
            self.directory.sync_all()
        };
        write().map_err(failed("writing a checkpoint to", &self.path))
    }

    /// The file for the list of directories, with what is in it.
    pub(super) fn directories(&self) -> Result<File, RestoreError> {
        let open = || {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.path.join(DIRECTORIES))?;
            self.directory.sync_all()?;
            Ok(file)
        };
        open().map_err(failed("opening a list in", &self.path))
    }

    /// Removes everything, when it is not needed any more.
    pub(super) fn remove(self) -> Result<(), RestoreError> {
        let remove = || {
            // Without the record nothing else means anything.
            for name in [RECORD, NEW_RECORD, DIRECTORIES] {
                match fs::remove_file(self.path.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.directory.sync_all()?;
            // Somebody else's files may be in it, or it is a mount point.
            if let Err(error) = fs::remove_dir(&self.path) {
                tracing::debug!(%error, "the directory of checkpoints stays");
            }
            Ok(())
        };
        remove().map_err(failed("removing the checkpoints in", &self.path))
    }
}

fn failed(doing: &str, path: &Path) -> impl Fn(io::Error) -> RestoreError {
    move |error| RestoreError::NodeError {
        what: format!("{doing} {}: {error}", path.display()),
    }
}
