//! The index behind the data (docs/archive-format.md).

use std::io::{Read as _, Seek as _, Write as _};

use tempfile::SpooledTempFile;

use super::error::PackError;
use super::frames::Written;
use super::{Sink, Totals};
use crate::index::seek_table::{self, Frame};
use crate::index::{self, Header, Record};

/// zstd's level for the index, whatever the data have.
const LEVEL: i32 = 3;

/// The index, which grows with the archive: in memory while it is small, then in a file without a
/// name.
pub(super) struct IndexWriter {
    compressed: zstd::Encoder<'static, SpooledTempFile>,
    hasher: blake3::Hasher,
    length: u64,
    before: u64,
    record: Vec<u8>,
}

impl IndexWriter {
    pub(super) fn new() -> Result<Self, PackError> {
        let spool = SpooledTempFile::new(1 << 20);
        let made = zstd::Encoder::new(spool, LEVEL).and_then(|mut encoder| {
            encoder.include_checksum(true)?;
            encoder.window_log(index::reader::WINDOW_LOG)?;
            Ok(encoder)
        });
        Ok(Self {
            compressed: made.map_err(|error| unwritten(&error))?,
            hasher: blake3::Hasher::new(),
            length: 0,
            before: 0,
            record: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, record: &Record) -> Result<(), PackError> {
        self.record.clear();
        record.encode(self.before, &mut self.record);
        self.before = record.offset;
        self.hasher.update(&self.record);
        self.length += self.record.len() as u64;
        self.compressed
            .write_all(&self.record)
            .map_err(|error| unwritten(&error))
    }

    /// Writes the index and the seek table behind the data.
    pub(super) fn finish(
        self,
        written: &mut Written,
        sink: &mut dyn Sink,
        totals: &Totals,
        unpacked: u64,
    ) -> Result<(), PackError> {
        let header = Header {
            entries: totals.entries,
            unpacked,
            data: totals.data,
            records: self.length,
            digest: self.hasher.finalize().into(),
        };
        let mut spool = self
            .compressed
            .finish()
            .map_err(|error| unwritten(&error))?;
        let length = spool.stream_position().map_err(|error| unwritten(&error))?;
        spool.rewind().map_err(|error| unwritten(&error))?;
        let content = u32::try_from(length + index::HEADER as u64);
        let content = content.ok().filter(|it| *it < u32::MAX - 8);
        let content = content.ok_or_else(|| PackError::node("the index is larger than 4 GiB"))?;
        let mut start = index::FRAME_MAGIC.to_le_bytes().to_vec();
        start.extend_from_slice(&content.to_le_bytes());
        start.extend_from_slice(&header.encode());
        written.write(sink, start)?;
        let mut left = length;
        while left > 0 {
            let mut piece = Vec::with_capacity(1 << 20);
            let read = (&mut spool).take(1 << 20).read_to_end(&mut piece);
            left -= read.map_err(|error| unwritten(&error))? as u64;
            written.write(sink, piece)?;
        }
        written.frames.push(Frame {
            stored: content + 8,
            unpacked: 0,
        });
        let table = seek_table::encode(&written.frames);
        let table = table.ok_or_else(|| PackError::node("the seek table is larger than 4 GiB"))?;
        written.write(sink, table)
    }
}

fn unwritten(error: &std::io::Error) -> PackError {
    PackError::node(format!("keeping the index: {error}"))
}
