//! When the writer takes checkpoints: in time, and before what a replay could not make good.
//!
//! After an interruption the entries behind the last checkpoint are restored again, over whatever the
//! attempt before left of them. That makes the same of them as long as nothing is gone that was there at
//! the checkpoint and that one of them needs.

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::super::keeper::Keeper;
use super::Writer;
use crate::checkpoint::Part;
use crate::entry::Kind;
use crate::error::RestoreError;
use crate::path::BeneathRoot;
use crate::stream::Stream;
use crate::tar_reader::{Mark, TarReader};

impl Writer<'_> {
    /// Takes a checkpoint if it is time for one; `mark` is where all before is restored.
    pub(super) fn keep(&mut self, mark: impl FnOnce() -> Mark) -> Result<(), RestoreError> {
        if self.keeper.as_ref().is_some_and(Keeper::is_due) {
            self.checkpoint(mark(), None, false)?;
        }
        Ok(())
    }

    /// Takes the last checkpoint: after the last entry, and before directories get attributes by which
    /// what is made in them again would become something else.
    pub(in crate::restore) fn end(&mut self, mark: Mark) -> Result<(), RestoreError> {
        self.checkpoint(mark, None, true)
    }

    /// Makes all that was restored so far durable, and says so in the record.
    pub(super) fn checkpoint(
        &mut self,
        mark: Mark,
        part: Option<Part>,
        ended: bool,
    ) -> Result<(), RestoreError> {
        self.settle()?;
        let Some(keeper) = &mut self.keeper else {
            return Ok(());
        };
        self.lost.merge(self.crew.lost());
        let (lost, omitted, counts) = (self.lost.clone(), self.omitted.clone(), self.counts);
        let directories = self.directories.keep()?;
        keeper.take(&self.root, |record| {
            (record.mark, record.part, record.ended) = (mark, part, ended);
            (record.counts, record.directories) = (counts, directories);
            (record.lost, record.omitted) = (lost, omitted);
        })
    }

    /// Takes a checkpoint before an entry at whose name there is something that entries before it may
    /// need if they are restored again: what other names are links to, the file that the last checkpoint
    /// is in the middle of, and a file where a directory is to be, since no file can take the place of
    /// what is then in that.
    pub(super) fn protect(
        &mut self,
        path: &BeneathRoot,
        kind: &Kind,
        reader: &TarReader<impl Stream>,
    ) -> Result<(), RestoreError> {
        let (Some((parent, name)), Some(_)) = (path.split(), &self.keeper) else {
            return Ok(());
        };
        let is_directory = matches!(kind, Kind::Directory);
        if self.pending.concerns(path.as_bytes(), !is_directory) {
            self.settle()?;
        }
        let looked = |errno| RestoreError::volume("looking at", path.as_bytes(), errno);
        let parent = match self.root.existing(parent) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other.map_err(looked)?,
        };
        let found = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(looked)?,
        };
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Ok(());
        }
        let within = |keeper: &Keeper| keeper.is_within(found.st_ino);
        let is_needed = is_directory
            || self.keeper.as_ref().is_some_and(within)
            || (found.st_nlink > 1 && !self.is_linked(kind, (found.st_dev, found.st_ino)));
        if is_needed {
            self.checkpoint(reader.before(), None, false)?;
        }
        Ok(())
    }

    /// Whether an entry is a link to this very file.
    fn is_linked(&mut self, kind: &Kind, identity: (u64, u64)) -> bool {
        let Kind::HardLink(target) = kind else {
            return false;
        };
        let target = BeneathRoot::parse(target).ok();
        let Some(target) = target.and_then(|(path, _)| self.options.selection.place(&path)) else {
            return false;
        };
        let Some((parent, name)) = target.split() else {
            return false;
        };
        let found = self.root.existing(parent);
        let found = found.and_then(|it| statat(&it, name, AtFlags::SYMLINK_NOFOLLOW));
        found.is_ok_and(|found| (found.st_dev, found.st_ino) == identity)
    }

    /// The restore failed: what is known of it stays for the next attempt.
    pub(in crate::restore) fn leave(self) {
        if let Some(keeper) = self.keeper {
            keeper.leave();
        }
    }
}
