//! Compares two directory trees, with code that shares nothing with the archive engine.
//!
//! What it looks at: names, kinds, bytes (SHA-256), owners, modes, times to the nanosecond,
//! targets of symbolic links, which names are hard links to one file, and extended attributes.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStringExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// All that is compared of one name. Two equal values look the same to any program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    kind: Kind,
    owner: (u32, u32),
    /// Permission bits with setuid, setgid and sticky. Symbolic links have none of their own.
    mode: u32,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    attributes: BTreeMap<OsString, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Length, digest, and the first name (in order) of the same file.
    File(u64, String, PathBuf),
    Directory,
    Link(PathBuf),
    Fifo,
    Device(u64),
    Socket,
}

/// A tree by relative path.
pub type Tree = BTreeMap<PathBuf, Node>;

/// Reads the tree below `root`, the root itself as the empty path. `lost+found` at the top belongs
/// to the file system, not to the tree.
pub fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut first_names = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full)?;
        if metadata.is_dir() {
            let mut names = fs::read_dir(&full)?
                .map(|entry| Ok(path.join(entry?.file_name())))
                .collect::<io::Result<Vec<_>>>()?;
            names.retain(|name| name != Path::new("lost+found"));
            pending.extend(names);
        }
        tree.insert(
            path.clone(),
            node(&full, &path, &metadata, &mut first_names)?,
        );
    }
    // The walk's order is arbitrary, so "first name" is settled here.
    let firsts = tree
        .iter()
        .fold(BTreeMap::new(), |mut firsts, (path, node)| {
            if let Kind::File(_, _, link) = &node.kind {
                firsts.entry(link.clone()).or_insert_with(|| path.clone());
            }
            firsts
        });
    for node in tree.values_mut() {
        if let Kind::File(_, _, link) = &mut node.kind {
            *link = firsts[link].clone();
        }
    }
    Ok(tree)
}

fn node(
    full: &Path,
    path: &Path,
    metadata: &fs::Metadata,
    first_names: &mut BTreeMap<(u64, u64), PathBuf>,
) -> io::Result<Node> {
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        let first = first_names
            .entry((metadata.dev(), metadata.ino()))
            .or_insert_with(|| path.to_path_buf())
            .clone();
        Kind::File(metadata.len(), digest(full)?, first)
    } else if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Link(fs::read_link(full)?)
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        Kind::Device(metadata.rdev())
    };
    let mode = if kind_is_link(&kind) {
        0
    } else {
        metadata.mode() & 0o7777
    };
    Ok(Node {
        kind,
        owner: (metadata.uid(), metadata.gid()),
        mode,
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        attributes: attributes(full)?,
    })
}

fn kind_is_link(kind: &Kind) -> bool {
    matches!(kind, Kind::Link(_))
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut Sink(&mut hasher))?;
    Ok(hex::encode(hasher.finalize()))
}

/// Feeds a hasher with what is written to it.
struct Sink<'a>(&'a mut Sha256);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn attributes(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; 65536];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    names[..length]
        .split(|byte| *byte == 0)
        // Labels belong to the machine, not to the data.
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value)?;
            value.truncate(length);
            Ok((OsString::from_vec(name.to_vec()), value))
        })
        .collect()
}

/// One line for each difference between what was meant and what is there; empty when equal.
pub fn differences(meant: &Tree, found: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, node) in meant {
        match found.get(path) {
            None => lines.push(format!("{}: missing", path.display())),
            Some(other) if other != node => {
                lines.push(format!(
                    "{}: meant {node:?}, found {other:?}",
                    path.display()
                ));
            }
            Some(_) => {}
        }
    }
    let strangers = found.keys().filter(|path| !meant.contains_key(*path));
    lines.extend(strangers.map(|path| format!("{}: not in the original", path.display())));
    lines
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// A small tree with one of everything.
    fn make(root: &Path) {
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("folder/file"), b"bytes").unwrap();
        fs::hard_link(root.join("folder/file"), root.join("twin")).unwrap();
        fs::write(root.join("other"), b"other").unwrap();
        symlink("folder/file", root.join("link")).unwrap();
        for name in ["folder/file", "other", "link", "folder", ""] {
            age(&root.join(name), 7);
        }
    }

    fn age(path: &Path, nanoseconds: i64) {
        let time = rustix::fs::Timespec {
            tv_sec: 1_000_000,
            tv_nsec: nanoseconds,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
    }

    /// Makes the tree twice, changes the second, and returns what was found.
    fn after(change: impl FnOnce(&Path)) -> Vec<String> {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(one.path());
        make(two.path());
        change(two.path());
        // Changing a name touches its folder; only the change itself is to be found.
        age(&two.path().join("folder"), 7);
        age(two.path(), 7);
        differences(&read(one.path()).unwrap(), &read(two.path()).unwrap())
    }

    #[test]
    fn equal_trees_are_equal() {
        assert_eq!(after(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn one_changed_byte_is_found() {
        let found = after(|root| {
            fs::write(root.join("other"), b"othes").unwrap();
            age(&root.join("other"), 7);
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn one_owner_mode_time_or_attribute_is_found() {
        let owner = |root: &Path| chown(root.join("other"), Some(1), None).unwrap();
        let mode = |root: &Path| {
            fs::set_permissions(root.join("other"), PermissionsExt::from_mode(0o600)).unwrap();
        };
        let time = |root: &Path| age(&root.join("other"), 8);
        let folder_mode = |root: &Path| {
            fs::set_permissions(root.join("folder"), PermissionsExt::from_mode(0o700)).unwrap();
        };
        let attribute = |root: &Path| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("other"), "user.x", b"1", flags).unwrap();
        };
        let changes: [&dyn Fn(&Path); 5] = [&owner, &mode, &time, &folder_mode, &attribute];
        for change in changes {
            assert_eq!(after(change).len(), 1);
        }
    }

    #[test]
    fn links_and_missing_or_added_files_are_found() {
        let target = after(|root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("other", root.join("link")).unwrap();
            age(&root.join("link"), 7);
        });
        assert_eq!(target.len(), 1, "{target:?}");
        let copied = after(|root| {
            fs::remove_file(root.join("twin")).unwrap();
            fs::write(root.join("twin"), b"bytes").unwrap();
            age(&root.join("twin"), 7);
        });
        assert_eq!(copied.len(), 1, "{copied:?}");
        assert_eq!(
            after(|root| fs::remove_file(root.join("other")).unwrap()).len(),
            1
        );
        assert_eq!(
            after(|root| fs::write(root.join("new"), b"").unwrap()).len(),
            1
        );
    }
}
