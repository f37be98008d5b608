//! From an object to its entries: starts the stages in front of whoever makes something of them, and
//! judges at the end what was read.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::budget::{Share, WINDOW_MAX};
use crate::decode::{self, Input, Means};
use crate::error::RestoreError;
use crate::fetch;
use crate::format::{self, Format};
use crate::index;
use crate::index::reader::IndexReader;
use crate::limits::Limited;
use crate::options::Options;
use crate::outcome::Verified;
use crate::progress::Progress;
use crate::source::Source;
use crate::stream::Stream as _;
use crate::tar_reader::TarReader;

/// An archive that is being read. All its stages end with it.
pub(crate) struct Reading {
    /// Its entries. The caller takes every one.
    pub(crate) entries: TarReader<Limited<Input>>,
    pub(crate) begun: Instant,
    format: Format,
    _stop: DropGuard,
    _share: Share,
}

/// What was read, to its end.
pub(crate) struct Read {
    pub(crate) format: Format,
    pub(crate) entries: u64,
    pub(crate) verified: Verified,
    /// SHA-256 of the stored object, in hexadecimal.
    pub(crate) sha256: String,
}

impl Reading {
    /// Begins to read `source`, with `memory` bytes of the budget for what the caller does itself.
    /// Blocks, so never on one of `runtime`'s workers.
    pub(crate) fn begin(
        source: Arc<dyn Source>,
        options: &Options,
        memory: u64,
        progress: &Arc<Progress>,
        cancel: &CancellationToken,
        runtime: &Handle,
    ) -> Result<Self, RestoreError> {
        let begun = Instant::now();
        let length = source.length();
        progress.begin(length);
        if length == 0 {
            return Err(RestoreError::ArchiveEmpty {
                found: "the object has 0 bytes",
            });
        }
        // The whole share at once, before anything else is held.
        let fixed = decode::MEMORY + index::reader::MEMORY + memory;
        let fetching = options
            .fetching
            .clone()
            .within(options.budget.bytes().saturating_sub(fixed));
        let share = options.budget.buffers(fixed + fetching.memory());
        let share = runtime.block_on(cancel.run_until_cancelled(share));
        let share = share.ok_or(RestoreError::Cancelled)?;

        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let counted = Arc::clone(progress);
        let asking = fetching.clone();
        let object = Arc::clone(&source);
        let mut fetched = fetch::start(object, fetching, counted, stop.clone(), runtime);
        let start = fetched.fill()?;
        let format = Format::detect(&start[..start.len().min(format::LOOK)])
            .map_err(|found| RestoreError::NotAnArchive { found })?;
        let means = Means {
            budget: Arc::clone(&options.budget),
            window_max: WINDOW_MAX,
            cancel: stop,
            runtime: runtime.clone(),
        };
        let index = if format == Format::TarZstd {
            IndexReader::find(source, &asking, progress, means.clone())?
        } else {
            None
        };
        let limits = options.limits.clone();
        let decoded = decode::start(format, Input::Fetched(Box::new(fetched)), means)?;
        let unpacked = Limited::new(decoded, limits.clone(), Arc::clone(progress));
        let mut entries = TarReader::new(unpacked, limits);
        if let Some(index) = index {
            entries.check_against(index);
        }
        Ok(Self {
            entries,
            begun,
            format,
            _stop: guard,
            _share: share,
        })
    }

    /// After the last entry: whether that was an archive, and the right one.
    pub(crate) fn end(self, options: &Options) -> Result<Read, RestoreError> {
        let entries = self.entries.entries();
        if entries == 0 {
            return Err(RestoreError::ArchiveEmpty {
                found: "it is an archive without entries",
            });
        }
        let indexed = self.entries.has_index();
        let finished = self.entries.into_stream().into_inner().finished();
        let finished = finished.ok_or_else(decode::lost_thread)?;
        let sha256 = hex::encode(finished.digest);
        let verified = match options.sha256 {
            Some(expected) if expected == finished.digest => Verified::Sha256,
            Some(expected) => {
                return Err(RestoreError::ChecksumMismatch {
                    found: sha256,
                    expected: hex::encode(expected),
                });
            }
            // What the digests do not cover, such as owners, the format's own sums have to.
            None if indexed && finished.verified == Verified::Stream => Verified::PerFile,
            None => finished.verified,
        };
        if verified < options.required {
            return Err(RestoreError::Unverified {
                found: verified,
                required: options.required,
            });
        }
        Ok(Read {
            format: self.format,
            entries,
            verified,
            sha256,
        })
    }
}
