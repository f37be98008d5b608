//! Which file system lies on a device or in a file, by its superblock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Attempt as _, Failed};

/// Enough of the beginning for the superblocks of ext4 (at 1024) and XFS (at 0).
const HEAD: usize = 4096;

/// What the beginning of a device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Superblock {
    /// ext4, or one of its forebears.
    Ext4,
    /// XFS with this label, which may be empty.
    Xfs {
        /// Up to 12 characters.
        label: String,
    },
    /// Neither: another file system, or data, or nothing.
    Unknown,
}

/// Reads the superblock of the device or file at `path`.
pub fn read(path: &Path) -> Result<Superblock, Failed> {
    let mut head = [0; HEAD];
    match File::open(path).and_then(|file| file.read_exact_at(&mut head, 0)) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Superblock::Unknown),
        result => {
            result.attempt(|| format!("read the superblock of {}", path.display()))?;
            Ok(parse(&head))
        }
    }
}

fn parse(head: &[u8; HEAD]) -> Superblock {
    if head.starts_with(b"XFSB") {
        let label = head[108..120]
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        Superblock::Xfs {
            label: String::from_utf8_lossy(label).into_owned(),
        }
    } else if head[1080..1082] == [0x53, 0xEF] {
        Superblock::Ext4
    } else {
        Superblock::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magics_and_labels_are_found_where_the_formats_put_them() {
        let mut head = [0; HEAD];
        assert_eq!(parse(&head), Superblock::Unknown);
        head[1080..1082].copy_from_slice(&0xEF53_u16.to_le_bytes());
        assert_eq!(parse(&head), Superblock::Ext4);
        head[..4].copy_from_slice(b"XFSB");
        assert_eq!(
            parse(&head),
            Superblock::Xfs {
                label: String::new()
            }
        );
        head[108..120].copy_from_slice(b"fastcopypool");
        assert_eq!(
            parse(&head),
            Superblock::Xfs {
                label: "fastcopypool".into()
            }
        );
    }
}
