//! Mounting and unmounting, by the kernel's newer interface: a mount has all its attributes
//! before anybody can see it, and a refusal comes with the file system's own words.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::thread::CapabilitySet;

use super::{Attempt as _, DeviceNumber, Failed, raw};

pub use options::{MountOptions, OptionError};

mod options;

/// How long a mount may be busy with some passer-by who asks for its space.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(1);

/// Why something is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The file system refused its device or an option.
    #[error("cannot mount {device} at {target}: {reason}{words}")]
    Refused {
        /// What was to be mounted.
        device: String,
        /// Where.
        target: String,
        /// The error number, in words.
        reason: Errno,
        /// What the file system said, with a colon before it; or nothing.
        words: String,
    },
    /// What lies at the source is not what was to be shown at the target.
    #[error("{path} is on device {found}, not on {expected}")]
    Mismatch {
        /// The source.
        path: String,
        /// Its device.
        found: DeviceNumber,
        /// The device it should be on.
        expected: DeviceNumber,
    },
}

/// Mounts the file system of a device at a directory.
pub fn mount_device(
    device: &Path,
    file_system: &str,
    target: &Path,
    options: &MountOptions,
) -> Result<(), MountError> {
    let directory = open_directory(target)?;
    let context = rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)
        .attempt(|| format!("use {file_system}; is the kernel module there?"))?;
    let mount = configure(&context, device, options).map_err(|reason| MountError::Refused {
        device: device.display().to_string(),
        target: target.display().to_string(),
        reason,
        words: words(context),
    })?;
    attach(&mount, &directory).attempt(|| format!("mount at {}", target.display()))?;
    Ok(())
}

fn configure(context: &OwnedFd, device: &Path, options: &MountOptions) -> Result<OwnedFd, Errno> {
    rustix::mount::fsconfig_set_string(context, "source", device)?;
    for (key, value) in &options.file_system {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(context, key)?,
        }
    }
    rustix::mount::fsconfig_create(context)?;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
}

/// What the file system said while it was being configured: lines such as
/// `e ext4: Unknown parameter 'x'`.
fn words(context: OwnedFd) -> String {
    let mut context = File::from(context);
    let mut buffer = [0; 1024];
    let mut words = String::new();
    while let Ok(length @ 1..) = context.read(&mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        words.push_str(": ");
        words.push_str(
            line.trim_end()
                .trim_start_matches(['e', 'w', 'i'])
                .trim_start(),
        );
    }
    words
}

/// Shows the directory `source`, which must be on device `expected`, at the directory `target`
/// as well, with just these attributes.
pub fn bind(
    source: &Path,
    expected: DeviceNumber,
    target: &Path,
    attributes: MountAttrFlags,
) -> Result<(), MountError> {
    let from = open_directory(source)?;
    let onto = open_directory(target)?;
    let attempt = || format!("bind {} to {}", source.display(), target.display());
    let found = rustix::fs::fstat(&from).attempt(attempt)?.st_dev;
    matching(source, DeviceNumber::from_dev(found), expected)?;
    let copy = copy_of_mount(&from).attempt(attempt)?;
    // The kernel clears before it sets, and wants the access time's bits cleared all together.
    let all = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR__ATIME
        | MountAttrFlags::MOUNT_ATTR_NODIRATIME
        | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
    raw::set_mount_attributes(&copy, attributes.bits().into(), all.bits().into())
        .attempt(attempt)?;
    attach(&copy, &onto).attempt(attempt)?;
    Ok(())
}

/// Shows a device's node, which must be that of device `expected`, at the file `target` as well.
pub fn bind_node(node: &Path, expected: DeviceNumber, target: &Path) -> Result<(), MountError> {
    let from = open_path(node, OFlags::empty())?;
    let onto = open_path(target, OFlags::empty())?;
    let attempt = || format!("bind {} to {}", node.display(), target.display());
    let found = rustix::fs::fstat(&from).attempt(attempt)?.st_rdev;
    matching(node, DeviceNumber::from_dev(found), expected)?;
    let copy = copy_of_mount(&from).attempt(attempt)?;
    attach(&copy, &onto).attempt(attempt)?;
    Ok(())
}

fn matching(path: &Path, found: DeviceNumber, expected: DeviceNumber) -> Result<(), MountError> {
    if found == expected {
        return Ok(());
    }
    Err(MountError::Mismatch {
        path: path.display().to_string(),
        found,
        expected,
    })
}

/// What is at an open file or directory, as a mount of its own that is nowhere yet.
fn copy_of_mount(from: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(from, "", flags)
}

/// How often XFS tries again to write metadata that its device refuses.
const XFS_RETRIES: &str = "5";

/// Has the XFS that is mounted from a device shut itself down when the device goes on failing.
///
/// Left to itself it tries again for ever, and whoever freezes it waits as long, out of reach of
/// any signal.
pub fn end_retries(device: &Path) -> Result<(), Failed> {
    let name = device.file_name().unwrap_or_default();
    let path = Path::new("/sys/fs/xfs")
        .join(name)
        .join("error/metadata/EIO/max_retries");
    std::fs::write(&path, XFS_RETRIES).attempt(|| format!("write to {}", path.display()))
}

/// Whether this process may have a mounted ext4 grow: the kernel wants `CAP_SYS_RESOURCE` for it,
/// which privileged containers mostly have.
pub fn can_grow_ext4() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Has the mounted ext4 at a directory grow to so many bytes.
pub fn grow_ext4(point: &Path, size: u64) -> Result<(), Failed> {
    File::open(point)
        .and_then(|directory| raw::ext4_resize(directory, size / 4096))
        .attempt(|| format!("grow the file system at {}", point.display()))
}

/// Ends what is mounted at `target`, the topmost where several lie on one another. Never lazily:
/// when this returns, the mount is gone from this namespace and from all that it spread to.
pub fn unmount(target: &Path) -> Result<(), Failed> {
    let deadline = Instant::now() + UNMOUNT_PATIENCE;
    loop {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result.attempt(|| format!("unmount {}", target.display())),
        }
    }
}

/// The directory itself, held: a link that takes its place later is not followed.
fn open_directory(path: &Path) -> Result<OwnedFd, Failed> {
    open_path(path, OFlags::DIRECTORY)
}

fn open_path(path: &Path, further: OFlags) -> Result<OwnedFd, Failed> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | further;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .attempt(|| format!("open {}", path.display()))
}

fn attach(mount: impl AsFd, directory: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", directory, "", flags)
}
