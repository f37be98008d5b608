//! What tar wants to know of something found: its metadata, its attributes, where it has holes.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{
    FileType, Mode, OFlags, SeekFrom, Stat, lgetxattr, llistxattr, major, minor, openat,
    readlinkat, seek,
};
use rustix::io::Errno;

use super::walk::Found;
use crate::acl;
use crate::entry::{Device, Extent, LABEL, Metadata, Time, Xattr};

/// The most bytes that a list of attributes, or one of them, has (xattr(7)).
const XATTR_MAX: usize = 64 << 10;

/// Bytes of memory that an [`Inspection`] takes.
pub(super) const MEMORY: u64 = 2 * XATTR_MAX as u64;

/// Looks at one thing after the other, with the same buffers.
pub(super) struct Inspection {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Inspection {
    pub(super) fn new() -> Self {
        Self {
            names: vec![0; XATTR_MAX],
            value: vec![0; XATTR_MAX],
        }
    }

    /// Everything but kind and content.
    pub(super) fn metadata(&mut self, found: &Found) -> Result<Metadata, Errno> {
        let Stat {
            st_mode,
            st_uid,
            st_gid,
            st_mtime,
            st_mtime_nsec,
            ..
        } = found.stat;
        Ok(Metadata {
            mode: st_mode & 0o7777,
            uid: st_uid,
            gid: st_gid,
            modified: Time {
                seconds: st_mtime,
                // Below a milliard.
                nanoseconds: u32::try_from(st_mtime_nsec).unwrap_or_default(),
            },
            // Reading changes it, and the same tree shall give the same archive.
            accessed: None,
            xattrs: self.xattrs(found)?,
        })
    }

    /// The attributes in the order of their names.
    fn xattrs(&mut self, found: &Found) -> Result<Vec<Xattr>, Errno> {
        // There is no call that takes a directory and a name; this is how to spell one.
        let directory = format!("/proc/self/fd/{}/", found.parent.as_raw_fd());
        let spelled = [directory.as_bytes(), &found.name].concat();
        let length = match llistxattr(spelled.as_slice(), &mut self.names[..]) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut xattrs = Vec::new();
        for name in self.names[..length].split(|byte| *byte == 0) {
            let acl = name == acl::ACCESS || name == acl::DEFAULT;
            // A label is the policy of the node where a file is, and XFS shows an ACL a second time.
            let left_out = name == LABEL || name.starts_with(b"trusted.SGI_ACL_");
            if name.is_empty() || left_out || (name.starts_with(b"system.") && !acl) {
                continue;
            }
            let length = lgetxattr(spelled.as_slice(), name, &mut self.value[..])?;
            xattrs.push(Xattr {
                name: name.to_vec(),
                value: self.value[..length].to_vec(),
            });
        }
        xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(xattrs)
    }
}

/// Where a link points.
pub(super) fn target(found: &Found) -> Result<Vec<u8>, Errno> {
    readlinkat(&found.parent, found.name.as_slice(), Vec::new()).map(std::ffi::CString::into_bytes)
}

/// Which device a node is for.
pub(super) fn device(found: &Found) -> Device {
    Device {
        major: major(found.stat.st_rdev),
        minor: minor(found.stat.st_rdev),
    }
}

/// Opens a regular file, without waiting for anything if it is none any more.
pub(super) fn open(found: &Found) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(&found.parent, found.name.as_slice(), flags, Mode::empty())
}

/// Whether a file is still the one that was found, as it was.
pub(super) fn is_unchanged(before: &Stat, now: &Stat) -> bool {
    let of = |stat: &Stat| {
        (
            (stat.st_dev, stat.st_ino, stat.st_size),
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        )
    };
    FileType::from_raw_mode(now.st_mode) == FileType::RegularFile && of(before) == of(now)
}

/// The data of a file that has holes; none of one that has not.
pub(super) fn extents(file: &OwnedFd, stat: &Stat) -> Result<Option<Vec<Extent>>, Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let allocated = u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
    if allocated >= size {
        return Ok(None);
    }
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size {
        let offset = match seek(file.as_fd(), SeekFrom::Data(position)) {
            Ok(offset) => offset.min(size),
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        let end = seek(file.as_fd(), SeekFrom::Hole(offset))?.min(size);
        if end > offset {
            let length = end - offset;
            extents.push(Extent { offset, length });
        }
        position = end.max(offset + 1);
    }
    let whole = [Extent {
        offset: 0,
        length: size,
    }];
    Ok((extents != whole).then_some(extents))
}
