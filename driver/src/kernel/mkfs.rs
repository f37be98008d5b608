//! Making file systems, by the tools of e2fsprogs and xfsprogs.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum MkfsError {
    /// The tool is not installed.
    #[error("{0} is not installed; the driver needs e2fsprogs and xfsprogs")]
    Missing(&'static str),
    /// The tool did not start.
    #[error("cannot run {tool}: {source}")]
    Start {
        /// Its name.
        tool: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The tool gave up.
    #[error("{tool} failed on {target}: {complaint}")]
    Failed {
        /// Its name.
        tool: &'static str,
        /// What it was to work on.
        target: String,
        /// What it said.
        complaint: String,
    },
}

/// Makes ext4 on a device that reads as zeros from end to end.
///
/// Told so, mke2fs writes no inode tables and no journal, now or after the mount: milliseconds
/// and a few megabytes for any size, where 50 GiB would otherwise take 261 MiB of the pool. No
/// blocks are kept back for root, since the volume's user has asked for all of them.
pub fn ext4(device: &Path) -> Result<(), MkfsError> {
    let options = "assume_storage_prezeroed=1,nodiscard";
    run(
        "mkfs.ext4",
        device,
        &["-q", "-F", "-b", "4096", "-m", "0", "-E", options],
    )
}

/// Makes XFS on a device, without discarding it first.
pub fn xfs(device: &Path) -> Result<(), MkfsError> {
    run("mkfs.xfs", device, &["-q", "-f", "-K"])
}

/// Makes a pool's XFS, with reflinks and 4096-byte sectors, on a file or a device. It refuses,
/// in its own words, a target that carries the signature of anything.
pub fn xfs_pool(target: &Path, label: &str) -> Result<(), MkfsError> {
    let options = [
        "-q",
        "-K",
        "-s",
        "size=4096",
        "-m",
        "crc=1,reflink=1",
        "-L",
        label,
    ];
    run("mkfs.xfs", target, &options)
}

fn run(tool: &'static str, target: &Path, options: &[&str]) -> Result<(), MkfsError> {
    let output = Command::new(tool)
        .env("LC_ALL", "C")
        .args(options.iter().map(OsStr::new))
        .arg(target)
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => MkfsError::Missing(tool),
            _ => MkfsError::Start { tool, source },
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let complaint = said.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(MkfsError::Failed {
        tool,
        target: target.display().to_string(),
        complaint: format!(
            "{} ({})",
            complaint.collect::<Vec<_>>().join("; "),
            output.status
        ),
    })
}
