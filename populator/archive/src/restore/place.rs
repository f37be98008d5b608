//! Where an entry goes: a directory and the name in it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::entry::Kind;
use crate::error::RestoreError;

/// Where an entry goes.
pub(super) struct Place<'a> {
    pub(super) parent: &'a Arc<OwnedFd>,
    pub(super) name: &'a [u8],
    /// The whole name, for messages.
    pub(super) shown: &'a [u8],
}

impl<'a> Place<'a> {
    pub(super) fn failed(&self, doing: &'static str) -> impl Fn(Errno) -> RestoreError + use<'a> {
        let shown = self.shown;
        move |errno| RestoreError::volume(doing, shown, errno)
    }

    /// Makes a new file, which must not be there.
    pub(super) fn create(&self) -> Result<OwnedFd, Errno> {
        const NEW: OFlags = OFlags::WRONLY
            .union(OFlags::CREATE)
            .union(OFlags::EXCL)
            .union(OFlags::NOFOLLOW)
            .union(OFlags::CLOEXEC);
        openat(self.parent, self.name, NEW, Mode::RUSR | Mode::WUSR)
    }

    pub(super) fn file_type(&self) -> Result<FileType, Errno> {
        let found = statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(found.st_mode))
    }

    /// Whether the name is taken by what stays: anything but a directory for a directory.
    pub(super) fn is_kept(&self, kind: &Kind) -> Result<bool, RestoreError> {
        match self.file_type() {
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("looking at")(errno)),
            Ok(found) => Ok((found, kind) != (FileType::Directory, &Kind::Directory)),
        }
    }

    /// What tells one file from all others.
    pub(super) fn identity(&self) -> Result<(u64, u64), Errno> {
        let found = statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((found.st_dev, found.st_ino))
    }
}
