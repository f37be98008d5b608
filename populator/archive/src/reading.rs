//! From an object to what is in it: starts the stages in front of whoever makes something of that, and
//! judges at the end what was read.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::budget::{Share, WINDOW_MAX};
use crate::checkpoint::Record;
use crate::decode::{self, Input, Means};
use crate::error::RestoreError;
use crate::fetch;
use crate::format::{self, Compression, Content, Format, Seen};
use crate::index;
use crate::index::reader::IndexReader;
use crate::limits::Limited;
use crate::options::Options;
use crate::outcome::Verified;
use crate::progress::{Progress, Snapshot};
use crate::source::Source;
use crate::stream::Stream as _;
use crate::tar_reader::{Mark, TarReader, header};

/// An object that is being read. All its stages end with it.
pub(crate) struct Reading {
    /// What is in it. The caller reads it to its end.
    pub(crate) content: Limited<Input>,
    /// How many bytes that has at least, as far as it is known before.
    pub(crate) least: u64,
    pub(crate) begun: Instant,
    /// What an archive of our own says of its entries, and whether they were compared with it.
    index: Option<IndexReader>,
    indexed: bool,
    /// Where its entries begin, or go on.
    mark: Mark,
    pub(crate) format: Format,
    _stop: DropGuard,
    _share: Share,
}

/// What is to be read of an object, and by whom.
#[derive(Clone, Copy)]
pub(crate) struct Aim<'a> {
    pub(crate) content: Content,
    /// Bytes of the budget for what the caller does itself.
    pub(crate) memory: u64,
    /// From where it goes on.
    pub(crate) from: Option<&'a Record>,
}

/// What was read, to its end.
pub(crate) struct Read {
    pub(crate) format: Format,
    pub(crate) verified: Verified,
    /// SHA-256 of the stored object, in hexadecimal.
    pub(crate) sha256: String,
}

/// Says what `source` is, by the first bytes of what is in it.
///
/// Blocks the calling thread, which is none of `runtime`'s workers (that panics). `cancel` ends it
/// within a second.
pub fn identify(
    source: Arc<dyn Source>,
    options: &Options,
    cancel: &CancellationToken,
    runtime: &Handle,
) -> Result<Format, RestoreError> {
    // More would only be thrown away.
    let mut options = options.clone();
    (options.fetching.parallel, options.fetching.most) = (1, 1);
    let progress = Arc::default();
    let aim = Aim {
        content: Content::Raw,
        memory: 0,
        from: None,
    };
    let (mut reading, seen) = Reading::open(source, aim, &options, &progress, cancel, runtime)?;
    reading.format.content = match seen {
        Seen::Other => Content::Raw,
        Seen::Foreign(name) => return Err(not_an_archive(format!("it is {name}"))),
        Seen::Tar | Seen::Nothing => Content::Tar,
    };
    Ok(reading.format)
}

impl Reading {
    /// Begins to read `source`, or goes on. Blocks, so never on one of `runtime`'s workers.
    pub(crate) fn begin(
        source: Arc<dyn Source>,
        aim: Aim<'_>,
        options: &Options,
        progress: &Arc<Progress>,
        cancel: &CancellationToken,
        runtime: &Handle,
    ) -> Result<Self, RestoreError> {
        let (mut reading, seen) = Self::open(source, aim, options, progress, cancel, runtime)?;
        let content = aim.content;
        reading.format.content = content;
        if aim.from.is_some() {
            // It was looked at in the attempt before.
            return Ok(reading);
        }
        let compressed = reading.format.compression != Compression::None;
        let what = if compressed {
            "what is compressed in it"
        } else {
            "it"
        };
        let start = reading.content.fill()?;
        let block = start.len() >= header::BLOCK;
        let start = format::beginning(start);
        match (content, seen) {
            (Content::Tar, Seen::Tar) | (Content::Raw, Seen::Nothing | Seen::Other) => Ok(reading),
            // Whether it has an end, its reader will tell.
            (Content::Tar, Seen::Nothing) if compressed || block => Ok(reading),
            (Content::Tar, Seen::Nothing | Seen::Other) if compressed => {
                Err(not_an_archive(format!("{what} is not a tar archive")))
            }
            (Content::Tar, Seen::Nothing | Seen::Other) => {
                Err(not_an_archive(format!("{what} {start}")))
            }
            (Content::Tar, Seen::Foreign(name)) => Err(not_an_archive(format!("{what} is {name}"))),
            (Content::Raw, Seen::Tar) => Err(not_an_image(format!("{what} is a tar archive"))),
            (Content::Raw, Seen::Foreign(name)) => Err(not_an_image(format!("{what} is {name}"))),
        }
    }

