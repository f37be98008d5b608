//! The readers of what locates an index and of its records, over bytes in memory.

use std::sync::Arc;

use super::{HEADER, Header, IndexReader, Records, TAIL, seek_table};
use crate::decode::Decoder;
use crate::error::RestoreError;
use crate::progress::Progress;

/// Records that are not compressed.
struct Plain {
    bytes: Vec<u8>,
    used: usize,
}

impl Decoder for Plain {
    fn decode(&mut self, output: &mut [u8]) -> Result<usize, RestoreError> {
        let rest = &self.bytes[self.used..];
        let count = rest.len().min(output.len());
        output[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(count)
    }

    fn is_checked(&self) -> bool {
        true
    }

    fn digest(&self) -> Option<[u8; 32]> {
        None
    }
}

/// Reads the end of an object, a header and records, which `bytes` are in turn. How many records
/// there are before the first that is wrong.
pub(crate) fn read(bytes: &[u8]) -> u64 {
    let Some((tail, rest)) = bytes.split_first_chunk::<TAIL>() else {
        return 0;
    };
    for length in [0, TAIL as u64, 1 << 20, 1 << 40, u64::MAX] {
        if let Some(place) = seek_table::last_frame(tail, length) {
            assert!(place.start <= place.end && place.end <= length, "{place:?}");
        }
    }
    let Some((header, records)) = rest.split_first_chunk::<HEADER>() else {
        return 0;
    };
    let Some(header) = Header::decode(header) else {
        return 0;
    };
    let decoder = Plain {
        bytes: records.to_vec(),
        used: 0,
    };
    let mut reader = IndexReader {
        header,
        records: Records {
            decoder: Box::new(decoder),
            // Small, so that figures and names cross its end.
            buffer: vec![0; 16],
            used: 0,
            filled: 0,
            read: 0,
            hasher: blake3::Hasher::new(),
        },
        entries: 0,
        offset: 0,
        beside: Arc::default(),
        progress: Arc::new(Progress::default()),
    };
    while let Ok(record) = reader.next() {
        assert_eq!(record.content.is_some(), record.kind == b'0');
    }
    // Rubbish is no index.
    let _ = reader.finish();
    reader.entries
}
