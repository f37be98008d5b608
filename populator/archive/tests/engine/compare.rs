//! Two trees, compared by what the operating system says about them, and by what tar, stat, getfattr
//! and getfacl say; shares nothing with the engine.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{SeekFrom, lgetxattr, llistxattr, seek};
use rustix::io::Errno;

use crate::pack;

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

impl Seen {
    /// What is not as it was.
    fn change(&self, now: &Self) -> Option<String> {
        if self.content != now.content {
            return Some("the content differs".to_owned());
        }
        for (name, value) in &self.xattrs {
            let found = now.xattrs.get(name);
            if found != Some(value) {
                let name = String::from_utf8_lossy(name);
                return Some(format!("{name} was {value:02x?}, is {found:02x?}"));
            }
        }
        let plain = |seen: &Self| {
            let names = seen
                .xattrs
                .keys()
                .map(|name| name.escape_ascii().to_string());
            let Self {
                kind,
                mode,
                owner,
                modified,
                device,
                same_as,
                ..
            } = seen;
            let names: Vec<_> = names.collect();
            format!(
                "{kind} {mode:o} {owner:?} {modified:?} {device} {names:?}, first as {same_as:?}"
            )
        };
        (self != now).then(|| format!("{} became {}", plain(self), plain(now)))
    }
}

