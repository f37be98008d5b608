//! Owners, modes, attributes and times, in the order in which none undoes another: chown clears
//! setuid and capabilities, chmod rewrites an ACL's mask, and everything but utimes touches times.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, fstat, fstatvfs, futimens, lsetxattr, statat, utimensat,
};
use rustix::io::Errno;

use crate::entry::{CAPABILITY, Metadata, Time, Xattr};
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
    set_xattrs(fd, metadata, path, lost, |xattr| {
        fsetxattr(fd, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())
    })?;
    futimens(fd, &times(metadata))?;
    check_time(metadata, path, lost, || fstat(fd))
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
    set_xattrs(parent, metadata, path, lost, |xattr| {
        lsetxattr(
            spelled.as_slice(),
            xattr.name.as_slice(),
            &xattr.value,
            XattrFlags::empty(),
        )
    })?;
    utimensat(parent, name, &times(metadata), itself)?;
    check_time(metadata, path, lost, || statat(parent, name, itself))
}

/// Sets the attributes, capabilities last. One that the file system does not take is a loss, not a
/// failure; a volume that is full is one. `on` is anything on the volume.
fn set_xattrs(
    on: BorrowedFd<'_>,
    metadata: &Metadata,
    path: &[u8],
    lost: &mut Losses,
    set: impl Fn(&Xattr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let is_capability = |xattr: &&Xattr| xattr.name == CAPABILITY;
    let (capabilities, others): (Vec<_>, Vec<_>) = metadata.xattrs.iter().partition(is_capability);
    for xattr in others.into_iter().chain(capabilities) {
        match set(xattr) {
            Ok(()) => {}
            Err(errno @ (Errno::IO | Errno::ROFS | Errno::DQUOT)) => return Err(errno),
            // ext4 says so too of a value that does not fit into one block, wherever there is room.
            Err(Errno::NOSPC) if is_full(on)? => return Err(Errno::NOSPC),
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

/// Whether the volume has no more than what ext4 always keeps back.
fn is_full(on: BorrowedFd<'_>) -> Result<bool, Errno> {
    let found = fstatvfs(on)?;
    Ok(found.f_bfree <= (found.f_blocks / 50).min(4096) + 16)
}

/// Counts a time that the file system cannot keep: it takes the nearest that it can, and says nothing.
fn check_time(
    metadata: &Metadata,
    path: &[u8],
    lost: &mut Losses,
    look: impl Fn() -> Result<Stat, Errno>,
) -> Result<(), Errno> {
    let wanted = metadata.modified.seconds;
    // All file systems have these; looking at every file would cost a call for each.
    if !(0..=i64::from(i32::MAX)).contains(&wanted) && look()?.st_mtime != wanted {
        lost.add("time beyond what the file system keeps", path);
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
