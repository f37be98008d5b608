//! Making a volume as good as new that was not made for the attempt that fills it.
//!
//! The agent makes another one, where it can. A volume that its driver's own provisioner made is the only
//! one that there is: what an earlier attempt has left in it goes, and nothing is taken for granted of
//! the bytes of a device.

use std::fs::{self, DirEntry};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::attempt::Target;
use super::failure::AttemptError;

/// What mkfs.ext4 makes. The archive engine takes a volume with it for an empty one.
const LOST_AND_FOUND: &str = "lost+found";

/// Bytes of a device that are zeroed at a time.
const PIECE: u64 = 64 << 20;

/// What a volume is rid of before it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptied {
    /// Nothing: it was made for this attempt, or is gone on with.
    Not,
    /// A device of what its blocks held before they were its own: the holes of an image are not written.
    OfOldBlocks,
    /// All of it: an earlier attempt has written there.
    OfAll,
}

impl Emptied {
    /// The target, rid of that.
    pub(super) async fn applied(
        self,
        target: Target,
        cancel: &CancellationToken,
    ) -> Result<Target, AttemptError> {
        if self == Self::Not {
            return Ok(target);
        }
        let emptying = cancel.clone();
        let done = tokio::task::spawn_blocking(move || {
            match (self, &target) {
                (Self::Not, _) | (Self::OfOldBlocks, Target::Directory(_)) => Ok(()),
                (Self::OfAll, Target::Directory(root)) => clear(root, &emptying),
                (Self::OfOldBlocks | Self::OfAll, Target::Device(device)) => {
                    zero(device, &emptying)
                }
            }
            .map(|()| target)
        });
        match done.await? {
            Err(_) if cancel.is_cancelled() => Err(AttemptError::Cancelled),
            done => done.map_err(AttemptError::Emptying),
        }
    }
}

fn unless_cancelled(cancel: &CancellationToken) -> io::Result<()> {
    if cancel.is_cancelled() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

/// Removes all that is in a directory, and the extended attributes of itself: a default ACL among them
/// would pass to all that is made there.
fn clear(root: &OwnedFd, cancel: &CancellationToken) -> io::Result<()> {
    // The way through the descriptor is the volume's, whatever is mounted where by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    for entry in fs::read_dir(&path)? {
        let entry = entry?;
        if entry.file_name() == LOST_AND_FOUND && entry.file_type()?.is_dir() {
            clear_below(&entry.path(), cancel)?;
        } else {
            remove(&entry, cancel)?;
        }
    }
    for name in attributes(root)? {
        match rustix::fs::fremovexattr(root, &*name) {
            // One that the kernel or a security module keeps is not the archive's.
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn clear_below(folder: &Path, cancel: &CancellationToken) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        remove(&entry?, cancel)?;
    }
    Ok(())
}

/// Links are removed, never followed: nobody else makes any here.
fn remove(entry: &DirEntry, cancel: &CancellationToken) -> io::Result<()> {
    unless_cancelled(cancel)?;
    if entry.file_type()?.is_dir() {
        clear_below(&entry.path(), cancel)?;
        fs::remove_dir(entry.path())
    } else {
        fs::remove_file(entry.path())
    }
}

fn attributes(file: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names
        .filter_map(|name| String::from_utf8(name.to_vec()).ok())
        .filter(|name| !name.starts_with("security.selinux"))
        .collect())
}

/// Has a device read as zeros from end to end: at once where it can discard, else by writing.
fn zero(device: &OwnedFd, cancel: &CancellationToken) -> io::Result<()> {
    let length = rustix::fs::seek(device, SeekFrom::End(0))?;
    rustix::fs::seek(device, SeekFrom::Start(0))?;
    let mut way = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut offset = 0;
    while offset < length {
        unless_cancelled(cancel)?;
        let piece = PIECE.min(length - offset);
        match rustix::fs::fallocate(device, way, offset, piece) {
            Ok(()) => offset += piece,
            Err(Errno::OPNOTSUPP) if way.contains(FallocateFlags::PUNCH_HOLE) => {
                way = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_but_lost_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let root = folder.path();
        for path in ["a/b/c", "lost+found/#12"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("a/b/file"), "x").unwrap();
        fs::write(root.join("lost+found/#13"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("a/link")).unwrap();
        let opened = OwnedFd::from(fs::File::open(root).unwrap());
        let marked =
            rustix::fs::fsetxattr(&opened, "user.mark", b"1", rustix::fs::XattrFlags::empty());
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert!(clear(&opened, &cancelled).is_err());
        clear(&opened, &CancellationToken::new()).unwrap();
        let left: Vec<_> = fs::read_dir(root).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::read_dir(root.join("lost+found")).unwrap().count(), 0);
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
        if marked.is_ok() {
            assert_eq!(attributes(&opened).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_zeroed_reads_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![7; 100_000], 0).unwrap();
        let file = OwnedFd::from(file);
        zero(&file, &CancellationToken::new()).unwrap();
        let mut read = vec![1; 100_000];
        std::os::unix::fs::FileExt::read_exact_at(&fs::File::from(file), &mut read, 0).unwrap();
        assert!(read.iter().all(|byte| *byte == 0));
    }
}
