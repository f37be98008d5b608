//! The tree that is packed, in the order in which it is packed: a directory before what is in it,
//! names by their bytes.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::vec;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::error::PackError;

/// What mkfs leaves at the root of a volume; it holds nothing, and only root could look.
const LOST_AND_FOUND: &[u8] = b"lost+found";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Something found.
pub(super) struct Found {
    /// Where it is: an open directory, and its name there (`.` for the root itself).
    pub(super) parent: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    /// From the root; that is empty.
    pub(super) path: Vec<u8>,
    pub(super) stat: Stat,
    /// Whether another file system is mounted there; what is in it is not found.
    pub(super) is_mount: bool,
}

impl Found {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// A walk through a tree.
pub(super) struct Walk {
    device: u64,
    /// The directories on the way to where the walk is, and which of their names are left.
    levels: Vec<Level>,
    root: Option<Found>,
}

struct Level {
    fd: Arc<OwnedFd>,
    path: Vec<u8>,
    names: vec::IntoIter<Vec<u8>>,
}

impl Walk {
    /// Begins at `root`.
    pub(super) fn new(root: BorrowedFd<'_>) -> Result<Self, PackError> {
        let failed = |errno| PackError::read(b".", errno);
        let fd = openat(root, c".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let fd = Arc::new(fd);
        let stat = statat(&fd, c".", AtFlags::empty()).map_err(failed)?;
        let mut names = names(&fd).map_err(failed)?;
        names.retain(|name| name != LOST_AND_FOUND);
        Ok(Self {
            device: stat.st_dev,
            root: Some(Found {
                parent: Arc::clone(&fd),
                name: b".".to_vec(),
                path: Vec::new(),
                stat,
                is_mount: false,
            }),
            levels: vec![Level {
                fd,
                path: Vec::new(),
                names: names.into_iter(),
            }],
        })
    }

    /// The next thing; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Found>, PackError> {
        if let Some(root) = self.root.take() {
            return Ok(Some(root));
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let path = match level.path.as_slice() {
                [] => name.clone(),
                above => [above, b"/", &name].concat(),
            };
            let parent = Arc::clone(&level.fd);
            let stat = statat(&parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| PackError::read(&path, errno))?;
            let mut found = Found {
                parent,
                name,
                path,
                is_mount: stat.st_dev != self.device,
                stat,
            };
            if found.kind() == FileType::Directory && !found.is_mount {
                self.enter(&mut found)?;
            }
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn enter(&mut self, found: &mut Found) -> Result<(), PackError> {
        let failed = |errno| PackError::read(&found.path, errno);
        let fd = openat(
            &found.parent,
            found.name.as_slice(),
            DIRECTORY,
            Mode::empty(),
        );
        let fd = Arc::new(fd.map_err(failed)?);
        let names = names(&fd).map_err(failed)?;
        self.levels.push(Level {
            fd,
            path: found.path.clone(),
            names: names.into_iter(),
        });
        Ok(())
    }
}

/// The names in a directory, in order.
fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
