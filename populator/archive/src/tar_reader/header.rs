//! One header block of 512 bytes: its fields, in whichever dialect it is written.

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader, Header};

use crate::entry::Extent;
use crate::error::{RestoreError, printable};

/// Bytes in a block.
pub(crate) const BLOCK: usize = 512;

/// A header block.
pub(super) struct Block {
    bytes: [u8; BLOCK],
    sum_is_right: bool,
}

/// What a header is the header of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Regular,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    /// With the list of its names as data, in incremental archives.
    GnuDumpDirectory,
    Fifo,
    PaxLocal,
    PaxGlobal,
    GnuLongName,
    GnuLongLink,
    GnuSparse,
    GnuMultiVolume,
    GnuVolumeLabel,
    Other(u8),
}

impl Type {
    /// Whether no data follow, whatever size the header states: some programs repeat there the size
    /// that a link's target has, or that a directory may take. Were blocks passed over for it, those
    /// would be the next entries.
    pub(super) fn is_header_only(self) -> bool {
        matches!(
            self,
            Self::HardLink
                | Self::Symlink
                | Self::CharacterDevice
                | Self::BlockDevice
                | Self::Directory
                | Self::Fifo
        )
    }
}

/// Whether the sum in the header is that of its bytes. Old programs summed signed bytes.
pub(crate) fn sum_is_right(bytes: &[u8; BLOCK]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Ok(stated) = number(&bytes[SUM]) else {
        return false;
    };
    let mut blanked = *bytes;
    blanked[SUM].fill(b' ');
    // A block's sums are far from overflowing, and unchecked ones are made many bytes at a time.
    let sum = |of: fn(u8) -> u32| {
        let sum = blanked
            .iter()
            .fold(0_u32, |sum, byte| sum.wrapping_add(of(*byte)));
        i64::from(sum)
    };
    let unsigned = sum(u32::from);
    let signed = unsigned - 256 * sum(|byte| u32::from(byte >> 7));
    stated == unsigned || stated == signed
}

