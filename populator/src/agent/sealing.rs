//! The key of this node's agent, kept over restarts: what was sealed for one agent, the next one can open.

use std::fs;
use std::io;
use std::path::Path;

use super::record::{self, Context as _, RecordError};
use crate::seal::Key;

/// In the work directory.
const FILE: &str = "sealing-key";

/// The key that is kept in the work directory, or a new one where there is none that can be used.
pub fn key(folder: &Path) -> Result<Key, RecordError> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(kept) => {
            if let Ok(key) = Key::read(&String::from_utf8_lossy(&kept)) {
                return Ok(key);
            }
            tracing::warn!(path = %path.display(), "no key; another one is made");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("reading", &path),
    }
    let key = Key::generate();
    record::write_text(folder, FILE, &key.secret())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_kept_and_for_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = key(folder.path()).unwrap();
        assert_eq!(key(folder.path()).unwrap().public(), first.public());
        let file = folder.path().join(FILE);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&file, [0xff; 40]).unwrap();
        let other = key(folder.path()).unwrap().public();
        assert_ne!(other, first.public());
        assert_eq!(key(folder.path()).unwrap().public(), other);
    }
}
