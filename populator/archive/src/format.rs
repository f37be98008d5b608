//! What an object is, by its first bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::printable;
use crate::tar_reader::header;

/// What an object is, from the outside in: `tar.zst.age` is tar in zstd in age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// What there is in the end.
    pub content: Content,
    /// In what it is compressed.
    pub compression: Compression,
    /// Whether all of that is encrypted, with age.
    pub encrypted: bool,
}

/// The compressions that are read. A new one enters here and in `decode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Not compressed.
    None,
    /// gzip, of one or several members.
    Gzip,
    /// zstd, of one or several frames.
    Zstd,
    /// xz, of one or several streams.
    Xz,
    /// bzip2, of one or several streams.
    Bzip2,
    /// lz4, of one or several frames.
    Lz4,
}

/// What can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A tar archive: files for a directory.
    Tar,
    /// Bytes for a disk: whatever is nothing else.
    Raw,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.content {
            Content::Tar => "tar",
            Content::Raw => "raw",
        })?;
        f.write_str(match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            Compression::Xz => ".xz",
            Compression::Bzip2 => ".bz2",
            Compression::Lz4 => ".lz4",
        })?;
        f.write_str(if self.encrypted { ".age" } else { "" })
    }
}

const COMPRESSED: [(&[u8], Compression); 5] = [
    (&[0x1f, 0x8b], Compression::Gzip),
    (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
    (b"BZh", Compression::Bzip2),
    (&[0x04, 0x22, 0x4d, 0x18], Compression::Lz4),
];

/// Whether an object that begins with `start` is encrypted with age.
pub(crate) fn is_encrypted(start: &[u8]) -> bool {
    start.starts_with(b"age-encryption.org/")
}

impl Compression {
    /// The compression of an object that begins with `start`.
    pub(crate) fn detect(start: &[u8]) -> Self {
        let known = COMPRESSED
            .iter()
            .find(|(magic, _)| start.starts_with(magic));
        match known {
            Some((_, compression)) => *compression,
            // A skippable frame, which zstd allows at the start of a file too (and lz4, which nobody
            // does).
            None if is_skippable(start) => Self::Zstd,
            None => Self::None,
        }
    }
}

/// What unpacked bytes seem to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A tar archive.
    Tar,
    /// What people upload instead of what can be restored.
    Foreign(&'static str),
    /// Zeros, or less than a header: tar of no entries, cut off, or the start of an image.
    Nothing,
    /// Something else.
    Other,
}

impl Seen {
    /// By the first bytes; the more of them, the surer.
    pub(crate) fn detect(start: &[u8]) -> Self {
        let header = start.first_chunk::<{ header::BLOCK }>();
        // v7 has no other mark than the sum.
        if header.is_some_and(header::sum_is_right) {
            return Self::Tar;
        }
        if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Self::Foreign(name);
        }
        if is_encrypted(start) {
            return Self::Foreign("encrypted with age, once more or within a compression");
        }
        if Compression::detect(start) != Compression::None {
            return Self::Foreign("compressed once more");
        }
        if header.is_none() || start.iter().all(|byte| *byte == 0) {
            Self::Nothing
        } else {
            Self::Other
        }
    }
}

/// How what is not known begins, for messages.
pub(crate) fn beginning(start: &[u8]) -> String {
    format!("begins with {}", printable(&start[..start.len().min(16)]))
}

fn is_skippable(start: &[u8]) -> bool {
    start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18]
}

/// What people upload instead, so that the message can name it.
const FOREIGN: [(&[u8], &str); 11] = [
    (&[0x02, 0x21, 0x4c, 0x18], "in the legacy format of lz4"),
    (&[0x5d, 0, 0], "compressed with lzma, which has no checksum"),
    (b"LZIP", "compressed with lzip"),
    (b"PK\x03\x04", "a zip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (
        b"-----BEGIN AGE ENCRYPTED FILE-----",
        "encrypted with age --armor, which is for mail",
    ),
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
    fn compressions_are_known_by_their_first_bytes() {
        for (start, compression) in [
            (&b"\x1f\x8b\x08"[..], Compression::Gzip),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x5d\x2a\x4d\x18rest", Compression::Zstd),
            (b"\xfd7zXZ\0\0", Compression::Xz),
            (b"BZh91AY", Compression::Bzip2),
            (b"\x04\x22\x4d\x18d", Compression::Lz4),
            (b"anything", Compression::None),
            (b"", Compression::None),
        ] {
            assert_eq!(Compression::detect(start), compression, "{start:?}");
        }
    }

    #[test]
    fn contents_are_known_by_their_first_bytes() {
        let mut header = tar::Header::new_old();
        header.set_path("v7").unwrap();
        header.set_size(0);
        header.set_cksum();
        assert_eq!(Seen::detect(header.as_bytes()), Seen::Tar);
        let mut altered = *header.as_bytes();
        altered[0] ^= 1;
        assert_eq!(Seen::detect(&altered), Seen::Other);
        assert_eq!(
            beginning(&altered),
            r#"begins with "w7\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00""#
        );
        // ext4 begins with 1024 zeros.
        let mut image = [0; 4096];
        assert_eq!(Seen::detect(&image), Seen::Nothing);
        image[1080] = 0x53;
        assert_eq!(Seen::detect(&image), Seen::Other);
        assert_eq!(Seen::detect(b"short"), Seen::Nothing);
        let lzip = Seen::Foreign("compressed with lzip");
        assert_eq!(Seen::detect(b"LZIP\x01"), lzip);
    }

    #[test]
    fn formats_have_the_names_of_files() {
        let mut format = Format {
            content: Content::Tar,
            compression: Compression::None,
            encrypted: false,
        };
        assert_eq!(format.to_string(), "tar");
        format.encrypted = true;
        format.compression = Compression::Zstd;
        assert_eq!(format.to_string(), "tar.zst.age");
        format.content = Content::Raw;
        assert_eq!(format.to_string(), "raw.zst.age");
    }
}
