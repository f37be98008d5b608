//! What there can be so many of and no more.

use std::io;

use super::{Attempt as _, Failed};

const MOUNT_MAX: &str = "/proc/sys/fs/mount-max";

/// How many mounts a mount namespace can have.
pub fn mounts() -> Result<u64, Failed> {
    let attempt = || format!("read {MOUNT_MAX}");
    let text = std::fs::read_to_string(MOUNT_MAX).attempt(attempt)?;
    text.trim()
        .parse()
        .map_err(io::Error::other)
        .attempt(attempt)
}
