//! The third stage: from unpacked bytes to entries. Reads v7, ustar, GNU, star and PAX headers.
//!
//! The layout of headers comes from the `tar` crate. Its entry iterator is not used: it does not know
//! PAX sparse files and takes a missing end of archive for an end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::Point;
use crate::digest::{Digest, Parts};
use crate::entry::Entry;
use crate::error::{RestoreError, printable};
use crate::index::reader::IndexReader;
use crate::limits::Limits;
use crate::stream::Stream;
use entry::Extended;
use header::{BLOCK, Block, Type};
use pax::Pax;

mod entry;
pub(crate) mod header;
mod pax;
mod sparse;

/// Reads the entries of a tar archive in their order.
pub(crate) struct TarReader<S> {
    stream: S,
    limits: Limits,
    /// What global PAX headers said so far, and how many bytes they had.
    global: Pax,
    global_bytes: u64,
    /// Stored bytes of the current entry that have not been used, and the padding behind them.
    remaining: u64,
    padding: u64,
    /// Shown in messages about the data.
    current: Vec<u8>,
    entries: u64,
    ledger: Option<Ledger>,
    /// What was hashed of the data before the mark.
    parts: Option<Parts>,
    before: Before,
}

/// The index of the archive, and the data of the current entry against it.
struct Ledger {
    index: IndexReader,
    /// The digest that the data have to have, and that of what has been used of them.
    expected: Option<[u8; 32]>,
    digest: Digest,
}

/// Where the headers of the current entry begin, or what is behind the last.
struct Before {
    position: u64,
    point: Option<Arc<Point>>,
    entries: u64,
    global: Pax,
    global_bytes: u64,
}

/// Where reading can go on, and what is known there of what was before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    /// Bytes of the unpacked archive before it.
    pub(crate) position: u64,
    /// From where they are unpacked again to get there; `None` for the begin.
    pub(crate) point: Option<Point>,
    pub(crate) entries: u64,
    global: Pax,
    global_bytes: u64,
    /// Where it is within the data of an entry, or in the padding behind them.
    within: Option<Within>,
}

/// A place in the data of an entry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Within {
    remaining: u64,
    padding: u64,
    entry: Vec<u8>,
    /// What was hashed of the data, where there is an index.
    parts: Option<Parts>,
}

impl<S: Stream> TarReader<S> {
    /// Begins at a mark, which is at or behind the position of `stream`.
    pub(crate) fn new(mut stream: S, limits: Limits, from: Mark) -> Result<Self, RestoreError> {
        if !stream.skip(from.position - stream.position())? {
            return Err(RestoreError::truncated("it ends where it had more before"));
        }
        let within = from.within.unwrap_or_default();
        Ok(Self {
            stream,
            limits,
            global: from.global.clone(),
            global_bytes: from.global_bytes,
            remaining: within.remaining,
            padding: within.padding,
            current: within.entry,
            entries: from.entries,
            ledger: None,
            parts: within.parts.filter(|_| within.remaining > 0),
            before: Before {
                position: from.position,
                point: from.point.map(Arc::new),
                entries: from.entries,
                global: from.global,
                global_bytes: from.global_bytes,
            },
        })
    }

    /// Compares every entry, and the data of those that are used, with what this index says.
    pub(crate) fn check_against(&mut self, mut index: IndexReader) -> Result<(), RestoreError> {
        let last = index.pass_over(self.entries)?;
        let parts = self.parts.take();
        self.ledger = Some(Ledger {
            index,
            expected: last.filter(|_| parts.is_some()),
            digest: Digest::after(parts.unwrap_or_default()),
        });
        Ok(())
    }

    /// Whether there is an index; then all of it was right if `next_entry` came to the end.
    pub(crate) fn has_index(&self) -> bool {
        self.ledger.is_some()
    }

    /// The place before the current entry, or before the end of the archive.
    pub(crate) fn before(&self) -> Mark {
        Mark {
            position: self.before.position,
            point: self.before.point.as_deref().cloned(),
            entries: self.before.entries,
            global: self.before.global.clone(),
            global_bytes: self.before.global_bytes,
            within: None,
        }
    }

