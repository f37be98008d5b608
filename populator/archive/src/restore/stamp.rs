//! What a checkpoint writes onto the root of a volume, so that its record is trusted only where the volume
//! holds what it covers: not on another one, and not on an older state of the same.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, StatxFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr, statx};
use rustix::io::Errno;

use crate::checkpoint::{Record, Volume};

const NAME: &str = "user.archive-restore";

/// A restore, and how many checkpoints it has taken or begun to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) nonce: String,
    pub(super) sequence: u64,
}

impl Stamp {
    /// The one on a root, if any.
    pub(super) fn read(root: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        let mut value = [0; 128];
        match fgetxattr(root, NAME, &mut value[..]) {
            Ok(length) => Ok(Self::parse(&value[..length])),
            Err(Errno::NODATA | Errno::RANGE) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (nonce, sequence) = str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self {
            nonce: nonce.to_owned(),
            sequence: sequence.parse().ok()?,
        })
    }

    pub(super) fn write(&self, root: BorrowedFd<'_>) -> Result<(), Errno> {
        let value = format!("{} {}", self.nonce, self.sequence);
        fsetxattr(root, NAME, value.as_bytes(), XattrFlags::empty())
    }

    pub(super) fn remove(root: BorrowedFd<'_>) -> Result<(), Errno> {
        match fremovexattr(root, NAME) {
            Err(Errno::NODATA) => Ok(()),
            other => other,
        }
    }
}

/// How the root of a volume is told from others of the same number.
pub(super) fn root(root: BorrowedFd<'_>) -> Result<(u64, Option<(i64, u32)>), Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let found = statx(root, c"", AtFlags::EMPTY_PATH, wanted)?;
    let born = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = born.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
    Ok((found.stx_ino, born))
}

/// Whether the volume with this root holds all that the record covers; or why not.
pub(super) fn holds(
    record: &Record,
    root: (u64, Option<(i64, u32)>),
    stamp: Option<&Stamp>,
    is_empty: bool,
) -> Result<(), &'static str> {
    let Volume { nonce, root: noted } = &record.volume;
    if *noted != root {
        return Err("it is of another directory");
    }
    if is_empty {
        return Err("the directory is empty");
    }
    match stamp {
        // The last thing that a restore does.
        None if record.ended => Ok(()),
        None => Err("the directory does not bear its stamp"),
        Some(stamp) if stamp.nonce != *nonce => {
            Err("the directory bears the stamp of another restore")
        }
        Some(stamp) if stamp.sequence < record.sequence => {
            Err("the directory is in a state from before it")
        }
        Some(_) => Ok(()),
    }
}
