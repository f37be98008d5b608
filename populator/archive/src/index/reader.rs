//! Reads the index of an archive beside the archive, record for entry, so that it takes no memory
//! however long it is.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::seek_table::{self, Place, TAIL};
use super::{Content, FRAME_HEADER, FRAME_MAGIC, HEADER, Header, Record};
use crate::decode::{self, Decoder, Input, Means};
use crate::entry::Entry;
use crate::error::{RestoreError, printable};
use crate::fetch::{self, Boundary, Fetching};
use crate::progress::Progress;
use crate::source::{Source, SourceError};
use crate::stream::Stream as _;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

/// The largest window that an index may be compressed with, as a power of 2.
pub(crate) const WINDOW_LOG: u32 = 19;

/// Bytes that are decoded at a time.
const BUFFER: usize = 64 << 10;

/// Bytes in a range of the index.
const RANGE: u64 = 128 << 10;

/// The longest name in an index.
const NAME_MAX: u64 = 64 << 10;

/// Bytes of memory that reading an index takes.
pub(crate) const MEMORY: u64 = BUFFER as u64 + NAME_MAX + (1 << WINDOW_LOG) + 4 * RANGE;

/// A part of an object as an object.
struct Section {
    source: Arc<dyn Source>,
    place: Place,
}

impl Source for Section {
    fn length(&self) -> u64 {
        self.place.end - self.place.start
    }

    fn identity(&self) -> Option<String> {
        None
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        let start = self.place.start;
        self.source.read_at(start + range.start..start + range.end)
    }
}

/// An index being read.
pub(crate) struct IndexReader {
    header: Header,
    records: Records,
    entries: u64,
    /// Where the last entry begins in the unpacked archive.
    offset: u64,
    /// What is fetched here, and where it is counted at the end: it is no part of what is done.
    beside: Arc<Progress>,
    progress: Arc<Progress>,
}

/// The records, unpacked.
struct Records {
    decoder: Box<dyn Decoder>,
    buffer: Vec<u8>,
    used: usize,
    filled: usize,
    read: u64,
    hasher: blake3::Hasher,
}

impl IndexReader {
    /// Opens the index of an object, if there is one. What is fetched for it is counted in `progress`
    /// when it has been read.
    pub(crate) fn find(
        source: Arc<dyn Source>,
        fetching: &Fetching,
        progress: &Arc<Progress>,
        means: Means,
    ) -> Result<Option<Self>, RestoreError> {
        let length = source.length();
        let range = length.saturating_sub(TAIL as u64)..length;
        let tail = means
            .cancel
            .run_until_cancelled(fetch::fetch(&*source, range, fetching, progress));
        let tail = means.runtime.block_on(tail);
        let tail = tail.ok_or(RestoreError::Cancelled)??.bytes;
        match seek_table::last_frame(&tail, length) {
            Some(place) => Self::open(source, place, fetching, progress, means),
            None => Ok(None),
        }
    }

    fn open(
        source: Arc<dyn Source>,
        place: Place,
        fetching: &Fetching,
        progress: &Arc<Progress>,
        mut means: Means,
    ) -> Result<Option<Self>, RestoreError> {
        let section = Arc::new(Section { source, place });
        if section.length() < (FRAME_HEADER + HEADER) as u64 {
            return Ok(None);
        }
        let fetching = Fetching {
            parallel: 1,
            most: 1,
            range: RANGE,
            ..fetching.clone()
        };
        means.window_max = 1 << WINDOW_LOG;
        let beside = Arc::new(Progress::default());
        let counted = Arc::clone(&beside);
        let fetched = fetch::start(
            section.clone(),
            Boundary::default(),
            fetching,
            counted,
            &means,
        );
        let mut input = Input::Fetched(Box::new(fetched));
        let mut start = [0; FRAME_HEADER];
        let mut header = [0; HEADER];
        input.read_full(&mut start)?;
        input.read_full(&mut header)?;
        let length = section.length() - FRAME_HEADER as u64;
        let (magic, content) = start.split_at(4);
        let is_frame = magic == FRAME_MAGIC.to_le_bytes()
            && content
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
                == length;
        let header = Header::decode(&header).filter(|_| is_frame);
        let Some(header) = header else {
            return Ok(None);
        };
        Ok(Some(Self {
            header,
            records: Records {
                decoder: decode::zstd(input, means),
                buffer: vec![0; BUFFER],
                used: 0,
                filled: 0,
                read: 0,
                hasher: blake3::Hasher::new(),
            },
            entries: 0,
            offset: 0,
            beside,
            progress: Arc::clone(progress),
        }))
    }