/// The first difference between two trees, if any, the roots themselves included.
pub fn difference(one: &Path, other: &Path) -> Option<String> {
    let (one, other) = (look(one), look(other));
    for (path, seen) in &one {
        let Some(found) = other.get(path) else {
            return Some(format!("{path:?} is missing"));
        };
        if let Some(change) = seen.change(found) {
            return Some(format!("{path:?}: {change}"));
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

/// The same to the eyes of other programs. The names in a tree may be no options.
pub fn assert_same_for_others(one: &Path, other: &Path) {
    for (what, script) in WITNESSES {
        if let Some(difference) = differs(script, one, other) {
            panic!("{what}: {difference}");
        }
    }
}

/// What stands beside the comparer, each a line for bash in the tree: a tar of the tree without
/// what reading it changes, nor attributes, whose order there is that of setting them; all of stat(1) but the sizes of directories; attributes; ACLs.
const WITNESSES: [(&str, &str); 4] = [
    (
        "tar",
        "tar -c --format=posix --sort=name --numeric-owner --acls \
         --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime .",
    ),
    (
        "stat",
        "find . -print0 | sort -z | xargs -0 stat --printf '%N %F %a %u %g %y %t:%T\\n'; \
         find . ! -type d -print0 | sort -z | xargs -0 -r stat --printf '%N %h %s\\n'",
    ),
    (
        "getfattr",
        "find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex",
    ),
    (
        "getfacl",
        "find . ! -type l -print0 | sort -z | xargs -0 getfacl -n -p",
    ),
];

/// The first lines that differ in what a script says of two trees.
fn differs(script: &str, one: &Path, other: &Path) -> Option<String> {
    let say = |root: &Path| {
        let script = format!("set -eo pipefail; export LC_ALL=C; {script}");
        pack::output(Command::new("bash").args(["-c", &script]).current_dir(root))
    };
    let (one, other) = (say(one), say(other));
    let lines = |bytes: &[u8]| -> Vec<String> {
        let lines = bytes.split(|byte| *byte == b'\n');
        lines.map(|line| line.escape_ascii().to_string()).collect()
    };
    let (one, other) = (lines(&one), lines(&other));
    let differing = one.iter().zip(&other).find(|(one, other)| one != other);
    match differing {
        Some((one, other)) => Some(format!("{one} became {other}")),
        None if one.len() != other.len() => Some("one is longer".to_owned()),
        None => None,
    }
}

/// The first file whose holes are not those of the other tree.
pub fn difference_in_holes(one: &Path, other: &Path) -> Option<String> {
    let (one, other) = (holes(one), holes(other));
    let found = one
        .iter()
        .find(|(path, data)| other.get(*path) != Some(data));
    found.map(|(path, data)| format!("{path:?}: data at {data:?} became {:?}", other.get(path)))
}

/// Where each regular file has data: beginnings and ends.
fn holes(root: &Path) -> BTreeMap<PathBuf, Vec<u64>> {
    let mut paths = Vec::new();
    collect(root, Path::new(""), &mut paths);
    let mut found = BTreeMap::new();
    for path in paths {
        if !fs::symlink_metadata(root.join(&path)).unwrap().is_file() {
            continue;
        }
        let file = fs::File::open(root.join(&path)).unwrap();
        let (mut data, mut at) = (Vec::new(), 0);
        loop {
            match seek(&file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => break,
                begin => data.push(begin.unwrap()),
            }
            at = seek(&file, SeekFrom::Hole(data[data.len() - 1])).unwrap();
            data.push(at);
        }
        found.insert(path, data);
    }
    found
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
        // XFS shows an ACL a second time.
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.SGI_ACL_"))
    {
        let mut value = vec![0_u8; 64 << 10];
        let length = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    xattrs
}

type Change<'a> = (&'a str, &'a dyn Fn(&Path));

/// A small tree with something of every kind.
fn specimen() -> tempfile::TempDir {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    let original = tempfile::tempdir().unwrap();
    let root = original.path();
    fs::write(root.join("file"), "content").unwrap();
    fs::hard_link(root.join("file"), root.join("hard")).unwrap();
    symlink("target", root.join("link")).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    mknodat(
        CWD,
        root.join("device"),
        FileType::CharacterDevice,
        Mode::RUSR,
        makedev(1, 3),
    )
    .unwrap();
    crate::tree::make_sparse(&root.join("sparse"), 1 << 20, &[(512 << 10, vec![1; 4096])]);
    let set = "setfattr -n user.kept -v value file && setfacl -m u:1000:rw file \
               && setfacl -d -m g:1000:rx directory";
    bash(root, set);
    for name in ["file", "link", "directory", "device", "sparse", "."] {
        touch(&root.join(name));
    }
    original
}

fn bash(root: &Path, script: &str) {
    pack::output(Command::new("bash").args(["-ec", script]).current_dir(root));
}

fn touch(path: &Path) {
    crate::tree::set_time(path, 1_000_000_000, 123_456_789);
}

/// Changes that must be seen, by a copy's root, and by whom else.
fn assert_seen(changes: &[Change<'_>], witness: &str) {
    let original = specimen();
    let root = original.path();
    let script = WITNESSES
        .iter()
        .find(|(name, _)| *name == witness)
        .unwrap()
        .1;
    for (what, change) in changes {
        let copy = tempfile::tempdir().unwrap();
        pack::output(
            Command::new("cp")
                .args(["-aT", "--sparse=always"])
                .args([root, copy.path()]),
        );
        assert_eq!(difference(root, copy.path()), None);
        assert_eq!(difference_in_holes(root, copy.path()), None);
        assert_same_for_others(root, copy.path());
        change(copy.path());
        for name in ["file", "link", "directory", "device", "sparse", "."] {
            if fs::symlink_metadata(copy.path().join(name)).is_ok() && !what.contains("time") {
                touch(&copy.path().join(name));
            }
        }
        let seen = difference(root, copy.path());
        assert!(seen.is_some(), "{what} was not seen");
        let seen = differs(script, root, copy.path());
        assert!(seen.is_some(), "{what} was not seen by {witness}");
    }
}

#[test]
fn changes_that_tar_sees() {
    assert_seen(
        &[
            ("a byte", &|root| {
                fs::write(root.join("file"), "contenT").unwrap();
            }),
            ("a byte in a sparse file", &|root| {
                bash(
                    root,
                    "printf x | dd of=sparse bs=1 seek=5000 conv=notrunc status=none",
                );
            }),
            ("a length", &|root| bash(root, "truncate -s 1048577 sparse")),
            ("a missing file", &|root| {
                fs::remove_file(root.join("hard")).unwrap();
            }),
            ("a missing empty directory", &|root| {
                fs::remove_dir(root.join("directory")).unwrap();
            }),
            ("a new file", &|root| {
                fs::write(root.join("new"), "").unwrap();
            }),
        ],
        "tar",
    );
}

#[test]
fn changes_that_stat_sees() {
    assert_seen(
        &[
            ("an owner of a link", &|root| bash(root, "chown -h 1 link")),
            ("an owner", &|root| bash(root, "chown 1 file")),
            ("a group", &|root| bash(root, "chgrp 1 directory")),
            ("a mode", &|root| bash(root, "chmod g+s directory")),
            ("the root's mode", &|root| bash(root, "chmod 750 .")),
            ("a nanosecond of time", &|root| {
                crate::tree::set_time(&root.join("file"), 1_000_000_000, 123_456_788);
                touch(root);
            }),
            ("a link's time", &|root| bash(root, "touch -h -d @5 link")),
            ("the root's time", &|root| bash(root, "touch -d @5 .")),
            ("a link's target", &|root| bash(root, "ln -sfn targeT link")),
            ("a hard link that is a copy", &|root| {
                bash(root, "cp -a hard copy && mv copy hard");
            }),
            ("a device's number", &|root| {
                bash(root, "rm device && mknod device c 1 5 && chmod 400 device");
            }),
            ("a device's kind", &|root| {
                bash(root, "rm device && mknod device b 1 3 && chmod 400 device");
            }),
        ],
        "stat",
    );
}

#[test]
fn changes_that_getfattr_sees() {
    assert_seen(
        &[
            ("a new attribute", &|root| {
                bash(root, "setfattr -n user.new directory");
            }),
            ("a missing attribute", &|root| {
                bash(root, "setfattr -x user.kept file");
            }),
            ("an attribute's value", &|root| {
                bash(root, "setfattr -n user.kept -v valuE file");
            }),
        ],
        "getfattr",
    );
}

#[test]
fn changes_that_getfacl_sees() {
    assert_seen(
        &[
            ("an ACL", &|root| bash(root, "setfacl -m u:1000:r file")),
            ("an ACL's number", &|root| {
                bash(root, "setfacl -x u:1000 file && setfacl -m u:1001:rw file");
            }),
            ("a missing ACL", &|root| {
                bash(root, "setfacl -b file && chmod 664 file");
            }),
            ("a default ACL", &|root| {
                bash(root, "setfacl -d -m g:1000:r directory");
            }),
        ],
        "getfacl",
    );
}

#[test]
fn holes_that_are_filled_or_moved() {
    let original = specimen();
    for (what, change) in [
        ("filled", "cp --sparse=never sparse full && mv full sparse"),
        (
            "smaller",
            "head -c 4096 /dev/zero | dd of=sparse bs=4096 seek=5 conv=notrunc status=none",
        ),
        ("larger", "fallocate -p -o 524288 -l 4096 sparse"),
    ] {
        let copy = tempfile::tempdir().unwrap();
        pack::output(
            Command::new("cp")
                .args(["-aT", "--sparse=always"])
                .args([original.path(), copy.path()]),
        );
        assert_eq!(difference_in_holes(original.path(), copy.path()), None);
        bash(copy.path(), change);
        let seen = difference_in_holes(original.path(), copy.path());
        assert!(seen.is_some(), "a hole that is {what} was not seen");
    }
}