    /// The place in the current entry's data; with an index, they are known at some places only.
    pub(crate) fn here(&self) -> Option<Mark> {
        let parts = match self.ledger.as_ref().filter(|it| it.expected.is_some()) {
            Some(ledger) => Some(ledger.digest.parts()?),
            None => None,
        };
        Some(Mark {
            position: self.stream.position(),
            point: self.stream.point().as_deref().cloned(),
            entries: self.entries,
            global: self.global.clone(),
            global_bytes: self.global_bytes,
            within: Some(Within {
                remaining: self.remaining,
                padding: self.padding,
                entry: self.current.clone(),
                parts,
            }),
        })
    }

    /// Before the current entry is what was read so far.
    fn begin_entry(&mut self) {
        self.before = Before {
            position: self.stream.position(),
            point: self.stream.point(),
            entries: self.entries,
            global: self.global.clone(),
            global_bytes: self.global_bytes,
        };
    }

    /// The next entry; `None` when the archive ended as it should and nothing but zeros came after.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, RestoreError> {
        self.check_data()?;
        self.pass_over_data()?;
        self.begin_entry();
        let begin = self.before.position;
        let mut extended = Extended {
            pax: self.global.clone(),
            ..Extended::default()
        };
        loop {
            let Some(block) = self.header()? else {
                if extended.bytes > 0 {
                    return Err(RestoreError::corrupt("its last header belongs to no entry"));
                }
                if self.entries == 0 {
                    let found = "it is an archive without entries";
                    return Err(RestoreError::ArchiveEmpty { found });
                }
                if let Some(ledger) = &mut self.ledger {
                    ledger.index.finish()?;
                }
                return Ok(None);
            };
            match block.kind() {
                Type::PaxGlobal => {
                    if extended.bytes > 0 {
                        let why = "a global header stands between an entry and its own headers";
                        return Err(RestoreError::corrupt(why));
                    }
                    self.global_bytes += block.size()?;
                    let records = self.extended_data(&block, self.global_bytes)?;
                    self.global.read(&records)?;
                    // Some readers would follow it and others not.
                    if let Some(key) = self.global.of_one_entry() {
                        return Err(RestoreError::corrupt(format!(
                            "the PAX record \"{key}\", which is for one entry, is in a global header"
                        )));
                    }
                    extended.pax = self.global.clone();
                }
                Type::PaxLocal => {
                    extended.bytes += block.size()?;
                    let records = self.extended_data(&block, extended.bytes)?;
                    extended.pax.read(&records)?;
                }
                Type::GnuLongName => {
                    extended.bytes += block.size()?;
                    extended.long_name = Some(self.long(&block, extended.bytes)?);
                }
                Type::GnuLongLink => {
                    extended.bytes += block.size()?;
                    extended.long_link = Some(self.long(&block, extended.bytes)?);
                }
                // A label for people, without data.
                Type::GnuVolumeLabel => self.begin_data(&block, block.size()?)?,
                _ => {
                    self.entries += 1;
                    if self.entries > self.limits.entries {
                        return Err(RestoreError::LimitExceeded {
                            what: "entries",
                            limit: self.limits.entries,
                        });
                    }
                    let entry = self.entry(&block, extended)?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.expected = ledger.index.check(&entry, begin, self.remaining)?;
                        ledger.digest = Digest::default();
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Data of the current entry, at least one byte; empty when all of them have been used.
    pub(crate) fn data(&mut self) -> Result<&[u8], RestoreError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let bytes = self.stream.fill()?;
        if bytes.is_empty() {
            return Err(RestoreError::truncated(format!(
                "it ends within {}, {} bytes early",
                printable(&self.current),
                self.remaining
            )));
        }
        let place = self
            .ledger
            .as_ref()
            .map(|ledger| ledger.digest.next_parts());
        let most = place.map_or(self.remaining, |it| it.min(self.remaining));
        let count = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(&bytes[..count.min(bytes.len())])
    }

    /// Marks bytes that `data` showed as used.
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(ledger) = &mut self.ledger
            && ledger.expected.is_some()
            && let Ok(bytes) = self.stream.fill()
        {
            ledger.digest.update(&bytes[..count]);
        }
        self.stream.consume(count);
        self.remaining -= count as u64;
    }

    /// How many entries have been read.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether the data of the current entry, if they were used, are those that the index says.
    fn check_data(&mut self) -> Result<(), RestoreError> {
        let Some(ledger) = &mut self.ledger else {
            return Ok(());
        };
        let expected = ledger.expected.take().filter(|_| self.remaining == 0);
        if expected.is_some_and(|it| it != ledger.digest.finalize()) {
            return Err(RestoreError::corrupt(format!(
                "the data of {} do not have the BLAKE3 digest that is in its index",
                printable(&self.current)
            )));
        }
        Ok(())
    }

    /// Uses up the data of the current entry.
    pub(crate) fn use_up(&mut self) -> Result<(), RestoreError> {
        loop {
            let count = self.data()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    fn pass_over_data(&mut self) -> Result<(), RestoreError> {
        let left = self.remaining + self.padding;
        (self.remaining, self.padding) = (0, 0);
        if self.stream.skip(left)? {
            return Ok(());
        }
        Err(RestoreError::truncated(format!(
            "it ends within {}",
            printable(&self.current)
        )))
    }

    /// The next block of 512 bytes.
    fn block(&mut self) -> Result<Block, RestoreError> {
        let mut bytes = [0; BLOCK];
        if self.stream.read_full(&mut bytes)? < BLOCK {
            return Err(RestoreError::truncated("it has no end-of-archive mark"));
        }
        Ok(Block::new(bytes))
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Block>, RestoreError> {
        self.pass_over_data()?;
        let position = self.stream.position();
        let block = self.block()?;
        if block.is_zero() {
            if !self.block()?.is_zero() {
                return Err(RestoreError::corrupt(format!(
                    "it has a lone empty block at byte {position} of the unpacked archive"
                )));
            }
            return match self.stream.only_zeros_left()? {
                Ok(()) => Ok(None),
                Err(at) if self.entries == 0 => Err(RestoreError::NotAnArchive {
                    found: format!(
                        "it begins with {at} zeros and goes on with something else, as the image of \
                         a disk may"
                    ),
                }),
                Err(at) => Err(RestoreError::corrupt(format!(
                    "rubbish follows its end, at byte {at} of the unpacked archive"
                ))),
            };
        }
        if block.sum_is_right() {
            return Ok(Some(block));
        }
        Err(RestoreError::corrupt(format!(
            "at byte {position} of the unpacked archive, after {}, is no valid header",
            printable(&self.current)
        )))
    }

    fn begin_data(&mut self, block: &Block, size: u64) -> Result<(), RestoreError> {
        if size > i64::MAX as u64 {
            return Err(RestoreError::corrupt(format!(
                "its header for {} claims {size} bytes",
                printable(&block.name())
            )));
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The data of an extended header; `total` is what they and the ones before them come to.
    fn extended_data(&mut self, block: &Block, total: u64) -> Result<Vec<u8>, RestoreError> {
        let limit = self.limits.headers;
        if total > limit {
            let why = format!(
                "its extended headers have {total} bytes, and {limit} are read; leave out what makes \
                 them so long, or raise the limit"
            );
            return Err(RestoreError::refused(&block.name(), why));
        }
        self.current = block.name();
        self.begin_data(block, block.size()?)?;
        // Not more than the limit.
        let mut data = Vec::with_capacity(usize::try_from(self.remaining).unwrap_or_default());
        while self.remaining > 0 {
            let bytes = self.data()?;
            let count = bytes.len();
            data.extend_from_slice(bytes);
            self.consume(count);
        }
        Ok(data)
    }

    /// A GNU long name, which a NUL ends.
    fn long(&mut self, block: &Block, total: u64) -> Result<Vec<u8>, RestoreError> {
        let mut name = self.extended_data(block, total)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests;
