//! Whether a directory's file system shares blocks between files.

use std::io::{self, Write as _};
use std::path::Path;

use super::{Attempt as _, Failed, files};

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

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::EXDEV | libc::EISDIR)
    )
}
