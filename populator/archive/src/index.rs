//! The index at the end of an archive that `pack` made: its entries, where they are, and the digests
//! of their data. docs/archive-format.md is the specification of what is read and written here.

use crate::entry::{Entry, Kind, Layout};

pub(crate) mod reader;
pub(crate) mod seek_table;

/// The magic number of the skippable frame (RFC 8878, 3.1.2) that the index is in.
pub(crate) const FRAME_MAGIC: u32 = 0x184d_2a5b;

/// Bytes before the content of a skippable frame: magic number and length.
pub(crate) const FRAME_HEADER: usize = 8;

const MAGIC: [u8; 8] = *b"TARINDEX";
const VERSION: u32 = 1;

/// Bytes of [`Header`].
pub(crate) const HEADER: usize = 80;

/// What stands before the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Entries of the archive, and of the index.
    pub(crate) entries: u64,
    /// Bytes of the unpacked archive.
    pub(crate) unpacked: u64,
    /// Bytes of file data in it, holes apart.
    pub(crate) data: u64,
    /// Bytes of all records before compression.
    pub(crate) records: u64,
    /// BLAKE3 of all records before compression.
    pub(crate) digest: [u8; 32],
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let numbers = [self.entries, self.unpacked, self.data, self.records];
        let (fields, _) = bytes[16..48].as_chunks_mut::<8>();
        for (field, number) in fields.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        bytes[48..].copy_from_slice(&self.digest);
        bytes
    }

    /// None if it is something else, or a version that is not known.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        if bytes[..8] != MAGIC || bytes[8..16] != u64::from(VERSION).to_le_bytes() {
            return None;
        }
        let (fields, _) = bytes[16..48].as_chunks::<8>();
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[48..]);
        Some(Self {
            entries: u64::from_le_bytes(fields[0]),
            unpacked: u64::from_le_bytes(fields[1]),
            data: u64::from_le_bytes(fields[2]),
            records: u64::from_le_bytes(fields[3]),
            digest,
        })
    }
}

/// What the index says about one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The type flag of its header in tar.
    pub(crate) kind: u8,
    /// Where its first header begins in the unpacked archive.
    pub(crate) offset: u64,
    pub(crate) path: Vec<u8>,
    /// Only of a regular file.
    pub(crate) content: Option<Content>,
}

/// What the index says about the data of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Bytes in the archive, without the map of a sparse file and without the padding.
    pub(crate) stored: u64,
    /// Bytes of the file, holes included.
    pub(crate) size: u64,
    /// BLAKE3 of those bytes.
    pub(crate) digest: [u8; 32],
}

/// The type flag of an entry.
pub(crate) fn kind(entry: &Entry) -> u8 {
    match entry.kind {
        Kind::File(_) => b'0',
        Kind::HardLink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::CharacterDevice(_) => b'3',
        Kind::BlockDevice(_) => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Bytes of a file, holes included.
pub(crate) fn size(entry: &Entry) -> u64 {
    match &entry.kind {
        Kind::File(Layout::Dense(size) | Layout::Sparse { size, .. }) => *size,
        _ => 0,
    }
}

impl Record {
    /// Appends the record; `before` is the offset of the record before it, 0 for the first.
    pub(crate) fn encode(&self, before: u64, to: &mut Vec<u8>) {
        to.push(self.kind);
        put(to, self.offset - before);
        put(to, self.path.len() as u64);
        to.extend_from_slice(&self.path);
        if let Some(content) = &self.content {
            put(to, content.stored);
            put(to, content.size);
            to.extend_from_slice(&content.digest);
        }
    }
}

/// A number in LEB128: seven bits in each byte, the lowest first, the eighth says that more follow.
fn put(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return to.push(low & 0x7f);
        }
        to.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_back() {
        let header = Header {
            entries: 1,
            unpacked: u64::MAX,
            data: 3,
            records: 4,
            digest: [5; 32],
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for at in [0, 8, 12] {
            let mut altered = bytes;
            altered[at] ^= 1;
            assert_eq!(Header::decode(&altered), None);
        }
    }

    #[test]
    fn numbers() {
        let mut bytes = Vec::new();
        put(&mut bytes, 0);
        put(&mut bytes, 127);
        put(&mut bytes, 300);
        assert_eq!(bytes, [0, 127, 0xac, 2]);
    }
}
