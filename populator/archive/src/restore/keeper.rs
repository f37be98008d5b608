//! Takes checkpoints: everything durable first, then the record that says so.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use uuid::Uuid;

use super::root::Root;
use super::stamp::{self, Stamp};
use super::state::State;
use crate::checkpoint::{Checkpoints, Record, Subject, Volume};
use crate::error::RestoreError;
use crate::format::{Compression, Content, Format};
use crate::options::{Existing, Options};
use crate::progress::Progress;
use crate::source::Source;

/// A restore whose checkpoints are kept.
pub(super) struct Keeper {
    state: State,
    checkpoints: Checkpoints,
    subject: Subject,
    root: (u64, Option<(i64, u32)>),
    nonce: String,
    sequence: u64,
    progress: Arc<Progress>,
    format: Format,
    /// The last one, and when it was taken.
    last: Option<(Record, Instant)>,
    /// Bytes received, in attempts before, and from where this one fetches.
    fetched_before: u64,
    offset: u64,
    fetched_again: u64,
}

impl Keeper {
    /// Opens what the options name. Gives also the record to go on from, if there is one and the volume
    /// holds what it covers.
    pub(super) fn open(
        source: &dyn Source,
        directory: BorrowedFd<'_>,
        options: &Options,
        progress: &Arc<Progress>,
    ) -> Result<Option<(Self, Option<Record>)>, RestoreError> {
        let Some(checkpoints) = &options.checkpoints else {
            return Ok(None);
        };
        let subject = Subject::new(source, options);
        let (Some(subject), Existing::Refuse) = (subject, options.existing) else {
            tracing::warn!(
                "no checkpoints: the object has no identity, or the directory has files"
            );
            return Ok(None);
        };
        let failed = |errno| RestoreError::VolumeError {
            what: "looking at the volume's root".to_owned(),
            source: errno,
        };
        let root = stamp::root(directory).map_err(failed)?;
        let stamp = match Stamp::read(directory) {
            Ok(stamp) => stamp,
            Err(Errno::OPNOTSUPP) => {
                tracing::warn!("no checkpoints: the file system keeps no extended attributes");
                return Ok(None);
            }
            Err(errno) => return Err(failed(errno)),
        };
        let state = State::open(&checkpoints.directory)?;
        let found = state.record().and_then(|record| {
            let Some(record) = record else {
                return Ok(None);
            };
            if record.subject != subject {
                return Err("it is of another object, or of other options".to_owned());
            }
            let is_empty = Root::is_empty(directory).map_err(|error| error.to_string())?;
            stamp::holds(&record, root, stamp.as_ref(), is_empty)?;
            Ok(Some(record))
        });
        let record = found.unwrap_or_else(|why| {
            tracing::warn!("the checkpoint is not used, {why}: the restore begins anew");
            None
        });
        let keeper = Self {
            state,
            checkpoints: checkpoints.clone(),
            subject,
            root,
            nonce: Uuid::new_v4().to_string(),
            sequence: stamp.map_or(0, |stamp| stamp.sequence),
            progress: Arc::clone(progress),
            format: Format {
                content: Content::Tar,
                compression: Compression::None,
                encrypted: false,
            },
            last: None,
            fetched_before: 0,
            offset: 0,
            fetched_again: 0,
        };
        Ok(Some((keeper, record)))
    }

    /// The restore goes on from this record.
    pub(super) fn go_on(&mut self, record: &Record) {
        self.nonce.clone_from(&record.volume.nonce);
        self.sequence = self.sequence.max(record.sequence);
        self.offset = record.offset();
        self.fetched_before = record.progress.fetched;
        self.fetched_again = record.fetched_again + record.reached.saturating_sub(self.offset);
        self.last = Some((record.clone(), Instant::now()));
        tracing::info!(
            offset = self.offset,
            entries = record.mark.entries,
            "the restore goes on from its checkpoint"
        );
    }

    /// What the object turned out to be.
    pub(super) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The file for the list of directories.
    pub(super) fn directories(&self) -> Result<File, RestoreError> {
        self.state.directories()
    }

    /// Whether it is time for the next checkpoint.
    pub(super) fn is_due(&self) -> bool {
        let Some((last, taken)) = &self.last else {
            return true;
        };
        let written = self.progress.snapshot().written;
        written.saturating_sub(last.progress.written) >= self.checkpoints.bytes
            || taken.elapsed() >= self.checkpoints.time
    }

    /// Whether the last checkpoint is in the middle of this file.
    pub(super) fn is_within(&self, inode: u64) -> bool {
        let part = self.last.as_ref().and_then(|(last, _)| last.part.as_ref());
        part.is_some_and(|part| part.inode == inode)
    }

    /// A checkpoint for `fill` to complete. All that was restored is on the volume, if not durably.
    pub(super) fn take(
        &mut self,
        root: &Root,
        fill: impl FnOnce(&mut Record),
    ) -> Result<(), RestoreError> {
        self.sequence += 1;
        let stamp = Stamp {
            nonce: self.nonce.clone(),
            sequence: self.sequence,
        };
        stamp.write(root.fd()).map_err(failed)?;
        root.sync()?;
        let volume = Volume {
            nonce: self.nonce.clone(),
            root: self.root,
        };
        let mut record = Record::first(self.subject.clone(), volume, self.format);
        record.sequence = self.sequence;
        self.count(&mut record);
        fill(&mut record);
        self.state.write(&record)?;
        self.last = Some((record, Instant::now()));
        Ok(())
    }

    fn count(&self, record: &mut Record) {
        record.progress = self.progress.snapshot();
        let fetched = record.progress.fetched.saturating_sub(self.fetched_before);
        let reached = (self.offset + fetched).min(record.progress.length);
        let before = self.last.as_ref().map_or(0, |(last, _)| last.reached);
        record.reached = reached.max(before);
        record.fetched_again = self.fetched_again;
    }

    /// The restore failed: adds to the last record what was fetched since.
    pub(super) fn leave(self) {
        let Some((last, _)) = &self.last else {
            return;
        };
        let mut record = last.clone();
        self.count(&mut record);
        record.progress = crate::progress::Snapshot {
            fetched: record.progress.fetched,
            ..last.progress
        };
        if let Err(error) = self.state.write(&record) {
            tracing::debug!(%error, "what was fetched again will not be known");
        }
    }

    /// The restore is durable: its traces are removed.
    pub(super) fn finish(self, root: &Root) -> Result<u64, RestoreError> {
        Stamp::remove(root.fd()).map_err(failed)?;
        root.sync()?;
        self.state.remove()?;
        Ok(self.fetched_again)
    }
}

fn failed(errno: Errno) -> RestoreError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => RestoreError::DoesNotFit {
            what: "the stamp of a checkpoint".to_owned(),
            source: errno,
        },
        _ => RestoreError::VolumeError {
            what: "stamping the volume's root".to_owned(),
            source: errno,
        },
    }
}
