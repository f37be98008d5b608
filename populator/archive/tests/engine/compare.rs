//! Two trees, compared by what the operating system says about them; shares nothing with the engine.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

/// All that must be the same about one path.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
    device: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, that is the same file.
    same_as: PathBuf,
}

/// The first difference between two trees, if any, the roots themselves included.
pub fn difference(one: &Path, other: &Path) -> Option<String> {
    let (one, other) = (look(one), look(other));
    for (path, seen) in &one {
        let Some(found) = other.get(path) else {
            return Some(format!("{path:?} is missing"));
        };
        if seen.content != found.content {
            return Some(format!("{path:?}: the content differs"));
        }
        if seen != found {
            return Some(format!("{path:?}: {seen:?} became {found:?}").replace("content: [", "["));
        }
    }
    other
        .keys()
        .find(|path| !one.contains_key(*path))
        .map(|path| format!("{path:?} is new"))
}

pub fn assert_same(one: &Path, other: &Path) {
    if let Some(difference) = difference(one, other) {
        panic!("{}", difference.chars().take(2000).collect::<String>());
    }
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![PathBuf::new()];
    collect(root, Path::new(""), &mut paths);
    paths.sort();
    let mut first = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        let inode = (metadata.dev(), metadata.ino());
        let same_as = first.entry(inode).or_insert_with(|| path.clone()).clone();
        seen.insert(path, describe(&full, &metadata, same_as));
    }
    seen
}

fn collect(root: &Path, beneath: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(beneath)).unwrap() {
        let entry = entry.unwrap();
        let path = beneath.join(entry.file_name());
        paths.push(path.clone());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, paths);
        }
    }
}

fn describe(path: &Path, metadata: &Metadata, same_as: PathBuf) -> Seen {
    let kind = metadata.file_type();
    let (kind, content) = if kind.is_file() {
        ("file", fs::read(path).unwrap())
    } else if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_symlink() {
        (
            "link",
            fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
        )
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else {
        ("device", Vec::new())
    };
    Seen {
        kind,
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        content,
        device: metadata.rdev(),
        xattrs: xattrs(path),
        same_as,
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 64 << 10];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let mut xattrs = BTreeMap::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0_u8; 64 << 10];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    xattrs
}

type Change<'a> = (&'a str, &'a dyn Fn(&Path));

/// The comparer itself must see every single change.
#[test]
fn every_change_is_seen() {
    use crate::pack;
    use crate::tree::set_time;
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};

    let original = tempfile::tempdir().unwrap();
    let root = original.path();
    fs::write(root.join("file"), "content").unwrap();
    fs::hard_link(root.join("file"), root.join("hard")).unwrap();
    symlink("target", root.join("link")).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    for name in ["file", "link", "directory", "."] {
        set_time(&root.join(name), 1_000_000_000, 123_456_789);
    }

    let touch = |path: &Path| set_time(path, 1_000_000_000, 123_456_789);
    let changes: [Change<'_>; 11] = [
        ("a byte", &|root| {
            fs::write(root.join("file"), "contenT").unwrap();
            touch(&root.join("file"));
        }),
        ("an owner", &|root| {
            lchown(root.join("link"), Some(1), None).unwrap();
        }),
        ("a group", &|root| {
            lchown(root.join("file"), None, Some(1)).unwrap();
        }),
        ("a mode", &|root| {
            fs::set_permissions(root.join("directory"), fs::Permissions::from_mode(0o2755))
                .unwrap();
        }),
        ("a nanosecond", &|root| {
            set_time(&root.join("file"), 1_000_000_000, 123_456_788);
        }),
        ("the root's time", &|root| {
            set_time(root, 999_999_999, 123_456_789);
        }),
        ("a link's target", &|root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("targeT", root.join("link")).unwrap();
            touch(&root.join("link"));
            touch(root);
        }),
        ("a hard link", &|root| {
            fs::remove_file(root.join("hard")).unwrap();
            fs::write(root.join("hard"), "content").unwrap();
            touch(&root.join("hard"));
            touch(root);
        }),
        ("a missing file", &|root| {
            fs::remove_file(root.join("hard")).unwrap();
            touch(root);
        }),
        ("a new file", &|root| {
            fs::write(root.join("new"), "").unwrap();
            touch(root);
        }),
        ("an attribute", &|root| {
            let none = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("file"), "user.new", b"", none).unwrap();
        }),
    ];
    for (what, change) in changes {
        let copy = tempfile::tempdir().unwrap();
        pack::output(
            std::process::Command::new("cp")
                .arg("-aT")
                .args([root, copy.path()]),
        );
        assert_eq!(difference(root, copy.path()), None);
        change(copy.path());
        assert!(
            difference(root, copy.path()).is_some(),
            "{what} was not seen"
        );
    }
}
