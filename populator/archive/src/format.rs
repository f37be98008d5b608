//! What an object is, by its first bytes.

use std::fmt;

use crate::error::printable;
use crate::tar_reader::header;

/// How many bytes [`Format::detect`] wants to see, unless the object is shorter.
pub(crate) const LOOK: usize = 512;

const COMPRESSED: [(&[u8], Format); 5] = [
    (&[0x1f, 0x8b], Format::TarGzip),
    (&[0x28, 0xb5, 0x2f, 0xfd], Format::TarZstd),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Format::TarXz),
    (b"BZh", Format::TarBzip2),
    (&[0x04, 0x22, 0x4d, 0x18], Format::TarLz4),
];

/// The archive formats that are read. A new one enters here and in `decode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An uncompressed tar archive.
    Tar,
    /// tar in gzip, of one or several members.
    TarGzip,
    /// tar in zstd, of one or several frames.
    TarZstd,
    /// tar in xz, of one or several streams.
    TarXz,
    /// tar in bzip2, of one or several streams.
    TarBzip2,
    /// tar in lz4, of one or several frames.
    TarLz4,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tar => "tar",
            Self::TarGzip => "tar.gz",
            Self::TarZstd => "tar.zst",
            Self::TarXz => "tar.xz",
            Self::TarBzip2 => "tar.bz2",
            Self::TarLz4 => "tar.lz4",
        })
    }
}

impl Format {
    /// The format that an object beginning with `start` has, or what else it seems to be.
    pub fn detect(start: &[u8]) -> Result<Self, String> {
        let known = COMPRESSED
            .iter()
            .find(|(magic, _)| start.starts_with(magic));
        if let Some((_, format)) = known {
            return Ok(*format);
        }
        if is_skippable(start) {
            return Ok(Self::TarZstd);
        }
        if start.len() >= header::BLOCK && is_tar(start) {
            return Ok(Self::Tar);
        }
        Err(
            match FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
                Some((_, name)) => format!("it is {name}"),
                None => format!(
                    "it begins with {}",
                    printable(&start[..start.len().min(16)])
                ),
            },
        )
    }
}

/// A skippable frame, which zstd allows at the start of a file too (and lz4, which nobody does).
fn is_skippable(start: &[u8]) -> bool {
    start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18]
}

/// A header whose sum is right (v7 has no other mark), or the zeros that an archive of no entries is.
fn is_tar(start: &[u8]) -> bool {
    let Some(block) = start.first_chunk::<{ header::BLOCK }>() else {
        return false;
    };
    header::sum_is_right(block) || block.iter().all(|byte| *byte == 0)
}

/// What people upload instead, so that the message can name it.
const FOREIGN: [(&[u8], &str); 11] = [
    (&[0x02, 0x21, 0x4c, 0x18], "in the legacy format of lz4"),
    (&[0x5d, 0, 0], "compressed with lzma, which has no checksum"),
    (b"LZIP", "compressed with lzip"),
    (b"PK\x03\x04", "a zip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"age-encryption.org/", "encrypted with age"),
    (b"-----BEGIN PGP", "encrypted with PGP"),
    (b"QFI\xfb", "a qcow2 disk image"),
    (b"<?xml", "an XML document"),
    (b"PGDMP", "a PostgreSQL dump"),
    (b"070701", "a cpio archive"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        assert_eq!(Format::detect(b"\x1f\x8b\x08"), Ok(Format::TarGzip));
        assert_eq!(Format::detect(b"\x28\xb5\x2f\xfd"), Ok(Format::TarZstd));
        assert_eq!(Format::detect(b"\x5d\x2a\x4d\x18rest"), Ok(Format::TarZstd));
        assert_eq!(Format::detect(b"\xfd7zXZ\0\0"), Ok(Format::TarXz));
        assert_eq!(Format::detect(b"BZh91AY"), Ok(Format::TarBzip2));
        assert_eq!(Format::detect(b"\x04\x22\x4d\x18d"), Ok(Format::TarLz4));
        let mut header = tar::Header::new_old();
        header.set_path("v7").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert_eq!(Format::detect(header.as_bytes()), Ok(Format::Tar));
        let mut altered = *header.as_bytes();
        altered[0] ^= 1;
        assert_eq!(
            Format::detect(&altered),
            Err(
                r#"it begins with "w7\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00""#
                    .into()
            )
        );
    }

    #[test]
    fn what_is_no_archive_is_named() {
        assert_eq!(
            Format::detect(b"LZIP\x01"),
            Err("it is compressed with lzip".into())
        );
        assert_eq!(
            Format::detect(b"hello"),
            Err(r#"it begins with "hello""#.into())
        );
    }
}
