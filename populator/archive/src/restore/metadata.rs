//! Owners, modes, attributes and times, in the order in which none undoes another: chown clears
//! setuid and capabilities, chmod rewrites an ACL's mask, and everything but utimes touches times.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use crate::entry::{Metadata, Time, Xattr};
use crate::outcome::Losses;

/// Applies everything to an open file or directory.
pub(super) fn apply(
    fd: BorrowedFd<'_>,
    metadata: &Metadata,
    path: &[u8],
    lost: &mut Losses,
) -> Result<(), Errno> {
    fchown(
        fd,
        Some(Uid::from_raw(metadata.uid)),
        Some(Gid::from_raw(metadata.gid)),
    )?;
    fchmod(fd, Mode::from_raw_mode(metadata.mode))?;
    set_xattrs(metadata, path, lost, |xattr| {
        fsetxattr(fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
    })?;
    futimens(fd, &times(metadata))
}

/// Applies everything to what must not be opened: a link (which has no mode), a fifo, a device.
pub(super) fn apply_at(
    parent: BorrowedFd<'_>,
    name: &[u8],
    metadata: &Metadata,
    is_link: bool,
    path: &[u8],
    lost: &mut Losses,
) -> Result<(), Errno> {
    let itself = AtFlags::SYMLINK_NOFOLLOW;
    chownat(
        parent,
        name,
        Some(Uid::from_raw(metadata.uid)),
        Some(Gid::from_raw(metadata.gid)),
        itself,
    )?;
    if !is_link {
        // Just made under a name that was free, and nobody else is at work here: it is no link.
        chmodat(
            parent,
            name,
            Mode::from_raw_mode(metadata.mode),
            AtFlags::empty(),
        )?;
    }
    // There is no call that takes a directory and a name; this is how to spell one.
    let directory = format!("/proc/self/fd/{}/", parent.as_raw_fd());
    let spelled = [directory.as_bytes(), name].concat();
    set_xattrs(metadata, path, lost, |xattr| {
        lsetxattr(
            spelled.as_slice(),
            xattr.name.as_slice(),
            &xattr.value,
            XattrFlags::empty(),
        )
    })?;
    utimensat(parent, name, &times(metadata), itself)
}

/// Sets the attributes, capabilities last. One that the file system does not take is a loss, not a
/// failure.
fn set_xattrs(
    metadata: &Metadata,
    path: &[u8],
    lost: &mut Losses,
    set: impl Fn(&Xattr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let is_capability = |xattr: &&Xattr| xattr.name == b"security.capability";
    let (capabilities, others): (Vec<_>, Vec<_>) = metadata.xattrs.iter().partition(is_capability);
    for xattr in others.into_iter().chain(capabilities) {
        match set(xattr) {
            Ok(()) => {}
            Err(errno @ (Errno::IO | Errno::ROFS | Errno::DQUOT)) => return Err(errno),
            // NOSPC too: ext4 says so of a value that does not fit into one block.
            Err(_) => {
                let namespace = xattr
                    .name
                    .split(|byte| *byte == b'.')
                    .next()
                    .unwrap_or_default();
                let namespace = String::from_utf8_lossy(&namespace[..namespace.len().min(16)]);
                lost.add(&format!("xattr {}", namespace.escape_default()), path);
            }
        }
    }
    Ok(())
}

fn times(metadata: &Metadata) -> Timestamps {
    let spec = |time: Time| Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    let untouched = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: metadata.accessed.map_or(untouched, spec),
        last_modification: spec(metadata.modified),
    }
}
