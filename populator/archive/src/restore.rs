//! The whole way from a [`Source`] into a directory: starts the stages and waits for their end.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Record;
use crate::error::RestoreError;
use crate::format::Content;
use crate::options::{Existing, Options};
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::reading::{Aim, Reading};
use crate::source::Source;
use crate::stream::Stream;
use crate::tar_reader::TarReader;
use resumption::Left;
use writer::Writer;

mod choice;
mod content;
mod crew;
mod directories;
mod image;
mod keeper;
mod metadata;
mod pending;
mod pieces;
mod place;
mod resumption;
mod root;
mod stamp;
mod state;
mod writer;

pub use image::{ImageOutcome, image_file, restore_image};

/// Restores the archive `source` into `directory`, which is empty but for `lost+found` unless the
/// options allow more, or holds what an attempt before left: with [`Options::checkpoints`] it goes on from
/// the last of those.
///
/// Blocks until everything is in place and durable (`syncfs`), or until the first failure; what is in
/// the directory then must be thrown away, unless it is gone on with. The calling thread does much of
/// the writing, so it is one that may block, never one of `runtime`'s workers (that panics). Fetching happens on `runtime`.
///
/// `cancel` ends it within a second, a system call that the kernel does not finish apart.
pub fn restore(
    source: Arc<dyn Source>,
    directory: BorrowedFd<'_>,
    options: &Options,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    runtime: &Handle,
) -> Result<Outcome, RestoreError> {
    let (root, mut begin, left) = resumption::begin(&*source, directory, options, progress)?;
    let record = left.as_ref().map(|left| &left.record);
    let resumed_at = record.map(Record::offset);
    let memory = pieces::MEMORY + crew::MEMORY;
    let aim = Aim {
        content: Content::Tar,
        memory,
        from: record,
    };
    let mut reading = Reading::begin(source, aim, options, progress, cancel, runtime)?;
    if let Some(keeper) = &mut begin.keeper {
        keeper.set_format(reading.format);
    }
    let mut reader = reading.entries(options)?;
    let mut writer = Writer::new(root, options, progress, cancel, begin)?;
    if let Err(error) = write(&mut writer, &mut reader, left.as_ref(), progress, cancel) {
        writer.leave();
        return Err(error);
    }
    let (entries, begun) = (reader.entries(), reading.begun);
    let read = reading.end(options)?;
    if writer.counts.left_out == entries && options.existing != Existing::Keep {
        return Err(RestoreError::NothingSelected { entries });
    }
    let done = writer.finish()?;

    let seen = progress.snapshot();
    Ok(Outcome {
        format: read.format,
        entries,
        files: done.counts.files,
        directories: done.counts.directories,
        links: done.counts.links,
        left_out: done.counts.left_out,
        bytes_written: seen.written,
        bytes_fetched: seen.fetched,
        fetched_again: done.fetched_again,
        resumed_at,
        verified: read.verified,
        sha256: read.sha256,
        lost: done.lost,
        omitted: done.omitted,
        elapsed: begun.elapsed(),
        syncing: done.syncing,
    })
}

/// Restores all entries that are left.
fn write(
    writer: &mut Writer<'_>,
    reader: &mut TarReader<impl Stream>,
    left: Option<&Left>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let file = left.and_then(|left| left.file.as_ref().zip(left.record.part.as_ref()));
    if let Some((file, part)) = file {
        writer.go_on(file, part, reader)?;
        progress.add_entry();
    }
    while let Some(entry) = reader.next_entry()? {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        writer.entry(&entry, reader)?;
        progress.add_entry();
    }
    writer.end(reader.before())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::decode;
    use crate::fetch::Fetching;
    use crate::index;

    #[test]
    fn the_budget_has_room_for_what_it_promises() {
        const FIXED: u64 = decode::MEMORY + index::reader::MEMORY + pieces::MEMORY + crew::MEMORY;
        let all = FIXED + decode::DECRYPTION;
        let usual = all + Fetching::default().memory();
        assert!(usual <= Budget::EACH, "{usual}");
        let least = all + Fetching::default().within(Budget::MIN - all).memory();
        assert!(least <= Budget::MIN, "{least}");
    }
}
