//! The whole way from a [`Source`] into a directory: starts the stages and waits for their end.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::error::RestoreError;
use crate::format::Content;
use crate::options::{Existing, Options};
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::reading::Reading;
use crate::source::Source;
use root::Root;
use writer::Writer;

mod choice;
mod content;
mod crew;
mod directories;
mod image;
mod metadata;
mod pending;
mod place;
mod root;
mod writer;

pub use image::{ImageOutcome, restore_image};

/// Restores the archive `source` into `directory`, which is empty but for `lost+found` unless the
/// options allow more.
///
/// Blocks until everything is in place and durable (`syncfs`), or until the first failure; what is in
/// the directory then must be thrown away. The calling thread does much of the writing, so it is one that
/// may block, never one of `runtime`'s workers (that panics). Fetching happens on `runtime`.
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
    let root = Root::new(directory, options)?;
    let memory = content::MEMORY + crew::MEMORY;
    let tar = Content::Tar;
    let mut reading = Reading::begin(source, tar, options, memory, progress, cancel, runtime)?;
    let mut reader = reading.entries(options);
    let mut writer = Writer::new(root, options, progress, cancel)?;
    while let Some(entry) = reader.next_entry()? {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        writer.entry(&entry, &mut reader)?;
        progress.add_entry();
    }
    let (entries, begun) = (reader.entries(), reading.begun);
    let read = reading.end(options)?;
    if writer.counts.left_out == entries && options.existing != Existing::Keep {
        return Err(RestoreError::NothingSelected { entries });
    }
    let (counts, lost, omitted) = writer.finish()?;

    let seen = progress.snapshot();
    Ok(Outcome {
        format: read.format,
        entries,
        files: counts.files,
        directories: counts.directories,
        links: counts.links,
        left_out: counts.left_out,
        bytes_written: seen.written,
        bytes_fetched: seen.fetched,
        verified: read.verified,
        sha256: read.sha256,
        lost,
        omitted,
        elapsed: begun.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::decode;
    use crate::fetch::Fetching;

    #[test]
    fn the_budget_has_room_for_what_it_promises() {
        const FIXED: u64 = decode::MEMORY + content::MEMORY + crew::MEMORY;
        let usual = FIXED + Fetching::default().within(Budget::DEFAULT - FIXED).memory();
        assert!(4 * usual <= Budget::DEFAULT, "{usual}");
        let all = FIXED + decode::DECRYPTION;
        let least = all + Fetching::default().within(Budget::MIN - all).memory();
        assert!(least <= Budget::MIN, "{least}");
    }
}