    /// Starts the stages, and looks at what they give first.
    fn open(
        source: Arc<dyn Source>,
        aim: Aim<'_>,
        options: &Options,
        progress: &Arc<Progress>,
        cancel: &CancellationToken,
        runtime: &Handle,
    ) -> Result<(Self, Seen), RestoreError> {
        let begun = Instant::now();
        let from = aim.from;
        let length = source.length();
        progress.begin(Snapshot {
            length,
            consumed: from.map_or(0, Record::offset),
            ..from.map_or_else(Snapshot::default, |record| record.progress)
        });
        if length == 0 {
            return Err(RestoreError::ArchiveEmpty {
                found: "the object has 0 bytes",
            });
        }
        // The whole share at once, before anything else is held.
        let decryption = if options.identities.is_empty() {
            0
        } else {
            decode::DECRYPTION
        };
        let fixed = decode::MEMORY + index::reader::MEMORY + decryption + aim.memory;
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
        let mark = from.map(|record| record.mark.clone()).unwrap_or_default();
        let boundary = mark.point.as_ref().map(|point| point.boundary.clone());
        let boundary = boundary.unwrap_or_default();
        let means = Means {
            budget: Arc::clone(&options.budget),
            window_max: WINDOW_MAX,
            cancel: stop,
            runtime: runtime.clone(),
        };
        let mut fetched = fetch::start(object, boundary, fetching, counted, &means);
        let packed = mark.point.as_ref().map_or(0, |point| point.packed);
        if !fetched.skip(packed - fetched.position())? {
            return Err(RestoreError::truncated("it ends where it had more before"));
        }
        let mut input = Input::Fetched(Box::new(fetched));
        let limits = options.limits.clone();
        let encrypted = match from {
            Some(record) => record.format.encrypted,
            None => format::is_encrypted(input.fill()?),
        };
        if encrypted {
            input = decode::decrypt(input, &options.identities, limits.work_factor, &means)?;
        }
        let start = input.fill()?;
        let compression = match from {
            Some(record) => record.format.compression,
            None => Compression::detect(start),
        };
        let least = match compression {
            Compression::None if !encrypted => length,
            Compression::Zstd => decode::declared_content(start),
            _ => 0,
        };
        let index = if compression == Compression::Zstd && !encrypted {
            IndexReader::find(source, &asking, progress, means.clone())?
        } else {
            None
        };
        let decoded = decode::start(compression, input, mark.point.clone(), means)?;
        let mut content = Limited::new(decoded, limits, Arc::clone(progress));
        let seen = match from {
            Some(_) => Seen::Tar,
            None => Seen::detect(content.fill()?),
        };
        let format = Format {
            content: Content::Raw,
            compression,
            encrypted,
        };
        let reading = Self {
            content,
            least,
            index,
            indexed: false,
            mark,
            begun,
            format,
            _stop: guard,
            _share: share,
        };
        Ok((reading, seen))
    }

    /// The entries of a tar archive, compared with its index where it has one.
    pub(crate) fn entries(
        &mut self,
        options: &Options,
    ) -> Result<TarReader<&mut Limited<Input>>, RestoreError> {
        let mark = std::mem::take(&mut self.mark);
        let mut entries = TarReader::new(&mut self.content, options.limits.clone(), mark)?;
        if let Some(index) = self.index.take() {
            entries.check_against(index)?;
            self.indexed = true;
        }
        Ok(entries)
    }

    /// After the last byte: whether it was the right one.
    pub(crate) fn end(self, options: &Options) -> Result<Read, RestoreError> {
        let finished = self.content.into_inner().finished();
        let mut finished = finished.ok_or_else(decode::lost_thread)?;
        if self.format.encrypted {
            // age authenticates every byte.
            finished.verified = finished.verified.max(Verified::Stream);
        }
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
            None if self.indexed && finished.verified == Verified::Stream => Verified::PerFile,
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
            verified,
            sha256,
        })
    }
}

fn not_an_archive(found: String) -> RestoreError {
    RestoreError::NotAnArchive { found }
}

fn not_an_image(found: String) -> RestoreError {
    RestoreError::NotAnImage { found }
}
