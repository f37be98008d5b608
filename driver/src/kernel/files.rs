//! Files that are there, whole, after a crash or a power cut.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::{Attempt as _, Failed};

/// A file system at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// All there is.
    pub total: u64,
    /// What is in use, by whatever.
    pub used: u64,
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), Failed> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .attempt(|| format!("sync {}", path.display()))
}

/// Writes a file so that at every moment, a power cut included, `path` has either its old bytes
/// or all of the new ones. When this returns it has the new ones for good.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let temporary = temporary(path);
    let attempt = || format!("write {}", path.display());
    let mut file = File::create(&temporary).attempt(attempt)?;
    file.write_all(bytes).attempt(attempt)?;
    file.sync_all().attempt(attempt)?;
    std::fs::rename(&temporary, path).attempt(attempt)?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// Where [`write()`] writes before it renames. A crash may leave it.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}

/// Removes a file, or notes that there is none. Durable only after [`sync_directory`].
pub fn remove(path: &Path) -> Result<(), Failed> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failed::new(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes an empty directory, or notes that there is none.
pub fn remove_directory(path: &Path) -> Result<(), Failed> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failed::new(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// A new file in a directory, without a name: it is gone when it is closed, however that happens.
pub fn nameless(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// All bytes of the file system of `path`, and those that are in use.
pub fn space(path: &Path) -> Result<Space, Failed> {
    let space =
        rustix::fs::statvfs(path).attempt(|| format!("ask for the space at {}", path.display()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    Ok(Space {
        total: bytes(space.f_blocks),
        used: bytes(space.f_blocks.saturating_sub(space.f_bavail)),
    })
}

/// Bytes that ordinary users can still write to the file system of `path`.
pub fn free_space(path: &Path) -> Result<u64, Failed> {
    let space =
        rustix::fs::statvfs(path).attempt(|| format!("ask for the space at {}", path.display()))?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
