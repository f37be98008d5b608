//! Entries that depend on one another, in every order: though files are made by several threads, the
//! result is that of one after the other.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::support::{Random, restore};

pub const PATHS: [&str; 7] = ["a", "b", "a/x", "a/y", "b/x", "a/x/z", "b/x/z/deep"];

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    File { size: usize },
    Directory,
    Symlink,
    HardLink(&'static str),
}

/// What is at a path; a number tells files apart, and is the same for links to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Directory,
    File { number: usize, size: usize },
    Symlink,
}

/// What one entry after the other makes of it; none if one of them cannot be restored.
pub fn model(entries: &[(&'static str, Kind)]) -> Option<BTreeMap<&'static str, Node>> {
    let mut nodes = BTreeMap::new();
    for (number, (path, kind)) in entries.iter().enumerate() {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for above in above {
            if *nodes.entry(above).or_insert(Node::Directory) != Node::Directory {
                return None;
            }
        }
        let node = match *kind {
            Kind::File { size } => Node::File { number, size },
            Kind::Directory => Node::Directory,
            Kind::Symlink => Node::Symlink,
            Kind::HardLink(target) => {
                // Nothing on the way to it is a link or a file.
                match nodes.get(target) {
                    None | Some(Node::Directory) => return None,
                    Some(node) => *node,
                }
            }
        };
        let before = nodes.get(path).copied();
        let has_children = nodes.keys().any(|it| it.starts_with(&format!("{path}/")));
        if node != Node::Directory && before == Some(Node::Directory) && has_children {
            return None;
        }
        nodes.insert(path, node);
    }
    Some(nodes)
}

pub fn pack(entries: &[(&'static str, Kind)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (number, (path, kind)) in entries.iter().enumerate() {
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        header.set_mtime(1);
        header.set_size(0);
        let (kind, target, size) = match *kind {
            Kind::File { size } => (EntryType::Regular, None, size),
            Kind::Directory => (EntryType::Directory, None, 0),
            Kind::Symlink => (EntryType::Symlink, Some("anywhere"), 0),
            Kind::HardLink(target) => (EntryType::Link, Some(target), 0),
        };
        header.set_entry_type(kind);
        if let Some(target) = target {
            header.set_link_name(target).unwrap();
        }
        header.set_size(size as u64);
        let content = content(number, size);
        builder
            .append_data(&mut header, path, content.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn content(number: usize, size: usize) -> Vec<u8> {
    let byte = u8::try_from(number).unwrap();
    vec![byte; size]
}

pub fn compare(root: &Path, nodes: &BTreeMap<&'static str, Node>) {
    let mut inodes = BTreeMap::new();
    for (path, node) in nodes {
        let found = root.join(path).symlink_metadata().unwrap();
        match node {
            Node::Directory => assert!(found.is_dir(), "{path}"),
            Node::Symlink => assert!(found.is_symlink(), "{path}"),
            Node::File { number, size } => {
                let bytes = std::fs::read(root.join(path)).unwrap();
                assert!(bytes == content(*number, *size), "{path}");
                let inode = *inodes.entry(number).or_insert(found.ino());
                assert_eq!(inode, found.ino(), "{path} is another file");
            }
        }
    }
    let mut count = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            count += 1;
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert_eq!(count, nodes.len(), "there is more than there should be");
}

/// Some entries at random.
pub fn entries(random: &mut Random, length: usize) -> Vec<(&'static str, Kind)> {
    let entry = |_| {
        let path = random.pick(&PATHS);
        let kind = match random.below(10) {
            0..5 => Kind::File {
                size: random.pick(&[0, 10, 5_000, 70_001]),
            },
            5 | 6 => Kind::Directory,
            7 => Kind::Symlink,
            _ => Kind::HardLink(random.pick(&PATHS)),
        };
        (path, kind)
    };
    (0..length).map(entry).collect()
}

#[test]
fn the_order_of_the_archive_holds() {
    let mut random = Random(50);
    let (mut whole, mut refused) = (0, 0);
    for round in 0..3000 {
        let length = 2 + random.index(5);
        let entries = entries(&mut random, length);
        let to = tempfile::tempdir().unwrap();
        let restored = restore(pack(&entries), to.path());
        match (model(&entries), restored) {
            (Some(nodes), Ok(_)) => {
                compare(to.path(), &nodes);
                whole += 1;
            }
            (None, Err(error)) => {
                assert_eq!(error.reason(), "EntryRefused", "{error}: {entries:?}");
                refused += 1;
            }
            (model, restored) => panic!("{round}: {entries:?}: {model:?}, {restored:?}"),
        }
    }
    assert!(whole > 300 && refused > 300, "{whole} and {refused}");
}
