//! The proof that a directory is the root of a mount, or a file a block device, before a byte is written
//! there.
//!
//! A publish that happened in some other mount namespace leaves a plain directory here: to write
//! into it would fill the node's own disk, and the volume would be handed out empty.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, fstat, openat,
};
use rustix::io::Errno;

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): a mount id that is never used again. An older kernel ignores
/// it, and answers with the other kind of id where that is asked for too.
const MOUNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Why nothing may be written.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The driver said that it published the volume, and there is no mount.
    #[error("nothing is mounted at {}", .0.display())]
    NotAMount(PathBuf),
    /// The driver said that it published the volume, and there is no device.
    #[error("there is no block device at {}", .0.display())]
    NotADevice(PathBuf),
    /// The kernel cannot tell mounts apart.
    #[error("this kernel does not tell mount ids (Linux 5.8 or newer does)")]
    KernelTooOld,
    /// It could not be looked at.
    #[error("{}: {source}", .path.display())]
    Look {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

/// Opens the directory `name` in `parent`, which must be the root of a mount of its own. All writing
/// goes through the descriptor, so a mount that goes away later cannot be missed: the descriptor
/// keeps it.
pub fn open_root(parent: &Path, name: &str) -> Result<OwnedFd, MountError> {
    let look = |source| MountError::Look {
        path: parent.join(name),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = openat(CWD, parent, flags, Mode::empty()).map_err(look)?;
    let root = openat(&above, name, flags, Mode::empty()).map_err(look)?;
    let (above, below) = (identity(&above, look)?, identity(&root, look)?);
    if below.root && above.mount != below.mount {
        Ok(root)
    } else {
        Err(MountError::NotAMount(parent.join(name)))
    }
}

/// Opens `name` in `parent`, which must be a block device that nothing else uses (open(2), `O_EXCL`),
/// for writing. A publish elsewhere leaves a plain file here, or nothing.
pub fn open_device(parent: &Path, name: &str) -> Result<OwnedFd, MountError> {
    let path = parent.join(name);
    // What is no device may be one that opening would wait for.
    let flags =
        OFlags::WRONLY | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(CWD, &path, flags, Mode::empty());
    let device = match opened {
        Err(Errno::ISDIR | Errno::NXIO | Errno::LOOP | Errno::NOENT) => {
            return Err(MountError::NotADevice(path));
        }
        Err(source) => return Err(MountError::Look { path, source }),
        Ok(device) => device,
    };
    match fstat(&device) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice => Ok(device),
        Ok(_) => Err(MountError::NotADevice(path)),
        Err(source) => Err(MountError::Look { path, source }),
    }
}

struct Identity {
    mount: u64,
    root: bool,
}

fn identity(
    directory: &OwnedFd,
    look: impl Fn(Errno) -> MountError,
) -> Result<Identity, MountError> {
    let wanted = StatxFlags::MNT_ID | MOUNT_ID_UNIQUE;
    let known =
        rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, wanted).map_err(
            |errno| match errno {
                Errno::NOSYS => MountError::KernelTooOld,
                errno => look(errno),
            },
        )?;
    let told = StatxFlags::from_bits_retain(known.stx_mask);
    let attribute = StatxAttributes::MOUNT_ROOT;
    if !told.intersects(wanted) || !known.stx_attributes_mask.contains(attribute) {
        return Err(MountError::KernelTooOld);
    }
    Ok(Identity {
        mount: known.stx_mnt_id,
        root: known.stx_attributes.contains(attribute),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_directory_or_a_link_is_no_mount() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plain")).unwrap();
        std::os::unix::fs::symlink("/proc", folder.path().join("link")).unwrap();
        let refused = open_root(folder.path(), "plain").unwrap_err();
        assert!(matches!(refused, MountError::NotAMount(_)), "{refused}");
        for name in ["link", "absent"] {
            let refused = open_root(folder.path(), name).unwrap_err();
            assert!(matches!(refused, MountError::Look { .. }), "{refused}");
        }
    }

    #[test]
    fn what_is_no_block_device_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir(path.join("directory")).unwrap();
        std::fs::write(path.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink("/dev/loop0", path.join("link")).unwrap();
        rustix::fs::mkfifoat(CWD, path.join("fifo"), Mode::RUSR).unwrap();
        for name in ["absent", "directory", "file", "link", "fifo"] {
            let refused = open_device(path, name).unwrap_err();
            assert!(
                matches!(refused, MountError::NotADevice(_)),
                "{name}: {refused}"
            );
        }
        let refused = open_device(Path::new("/dev"), "null").unwrap_err();
        assert!(matches!(refused, MountError::NotADevice(_)), "{refused}");
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"kept");
    }

    #[test]
    fn a_mount_is_one() {
        open_root(Path::new("/"), "proc").unwrap();
        let inside = open_root(Path::new("/proc"), "self").unwrap_err();
        assert!(matches!(inside, MountError::Look { .. }), "{inside}");
        let inside = open_root(Path::new("/proc"), "1").unwrap_err();
        assert!(matches!(inside, MountError::NotAMount(_)), "{inside}");
    }
}
