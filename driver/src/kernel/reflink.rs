//! Files that share blocks: whether a file system has them, and making them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::IFlags;

use super::{Attempt as _, Failed, files, raw};

/// `BTRFS_SUPER_MAGIC`, statfs(2).
const BTRFS: u64 = 0x9123_683E;

/// In what pieces XFS places an image, in bytes: as large as it takes by itself for what is
/// written anew of what is shared.
const PIECE: u32 = 128 << 10;

/// Finds out by cloning a small file, not by the file system's name: XFS may be made without
/// reflinks, and others have learnt them. Leaves nothing behind, even when killed.
pub fn is_supported(directory: &Path) -> Result<bool, Failed> {
    let attempt = || format!("try a reflink in {}", directory.display());
    let mut source = match files::nameless(directory) {
        Ok(file) => file,
        // No file system with reflinks is without nameless files.
        Err(error) if is_unsupported(&error) => return Ok(false),
        Err(error) => return Err(Failed::new(attempt(), error)),
    };
    source.write_all(&[1; 4096]).attempt(attempt)?;
    source.sync_all().attempt(attempt)?;
    let clone = files::nameless(directory).attempt(attempt)?;
    match rustix::fs::ioctl_ficlone(&clone, &source) {
        Ok(()) => Ok(true),
        Err(error) if is_unsupported(&error.into()) => Ok(false),
        Err(error) => Err(Failed::new(attempt(), error)),
    }
}

/// Makes a new, empty file that is to be an image.
///
/// Left to itself, a file system gives each hole that is written to the next free block. A program
/// that appends and syncs has its file system write a block of data and a block of the journal in
/// turn, so both would lie in pieces of one block, thousands after seconds, and copying them would
/// take as long as for a large volume in use for years. In pieces of 128 KiB that is bounded, at
/// the price that small writes to distant places take that much each. Only XFS has to be told.
pub fn new_image(path: &Path) -> Result<File, Failed> {
    let attempt = || format!("make {}", path.display());
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let file = options.open(path).attempt(attempt)?;
    match raw::set_extent_size(&file, PIECE) {
        Err(error) if !is_unsupported(&error) => Err(Failed::new(attempt(), error)),
        _ => Ok(file),
    }
}

/// Makes the new file `target` with all that `source` has at this moment, copying none of it.
///
/// No write to the source takes effect while this runs, so the result is the source at one moment.
/// The time grows with the extents, not with the bytes. Durable only after a sync of the result.
pub fn copy(source: &Path, target: &Path) -> Result<File, Failed> {
    let from = File::open(source).attempt(|| format!("open {}", source.display()))?;
    let to = new_image(target)?;
    rustix::fs::ioctl_ficlone(&to, &from)
        .attempt(|| format!("clone {} to {}", source.display(), target.display()))?;
    Ok(to)
}

/// Has files that are made in the directory from now on be written in place, on btrfs, where they
/// would otherwise go elsewhere with every write: slower by far, and with a full image still in
/// need of space. What a snapshot shares is copied on write all the same. Elsewhere nothing is
/// done, and nothing needed.
pub fn write_in_place(directory: &Path) -> Result<(), Failed> {
    let attempt = || format!("turn off copy-on-write for {}", directory.display());
    if is_btrfs(directory)? {
        let open = File::open(directory).attempt(attempt)?;
        let flags = rustix::fs::ioctl_getflags(&open).attempt(attempt)?;
        rustix::fs::ioctl_setflags(&open, flags | IFlags::NOCOW).attempt(attempt)?;
    }
    Ok(())
}

/// Whether the directory lies on btrfs.
pub fn is_btrfs(directory: &Path) -> Result<bool, Failed> {
    let found = rustix::fs::statfs(directory)
        .attempt(|| format!("ask for the file system of {}", directory.display()))?;
    Ok(u64::try_from(found.f_type).is_ok_and(|it| it == BTRFS))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::EXDEV | libc::EISDIR)
    )
}
