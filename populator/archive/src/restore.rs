//! The whole way from a [`Source`] into a directory: starts the stages and waits for their end.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::decode::{self, Means};
use crate::error::RestoreError;
use crate::fetch;
use crate::format::{self, Format};
use crate::options::Options;
use crate::outcome::Outcome;
use crate::progress::Progress;
use crate::source::Source;
use crate::stream::Stream as _;
use crate::tar_reader::TarReader;
use root::Root;
use writer::Writer;

mod content;
mod directories;
mod metadata;
mod path;
mod root;
mod writer;

/// Bytes of memory that a restore takes, those for fetching apart.
const FIXED: u64 = decode::MEMORY + content::MEMORY;

/// Restores the archive `source` into `directory`, which is empty but for `lost+found`.
///
/// Blocks until everything is in place and durable (`syncfs`), or until the first failure; what is in
/// the directory then must be thrown away. The calling thread does the writing, so it is one that may
/// block, never one of `runtime`'s workers (that panics). Fetching happens on `runtime`.
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
    let begun = Instant::now();
    let length = source.length();
    progress.begin(length);
    if length == 0 {
        return Err(RestoreError::ArchiveEmpty {
            found: "the object has 0 bytes",
        });
    }
    let root = Root::new(directory)?;

    // The whole share at once, before anything else is held.
    let fetching = options
        .fetching
        .clone()
        .within(options.budget.bytes().saturating_sub(FIXED));
    let share = options.budget.buffers(FIXED + fetching.memory());
    let share = runtime.block_on(cancel.run_until_cancelled(share));
    let _share = share.ok_or(RestoreError::Cancelled)?;

    // All stages end with this function, whichever of them fails.
    let stop = cancel.child_token();
    let _stop_at_the_end = stop.clone().drop_guard();
    let counted = Arc::clone(progress);
    let mut fetched = fetch::start(source, fetching, counted, stop.clone(), runtime);
    let start = fetched.fill()?;
    let format = Format::detect(&start[..start.len().min(format::LOOK)])
        .map_err(|found| RestoreError::NotAnArchive { found })?;
    let budget = Arc::clone(&options.budget);
    let means = Means {
        budget,
        cancel: stop,
        runtime: runtime.clone(),
    };
    let mut reader = TarReader::new(decode::start(format, fetched, means)?);
    let mut writer = Writer::new(root, options.devices, progress, cancel);
    while let Some(entry) = reader.next_entry()? {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        writer.entry(&entry, &mut reader)?;
        progress.add_entry();
    }
    let entries = reader.entries();
    if entries == 0 {
        return Err(RestoreError::ArchiveEmpty {
            found: "it is an archive without entries",
        });
    }
    let finished = reader.into_stream().finish()?;
    let (counts, lost) = writer.finish()?;

    let seen = progress.snapshot();
    Ok(Outcome {
        format,
        entries,
        files: counts.files,
        directories: counts.directories,
        links: counts.links,
        bytes_written: seen.written,
        bytes_fetched: seen.fetched,
        verified: finished.verified,
        sha256: hex::encode(finished.digest),
        lost,
        elapsed: begun.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::fetch::Fetching;

    #[test]
    fn the_budget_has_room_for_what_it_promises() {
        let usual = FIXED + Fetching::default().within(Budget::DEFAULT - FIXED).memory();
        assert!(4 * usual <= Budget::DEFAULT, "{usual}");
        let least = FIXED + Fetching::default().within(Budget::MIN - FIXED).memory();
        assert!(least <= Budget::MIN, "{least}");
    }
}
