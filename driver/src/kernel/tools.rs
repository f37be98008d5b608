//! The tools of e2fsprogs and xfsprogs: file systems are made, checked, grown and tuned by those
//! who know them best.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
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
pub fn make_ext4(device: &Path, options: &[String]) -> Result<(), ToolError> {
    let extended = "assume_storage_prezeroed=1,nodiscard";
    let own = ["-q", "-F", "-b", "4096", "-m", "0", "-E", extended];
    run("mkfs.ext4", device, &with(&own, options))
}

/// Makes XFS on a device, without discarding it first.
pub fn make_xfs(device: &Path, options: &[String]) -> Result<(), ToolError> {
    let own = ["-q", "-f", "-K"];
    run("mkfs.xfs", device, &with(&own, options))
}

fn with<'a>(own: &[&'a str], further: &'a [String]) -> Vec<&'a str> {
    let further = further.iter().map(String::as_str);
    own.iter().copied().chain(further).collect()
}

/// Checks an ext4 that is not mounted, and mends what can be mended without a loss. Fails when
/// more is needed.
pub fn check_ext4(device: &Path) -> Result<(), ToolError> {
    run("e2fsck", device, &["-p"])
}

/// Has an ext4 that is not mounted grow to its device's size. resize2fs(8) wants it checked in
/// full right before.
pub fn grow_ext4(device: &Path) -> Result<(), ToolError> {
    run("e2fsck", device, &["-f", "-p"])?;
    run("resize2fs", device, &[])
}

/// Keeps so many hundredths of an ext4, mounted or not, for root.
pub fn reserve_ext4(device: &Path, percent: u32) -> Result<(), ToolError> {
    run("tune2fs", device, &["-m", &percent.to_string()])
}

/// Has the XFS that is mounted at a directory grow to its device's size.
pub fn grow_xfs(point: &Path) -> Result<(), ToolError> {
    run("xfs_growfs", point, &["-d"])
}

/// Makes a pool's XFS, with reflinks and 4096-byte sectors, on a file or a device. It refuses,
/// in its own words, a target that carries the signature of anything.
pub fn make_xfs_pool(target: &Path, label: &str) -> Result<(), ToolError> {
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

fn run(tool: &'static str, target: &Path, options: &[&str]) -> Result<(), ToolError> {
    let output = Command::new(tool)
        .env("LC_ALL", "C")
        .args(options.iter().map(OsStr::new))
        .arg(target)
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ToolError::Missing(tool),
            _ => ToolError::Start { tool, source },
        })?;
    // e2fsck(8): 1 is "errors corrected".
    if output.status.success() || (tool == "e2fsck" && output.status.code() == Some(1)) {
        return Ok(());
    }
    // e2fsck says what it found on standard output.
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let complaint = said.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(ToolError::Failed {
        tool,
        target: target.display().to_string(),
        complaint: format!(
            "{} ({})",
            complaint.collect::<Vec<_>>().join("; "),
            output.status
        ),
    })
}
