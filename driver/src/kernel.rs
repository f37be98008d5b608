//! What the driver asks of Linux: loop devices, mounts, freezes, extents, reflinks, file
//! systems' tools, durable files.
//!
//! Nothing here knows of CSI, of pools or of volumes. All calls block.

use std::fmt;
use std::io;

pub mod extents;
pub mod files;
mod free_loop_device;
pub mod freezing;
pub mod limits;
pub mod loop_device;
pub mod mount_table;
pub mod mounting;
mod raw;
pub mod reflink;
pub mod superblock;
pub mod tools;

/// Something that Linux refused, in words: what was tried, on what, and the system's reason.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct Failed {
    attempt: String,
    source: io::Error,
}

impl Failed {
    /// `attempt` goes on after "cannot": `open /dev/loop0`.
    pub fn new(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            attempt: attempt.into(),
            source: source.into(),
        }
    }

    /// The kind of the system's reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Says what was tried when a call fails.
pub trait Attempt<T> {
    /// `attempt` goes on after "cannot", and is called only in that case.
    fn attempt<S: Into<String>>(self, attempt: impl FnOnce() -> S) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt<S: Into<String>>(self, attempt: impl FnOnce() -> S) -> Result<T, Failed> {
        self.map_err(|source| Failed::new(attempt(), source))
    }
}

/// The number of a device: a block device's own, or that of the device a file system lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// The driver's number.
    pub major: u32,
    /// The number among that driver's devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// From the form of sysfs and of the mount table: `7:3`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim_end().split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// From `st_dev` or `st_rdev` as the C library packs them.
    pub fn from_dev(dev: u64) -> Self {
        Self {
            major: rustix::fs::major(dev),
            minor: rustix::fs::minor(dev),
        }
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}