    /// Passes over the records of entries that were compared before. The digest of the last one's data,
    /// if it is a file.
    pub(crate) fn pass_over(&mut self, entries: u64) -> Result<Option<[u8; 32]>, RestoreError> {
        let mut digest = None;
        for _ in 0..entries {
            digest = self.next()?.content.map(|content| content.digest);
        }
        Ok(digest)
    }

    /// Compares the next record with the entry at `offset` of the unpacked archive, which has `stored`
    /// bytes of data in it. The digest that those must have, if it is a file.
    pub(crate) fn check(
        &mut self,
        entry: &Entry,
        offset: u64,
        stored: u64,
    ) -> Result<Option<[u8; 32]>, RestoreError> {
        let record = self.next()?;
        let content = record.content.map(|content| (content.stored, content.size));
        let is_file = record.kind == b'0';
        let same = record.kind == super::kind(entry)
            && record.offset == offset
            && record.path == entry.path
            && content == is_file.then(|| (stored, super::size(entry)));
        if same {
            return Ok(record.content.map(|content| content.digest));
        }
        Err(RestoreError::corrupt(format!(
            "its index has {} at byte {} where the archive has {} at byte {offset}",
            printable(&record.path),
            record.offset,
            printable(&entry.path)
        )))
    }

    /// After the last entry: whether that was all of the index, and the index as it was written.
    pub(crate) fn finish(&mut self) -> Result<(), RestoreError> {
        self.progress.add_fetched(self.beside.snapshot().fetched);
        let ended = self.records.read == self.header.records && !self.records.fill()?;
        let digest: [u8; 32] = self.records.hasher.finalize().into();
        if ended && self.entries == self.header.entries && digest == self.header.digest {
            return Ok(());
        }
        Err(RestoreError::corrupt(format!(
            "its index is of {} entries in {} bytes, and {} in {} were found",
            self.header.entries, self.header.records, self.entries, self.records.read
        )))
    }

    fn next(&mut self) -> Result<Record, RestoreError> {
        let records = &mut self.records;
        let kind = records.byte()?;
        let step = records.number()?;
        self.offset = self.offset.checked_add(step).ok_or_else(wrong)?;
        let length = records.number()?;
        if length > NAME_MAX {
            return Err(wrong());
        }
        // Checked above.
        let mut path = vec![0; usize::try_from(length).unwrap_or_default()];
        records.bytes(&mut path)?;
        let content = if kind == b'0' {
            let (stored, size) = (records.number()?, records.number()?);
            let mut digest = [0; 32];
            records.bytes(&mut digest)?;
            Some(Content {
                stored,
                size,
                digest,
            })
        } else {
            None
        };
        self.entries += 1;
        Ok(Record {
            kind,
            offset: self.offset,
            path,
            content,
        })
    }
}

fn wrong() -> RestoreError {
    RestoreError::corrupt("its index is malformed")
}

impl Records {
    /// Whether there are bytes.
    fn fill(&mut self) -> Result<bool, RestoreError> {
        if self.used == self.filled {
            self.used = 0;
            self.filled = self.decoder.decode(&mut self.buffer)?;
        }
        Ok(self.used < self.filled)
    }

    fn bytes(&mut self, to: &mut [u8]) -> Result<(), RestoreError> {
        let mut done = 0;
        while done < to.len() {
            if !self.fill()? {
                return Err(wrong());
            }
            let count = (to.len() - done).min(self.filled - self.used);
            to[done..done + count].copy_from_slice(&self.buffer[self.used..self.used + count]);
            self.used += count;
            done += count;
        }
        self.read += to.len() as u64;
        self.hasher.update(to);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, RestoreError> {
        let mut byte = [0];
        self.bytes(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, RestoreError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(wrong())
    }
}
