//! The table at the very end that says where frames begin: the seekable format of zstd
//! (contrib/seekable_format/zstd_seekable_compression_format.md in its repository).

use super::FRAME_HEADER;

/// The magic number of the skippable frame that the table is in.
const FRAME_MAGIC: u32 = 0x184d_2a5e;

/// The last four bytes of the object.
const FOOTER_MAGIC: u32 = 0x8f92_eab1;

/// Frames, a descriptor, the magic number.
const FOOTER: usize = 9;

/// Bytes at the end of an object that [`last_frame`] wants to see: the last entry, with a checksum
/// perhaps, and the footer.
pub(crate) const TAIL: usize = FOOTER + 12;

/// One frame: bytes in the object, bytes unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stored: u32,
    pub(crate) unpacked: u32,
}

/// The table as it stands at the end of an object.
pub(crate) fn encode(frames: &[Frame]) -> Option<Vec<u8>> {
    let count = u32::try_from(frames.len()).ok()?;
    let length = u32::try_from(frames.len() * 8 + FOOTER).ok()?;
    let mut table = Vec::with_capacity(FRAME_HEADER + frames.len() * 8 + FOOTER);
    table.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    table.extend_from_slice(&length.to_le_bytes());
    for frame in frames {
        table.extend_from_slice(&frame.stored.to_le_bytes());
        table.extend_from_slice(&frame.unpacked.to_le_bytes());
    }
    table.extend_from_slice(&count.to_le_bytes());
    // No checksums: the frames have their own.
    table.push(0);
    table.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
    Some(table)
}

/// Where a frame lies in the object, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The last frame of the table, if it is one without data, such as an index. `tail` are the last
/// bytes of an object of `length` bytes.
pub(crate) fn last_frame(tail: &[u8], length: u64) -> Option<Place> {
    let (rest, footer) = tail.split_last_chunk::<FOOTER>()?;
    let [c0, c1, c2, c3, descriptor, magic @ ..] = footer;
    // Bits 2 to 6 are reserved.
    if u32::from_le_bytes(*magic) != FOOTER_MAGIC || descriptor & 0x7c != 0 {
        return None;
    }
    let entry = if descriptor & 0x80 == 0 { 8 } else { 12 };
    let frames = u64::from(u32::from_le_bytes([*c0, *c1, *c2, *c3]));
    let last = rest.get(rest.len().checked_sub(entry)?..)?;
    let (stored, last) = last.split_first_chunk()?;
    let (unpacked, _) = last.split_first_chunk()?;
    if frames == 0 || u32::from_le_bytes(*unpacked) != 0 {
        return None;
    }
    let table = FRAME_HEADER as u64 + frames * entry as u64 + FOOTER as u64;
    let end = length.checked_sub(table)?;
    let start = end.checked_sub(u64::from(u32::from_le_bytes(*stored)))?;
    Some(Place { start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_is_found() {
        let data = Frame {
            stored: 100,
            unpacked: 1000,
        };
        let index = Frame {
            stored: 50,
            unpacked: 0,
        };
        let table = encode(&[data, index]).unwrap();
        assert_eq!(table.len(), 8 + 2 * 8 + 9);
        let length = 150 + table.len() as u64;
        let tail = &table[table.len() - TAIL..];
        let expected = Place {
            start: 100,
            end: 150,
        };
        assert_eq!(last_frame(tail, length), Some(expected));
        // Too short an object, no index, another end.
        assert_eq!(last_frame(tail, 60), None);
        let table = encode(&[index, data]).unwrap();
        assert_eq!(last_frame(&table, length), None);
        assert_eq!(last_frame(&table[..table.len() - 1], length), None);
        assert_eq!(last_frame(&[], length), None);
    }
}
