//! Which file system lies on a device or in a file, by its superblock.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Attempt as _, Failed};

/// Enough of the beginning for the superblocks of ext4 (at 1024) and XFS (at 0).
const HEAD: usize = 4096;

/// What the beginning of a device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Superblock {
    /// ext4, or one of its forebears.
    Ext4 {
        /// How much of the device it takes, in bytes.
        size: u64,
        /// Whether the kernel found errors in it that nobody has mended yet.
        errors: bool,
    },
    /// XFS.
    Xfs {
        /// Up to 12 characters; may be empty.
        label: String,
        /// How much of the device it takes, in bytes.
        size: u64,
    },
    /// Neither: another file system, or data, or nothing.
    Unknown,
}

impl Superblock {
    /// How much of the device the file system takes, in bytes; nothing where there is none.
    pub fn size(&self) -> u64 {
        match self {
            Self::Ext4 { size, .. } | Self::Xfs { size, .. } => *size,
            Self::Unknown => 0,
        }
    }
}

/// Reads the superblock of the device or file at `path`, as it is on the disk: while a file system
/// is mounted, its own changes go past what the kernel keeps of its device for other readers.
pub fn read(path: &Path) -> Result<Superblock, Failed> {
    let mut head = [0; HEAD];
    let read = File::open(path).and_then(|file| {
        let length = NonZeroU64::new(HEAD as u64);
        rustix::fs::fadvise(&file, 0, length, rustix::fs::Advice::DontNeed)?;
        file.read_exact_at(&mut head, 0)
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Superblock::Unknown),
        result => {
            result.attempt(|| format!("read the superblock of {}", path.display()))?;
            Ok(parse(&head))
        }
    }
}

/// Offsets from `struct ext4_super_block` (1024 bytes from the beginning, little-endian) and
/// `struct xfs_dsb` (big-endian).
fn parse(head: &[u8; HEAD]) -> Superblock {
    if head.starts_with(b"XFSB") {
        let label = head[108..120]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let block = u64::from(u32::from_be_bytes(array(head, 4)));
        let blocks = u64::from_be_bytes(array(head, 8));
        Superblock::Xfs {
            label: String::from_utf8_lossy(label).into_owned(),
            size: blocks.saturating_mul(block),
        }
    } else if head[1080..1082] == [0x53, 0xEF] {
        let number = |offset: usize| u64::from(u32::from_le_bytes(array(head, 1024 + offset)));
        let blocks = number(0x4) | number(0x150) << 32;
        let block = 1024_u64.checked_shl(u32::from_le_bytes(array(head, 1024 + 0x18)));
        let state = u16::from_le_bytes(array(head, 1024 + 0x3A));
        Superblock::Ext4 {
            size: blocks.saturating_mul(block.unwrap_or(0)),
            errors: state & 0x2 != 0,
        }
    } else {
        Superblock::Unknown
    }
}

fn array<const N: usize>(head: &[u8; HEAD], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[offset..offset + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magics_sizes_and_labels_are_found_where_the_formats_put_them() {
        let mut head = [0; HEAD];
        assert_eq!(parse(&head), Superblock::Unknown);
        head[1080..1082].copy_from_slice(&0xEF53_u16.to_le_bytes());
        head[1028..1032].copy_from_slice(&25_600_u32.to_le_bytes());
        head[1048] = 2;
        let size = 25_600 * 4096;
        let ext4 = |errors| Superblock::Ext4 { size, errors };
        assert_eq!(parse(&head), ext4(false));
        head[1082] = 3;
        assert_eq!(parse(&head), ext4(true));
        head[..4].copy_from_slice(b"XFSB");
        head[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        head[8..16].copy_from_slice(&100_u64.to_be_bytes());
        head[108..120].copy_from_slice(b"fastcopypool");
        let label = "fastcopypool".into();
        assert_eq!(
            parse(&head),
            Superblock::Xfs {
                label,
                size: 409_600
            }
        );
    }
}
