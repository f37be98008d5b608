//! The directory that a restore fills: nothing is ever opened or made outside it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, mkdirat, openat,
    openat2, syncfs, unlinkat,
};
use rustix::io::Errno;

use crate::error::{RestoreError, printable};
use crate::options::{Existing, Options};

/// Directories that are kept open: several restores share the 1024 descriptors that a process often
/// has.
const OPEN_MAX: usize = 64;

/// What mkfs leaves in an empty volume.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Every step of every path is resolved under these: never upwards, never through a link, never into
/// what is mounted there.
const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The root and the directories beneath it that were used last.
pub(super) struct Root {
    fd: Arc<OwnedFd>,
    open: HashMap<Vec<u8>, Arc<OwnedFd>>,
    /// Who owns directories that the archive does not mention, if not this process.
    owner: Option<(Uid, Gid)>,
    /// Whether an attempt before may have left a directory half made.
    resumed: bool,
}

impl Root {
    /// Takes a directory, an empty one unless the options allow files that exist, or what is there is of an
    /// attempt before, which is resumed.
    pub(super) fn new(
        directory: BorrowedFd<'_>,
        options: &Options,
        resumed: bool,
    ) -> Result<Self, RestoreError> {
        // A description of its own: write errors from now on are reported to its syncfs.
        let fd = openat(directory, c".", DIRECTORY, Mode::empty())
            .map_err(|errno| failed("opening the volume's root", errno))?;
        let first = first_name(&fd)?;
        if let (Existing::Refuse, false, Some(name)) = (options.existing, resumed, first) {
            return Err(RestoreError::VolumeNotEmpty {
                name: printable(&name),
            });
        }
        let owner = options.ownership.of_the_unmentioned();
        Ok(Self {
            fd: Arc::new(fd),
            open: HashMap::new(),
            owner: owner.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid))),
            resumed,
        })
    }

    /// Whether a directory has nothing in it.
    pub(super) fn is_empty(directory: BorrowedFd<'_>) -> Result<bool, RestoreError> {
        Ok(first_name(directory)?.is_none())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory at `path`, opened. Missing ones on the way are made, as tar does.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        self.walk(path, true)
    }

    /// The directory at `path`, opened, if it is there.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        self.walk(path, false)
    }

    fn walk(&mut self, path: &[u8], make: bool) -> Result<Arc<OwnedFd>, Errno> {
        let (mut fd, mut at) = self.nearest(path);
        // One step at a time: a path may be longer than the kernel takes at once.
        while at < path.len() {
            let start = if at == 0 { 0 } else { at + 1 };
            let end = path[start..].iter().position(|byte| *byte == b'/');
            let end = end.map_or(path.len(), |length| start + length);
            fd = Arc::new(self.step(&fd, &path[start..end], make)?);
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            self.open.insert(path[..end].to_vec(), Arc::clone(&fd));
            at = end;
        }
        Ok(fd)
    }

    fn step(&self, parent: &OwnedFd, name: &[u8], make: bool) -> Result<OwnedFd, Errno> {
        let open = || openat2(parent, name, DIRECTORY, Mode::empty(), CONFINED);
        match open() {
            Err(Errno::NOENT) if make => mkdirat(parent, name, Mode::RWXU)?,
            // As it is between the calls here; if the archive mentions it, the rest follows at the end.
            Ok(found) if make && self.resumed && fstat(&found)?.st_mode & 0o7777 == 0o700 => {}
            other => return other,
        }
        let made = open()?;
        // What tar gives a directory that the archive does not mention, whatever the umask is.
        if let Some((uid, gid)) = self.owner {
            fchown(&made, Some(uid), Some(gid))?;
        }
        fchmod(&made, Mode::from_raw_mode(0o755))?;
        Ok(made)
    }

    /// The longest part of `path` that is open, and its length.
    fn nearest(&self, path: &[u8]) -> (Arc<OwnedFd>, usize) {
        let mut length = path.len();
        while length > 0 {
            if let Some(fd) = self.open.get(&path[..length]) {
                return (Arc::clone(fd), length);
            }
            length = path[..length]
                .iter()
                .rposition(|byte| *byte == b'/')
                .unwrap_or(0);
        }
        (Arc::clone(&self.fd), 0)
    }

    /// [`remove`]s what an earlier entry left at this name.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        if remove(parent, name)? {
            self.forget();
        }
        Ok(())
    }

    /// Closes the directories that are kept open: after one was removed, it or what is open beneath it
    /// would live on without a name.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Makes everything durable. Reports also what could not be written earlier.
    pub(super) fn sync(&self) -> Result<(), RestoreError> {
        syncfs(&self.fd).map_err(|errno| failed("writing everything out to the volume", errno))
    }
}

/// Removes what is at this name, a file of any kind or an empty directory; whether it was a directory.
pub(super) fn remove(parent: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {
            unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            Ok(true)
        }
        other => other.map(|()| false),
    }
}

/// The first of the names in a directory, those apart that every new volume has.
fn first_name(directory: impl AsFd) -> Result<Option<Vec<u8>>, RestoreError> {
    let unreadable = |errno| failed("reading the volume's root", errno);
    for entry in Dir::read_from(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_bytes();
        if ![&b"."[..], b"..", LOST_AND_FOUND].contains(&name) {
            return Ok(Some(name.to_vec()));
        }
    }
    Ok(None)
}

fn failed(what: &str, errno: Errno) -> RestoreError {
    match errno {
        Errno::NOSPC | Errno::DQUOT => RestoreError::DoesNotFit {
            what: what.to_owned(),
            source: errno,
        },
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => RestoreError::NodeError {
            what: format!("{what}: {errno}"),
        },
        _ => RestoreError::VolumeError {
            what: what.to_owned(),
            source: errno,
        },
    }
}