/// A numeric field: octal digits among spaces and NULs, or base 256 as GNU and star write it.
fn number(field: &[u8]) -> Result<i64, String> {
    let first = field.first().copied().unwrap_or_default();
    if first & 0x80 != 0 {
        // Two's complement over the whole field, whose first bit only marks the form.
        let negative = first & 0x40 != 0;
        let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        for byte in &field[1..] {
            value = value
                .checked_mul(256)
                .ok_or("a number in its header is out of range")?;
            value += i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| format!("its header holds the number {value}"));
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(field.len());
    let rest = &field[start..];
    let end = rest.iter().position(blank).unwrap_or(rest.len());
    let mut value: i64 = 0;
    for digit in &rest[..end] {
        if !(b'0'..=b'7').contains(digit) {
            return Err(format!(
                "its header has {} in place of a number",
                printable(field)
            ));
        }
        // Twelve digits are 36 bits.
        value = value * 8 + i64::from(digit - b'0');
    }
    Ok(value)
}

fn unsigned(field: &[u8]) -> Result<u64, String> {
    let value = number(field)?;
    u64::try_from(value).map_err(|_| format!("its header holds the number {value}"))
}

/// A text field, which a NUL ends unless it is full.
fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

impl Block {
    pub(super) fn new(mut bytes: [u8; BLOCK]) -> Self {
        let sum_is_right = sum_is_right(&bytes);
        // Writers that forget the version mean ustar all the same.
        if bytes[257..263] == *b"ustar\0" {
            bytes[263..265].copy_from_slice(b"00");
        }
        Self {
            bytes,
            sum_is_right,
        }
    }

    /// The header's own idea of the entry's name; PAX and GNU extensions may give a better one.
    pub(super) fn name(&self) -> Vec<u8> {
        let header = self.header();
        let name = text(&header.as_old().name);
        let Some(ustar) = header.as_ustar() else {
            return name.to_vec();
        };
        // star keeps times behind a shorter prefix, and says so in the last four bytes.
        let length = if self.bytes[508..] == *b"tar\0" {
            131
        } else {
            ustar.prefix.len()
        };
        match text(&ustar.prefix[..length]) {
            b"" => name.to_vec(),
            prefix => [prefix, name].join(&b'/'),
        }
    }

    /// The same for the target of a link.
    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.header().as_old().linkname).to_vec()
    }

    pub(super) fn bytes(&self) -> &[u8; BLOCK] {
        &self.bytes
    }

    pub(super) fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    pub(super) fn sum_is_right(&self) -> bool {
        self.sum_is_right
    }

    fn header(&self) -> &Header {
        Header::from_byte_slice(&self.bytes)
    }

    pub(super) fn kind(&self) -> Type {
        match self.header().as_old().linkflag[0] {
            // '7' asks for contiguous blocks, which nothing gives any more.
            0 | b'0' | b'7' => Type::Regular,
            b'1' => Type::HardLink,
            b'2' => Type::Symlink,
            b'3' => Type::CharacterDevice,
            b'4' => Type::BlockDevice,
            b'5' => Type::Directory,
            b'D' => Type::GnuDumpDirectory,
            b'6' => Type::Fifo,
            b'x' | b'X' => Type::PaxLocal,
            b'g' => Type::PaxGlobal,
            b'L' => Type::GnuLongName,
            b'K' => Type::GnuLongLink,
            b'S' => Type::GnuSparse,
            b'M' => Type::GnuMultiVolume,
            b'V' => Type::GnuVolumeLabel,
            other => Type::Other(other),
        }
    }

    /// A field's error as the restore's, with the entry's name.
    fn named<T>(&self, field: Result<T, String>) -> Result<T, RestoreError> {
        field.map_err(|why| RestoreError::corrupt(format!("{}: {why}", printable(&self.name()))))
    }

    /// Stored bytes that follow the header.
    pub(super) fn size(&self) -> Result<u64, RestoreError> {
        self.named(unsigned(&self.header().as_old().size))
    }

    pub(super) fn mode(&self) -> Result<u32, String> {
        // Some programs put the file type above the permissions.
        let mode = number(&self.header().as_old().mode)? & 0o7777;
        Ok(u32::try_from(mode).unwrap_or_default())
    }

    pub(super) fn owner(&self) -> Result<u64, String> {
        unsigned(&self.header().as_old().uid)
    }

    pub(super) fn group(&self) -> Result<u64, String> {
        unsigned(&self.header().as_old().gid)
    }

    /// The owner's name, where there is one.
    pub(super) fn user_name(&self) -> Vec<u8> {
        self.header().username_bytes().unwrap_or_default().to_vec()
    }

    pub(super) fn group_name(&self) -> Vec<u8> {
        self.header().groupname_bytes().unwrap_or_default().to_vec()
    }

    /// Seconds since 1970.
    pub(super) fn modified(&self) -> Result<i64, String> {
        number(&self.header().as_old().mtime)
    }

    /// Major and minor number; v7 has none. Those that are given otherwise count.
    pub(super) fn device(
        &self,
        given: (Option<u64>, Option<u64>),
    ) -> Result<(u32, u32), RestoreError> {
        let header = self.header();
        let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
            (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
            (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
            (None, None) => {
                return self.named(Err("its header has no device number".to_owned()));
            }
        };
        // What the kernel has: beyond these it would make another device, without a word.
        let part = |given: Option<u64>, field: &[u8], bits: u32| {
            let value = given.map_or_else(|| unsigned(field), Ok)?;
            let fitting = u32::try_from(value).ok().filter(|part| part >> bits == 0);
            fitting.ok_or_else(|| format!("its header holds the device number {value}"))
        };
        let major = self.named(part(given.0, major, 12))?;
        Ok((major, self.named(part(given.1, minor, 20))?))
    }

    /// The map of an old GNU sparse file: extents, real size, and whether more blocks follow.
    /// `None` if the header is not a GNU one.
    pub(super) fn sparse(&self) -> Result<Option<(Vec<Extent>, u64, bool)>, RestoreError> {
        let Some(gnu): Option<&GnuHeader> = self.header().as_gnu() else {
            return Ok(None);
        };
        let mut extents = Vec::new();
        self.named(append(&gnu.sparse, &mut extents))?;
        let size = self.named(unsigned(&gnu.realsize))?;
        let more = self.named(flag(gnu.isextended[0]))?;
        Ok(Some((extents, size, more)))
    }

    /// The same for a block that continues the map: whether yet another follows.
    pub(super) fn sparse_continued(&self, extents: &mut Vec<Extent>) -> Result<bool, RestoreError> {
        let mut block = GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&self.bytes);
        append(&block.sparse, extents)
            .and_then(|()| flag(block.isextended[0]))
            .map_err(|why| RestoreError::corrupt(format!("the map of a sparse file: {why}")))
    }
}

fn append(fields: &[GnuSparseHeader], extents: &mut Vec<Extent>) -> Result<(), String> {
    for field in fields {
        if field.offset[0] == 0 || field.numbytes[0] == 0 {
            break;
        }
        let (offset, length) = (unsigned(&field.offset)?, unsigned(&field.numbytes)?);
        extents.push(Extent { offset, length });
    }
    Ok(())
}

/// Whether another block of a map follows. Readers differ in what else than 1 means yes.
fn flag(byte: u8) -> Result<bool, String> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("its map goes on or not, by the number {byte}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"77777777777\0"), Ok((1 << 33) - 1));
        assert_eq!(number(&[0; 8]), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Ok(258));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(
            number(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            Ok(i64::MAX)
        );
        assert!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0").is_err());
        assert!(number(b"0000648\0").is_err());
        assert!(number(b"-1     \0").is_err());
    }

    #[test]
    fn a_forgotten_version_is_still_ustar() {
        let mut header = Header::new_ustar();
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        header.set_path(&long).unwrap();
        header.as_ustar_mut().unwrap().version = [b' ', 0];
        header.set_cksum();
        let block = Block::new(*header.as_bytes());
        assert!(block.sum_is_right());
        assert_eq!(block.name(), long.as_bytes());
    }
}
