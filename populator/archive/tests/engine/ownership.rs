//! Owners, and all that names people or gives rights: what is kept, mapped and left out.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use archive::{Labels, Map, Names, Options, Outcome, Ownership, Privileges, Selection, Wishes};
use rustix::fs::{XattrFlags, lgetxattr, setxattr};
use tar::EntryType;

use crate::compare::assert_same;
use crate::forged::{Forged, forged_header};
use crate::pack;
use crate::support::{Memory, options, restore_from};
use crate::tree::set_time;

const USER: u16 = 2;
const GROUP: u16 = 8;
/// cap_net_bind_service+ep, revision 2.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An ACL for these users and groups, each of whom may read.
fn acl(named: &[(u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, id: u32| {
        value.extend(tag.to_le_bytes());
        value.extend(4_u16.to_le_bytes());
        value.extend(id.to_le_bytes());
    };
    for (tag, of) in [
        (1, None),
        (2, Some(USER)),
        (4, None),
        (8, Some(GROUP)),
        (16, None),
        (32, None),
    ] {
        match of {
            None => add(tag, u32::MAX),
            Some(tag) => {
                let of_this = named.iter().filter(|(kind, _)| *kind == tag);
                of_this.for_each(|(tag, id)| add(*tag, *id));
            }
        }
    }
    value
}

fn set(path: &Path, name: &str, value: &[u8]) {
    setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; 4096];
    let length = lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// A file with attributes of every namespace, a directory with a default ACL, a program and a link,
/// owned by 1000 and 1001, and group 100.
fn tree() -> (tempfile::TempDir, Vec<u8>) {
    let original = tempfile::tempdir().unwrap();
    let root = original.path();
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), "content").unwrap();
    fs::write(root.join("program"), "#!/bin/sh\n").unwrap();
    symlink("nowhere", root.join("link")).unwrap();
    for (name, uid) in [
        ("dir", 1000),
        ("dir/file", 1000),
        ("program", 1001),
        ("link", 1001),
    ] {
        lchown(root.join(name), Some(uid), Some(100)).unwrap();
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("dir", 0o2755);
    mode("program", 0o6755);
    let named = acl(&[(USER, 1000), (USER, 1001), (GROUP, 100)]);
    set(&root.join("dir"), "system.posix_acl_default", &named);
    set(&root.join("dir/file"), "system.posix_acl_access", &named);
    set(&root.join("dir/file"), "user.text", b"a value");
    set(&root.join("dir/file"), "trusted.text", b"another");
    set(&root.join("program"), "security.capability", CAPABILITY);
    for name in ["dir/file", "dir", "program", "link", "."] {
        set_time(&root.join(name), 1_000_000_000, 0);
    }
    let options = [
        "--format=pax",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    ];
    let packed = pack::tar(root, &options);
    (original, packed)
}

fn restored(packed: &[u8], change: impl FnOnce(&mut Options)) -> (tempfile::TempDir, Outcome) {
    let to = tempfile::tempdir().unwrap();
    let mut options = options();
    options.strict = true;
    change(&mut options);
    let outcome = restore_from(Memory::new(packed.to_vec()), to.path(), &options).unwrap();
    (to, outcome)
}

fn owners(root: &Path) -> Vec<(u32, u32)> {
    let owner = |name: &str| {
        let found = fs::symlink_metadata(root.join(name)).unwrap();
        (found.uid(), found.gid())
    };
    ["dir", "dir/file", "program", "link"].map(owner).to_vec()
}

#[test]
fn attributes_of_every_namespace_come_back() {
    let (original, packed) = tree();
    for name in ["user.text", "trusted.text", "system.posix_acl_access"] {
        assert!(get(&original.path().join("dir/file"), name).is_some());
    }
    let (to, outcome) = restored(&packed, |_| ());
    assert_same(original.path(), to.path());
    assert!(outcome.lost.is_empty() && outcome.omitted.is_empty());
}

#[test]
fn acls_follow_the_owners() {
    let (_original, packed) = tree();
    let strings = |rule: &str| vec![rule.to_owned()];
    let map = Map::parse(&strings("1000-1001:5000"), &strings("100:0")).unwrap();
    let (to, outcome) = restored(&packed, |it| it.ownership = Ownership::Map(map));
    let expected = [(5000, 0), (5000, 0), (5001, 0), (5001, 0)];
    assert_eq!(owners(to.path()), expected);
    let named = acl(&[(USER, 5000), (USER, 5001), (GROUP, 0)]);
    let found = |name: &str, xattr| get(&to.path().join(name), xattr).unwrap();
    assert_eq!(found("dir/file", "system.posix_acl_access"), named);
    assert_eq!(found("dir", "system.posix_acl_default"), named);
    assert!(outcome.lost.is_empty(), "{}", outcome.lost);
    // Not what chown leaves of it.
    assert_eq!(found("program", "security.capability"), CAPABILITY);
    let mode = fs::metadata(to.path().join("program")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o6755);
}

#[test]
fn everything_may_be_one_owners() {
    let (_original, packed) = tree();
    let include = ["dir/file".to_owned()];
    let wishes = Wishes {
        include: &include,
        ..Wishes::default()
    };
    let one = Ownership::One { uid: 7, gid: 8 };
    let (to, _) = restored(&packed, |it| it.ownership = one.clone());
    assert_eq!(owners(to.path()), [(7, 8); 4]);
    let acl_of_one = get(&to.path().join("dir/file"), "system.posix_acl_access");
    assert_eq!(acl_of_one, Some(acl(&[(USER, 7), (GROUP, 8)])));
    // The directory is made on the way.
    let (to, _) = restored(&packed, |it| {
        it.ownership = one;
        it.selection = Selection::new(&wishes).unwrap();
    });
    let made = fs::metadata(to.path().join("dir")).unwrap();
    assert_eq!(
        (made.uid(), made.gid(), made.mode() & 0o7777),
        (7, 8, 0o755)
    );
}

/// A header that names its owners, in ustar's own fields.
fn named(user: &str, group: &str) -> Vec<u8> {
    let mut header = forged_header(EntryType::Regular, b"f", b"");
    header.set_size(0);
    header.set_uid(1);
    header.set_gid(2);
    header.set_username(user).unwrap();
    header.set_groupname(group).unwrap();
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn names_are_looked_up_where_somebody_has_them() {
    let names = || Ownership::Names(Names::new([("lisa", 2001)], [("staff", 50)]));
    let pax = || Forged::default().pax(&[("uname", "lisa"), ("gname", "")]);
    for (head, header, expected, lost) in [
        (Forged::default(), named("lisa", "staff"), (2001, 50), ""),
        (pax(), named("nobody", "staff"), (2001, 50), ""),
        (Forged::default(), named("", ""), (1, 2), ""),
        (
            Forged::default(),
            named("lisa", "x"),
            (2001, 2),
            "unknown group",
        ),
        (
            Forged::default(),
            named("x", "staff"),
            (1, 50),
            "unknown user",
        ),
    ] {
        let mut archive = head;
        archive.0.extend(header);
        let (to, outcome) = restored(&archive.end(), |it| {
            it.ownership = names();
            it.strict = false;
        });
        let found = fs::metadata(to.path().join("f")).unwrap();
        assert_eq!((found.uid(), found.gid()), expected);
        let said = outcome.lost.to_string();
        assert!(
            said.contains(lost) && said.is_empty() == lost.is_empty(),
            "{said}"
        );
    }
    // An ACL has numbers only.
    let (_original, packed) = tree();
    let (_to, outcome) = restored(&packed, |it| {
        it.ownership = names();
        it.strict = false;
    });
    assert_eq!(
        outcome.lost.iter().map(|(_, loss)| loss.count).sum::<u64>(),
        2
    );
}

#[test]
fn what_gives_rights_may_be_left_out() {
    let (_original, packed) = tree();
    let (to, outcome) = restored(&packed, |it| it.privileges = Privileges::Drop);
    let mode = |name: &str| fs::metadata(to.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("program"), mode("dir")), (0o755, 0o2755));
    assert_eq!(get(&to.path().join("program"), "security.capability"), None);
    let omitted: Vec<_> = outcome
        .omitted
        .iter()
        .map(|(kind, it)| (kind, it.count))
        .collect();
    assert_eq!(omitted, [("file capability", 1), ("setuid or setgid", 1)]);
    assert!(outcome.lost.is_empty());
}

#[test]
fn labels_are_left_out_or_restored() {
    let label = "system_u:object_r:etc_t:s0";
    let with_nul = format!("{label}\0");
    for record in [
        ("RHT.security.selinux", label),
        ("SCHILY.xattr.security.selinux", with_nul.as_str()),
    ] {
        let packed = Forged::default().pax(&[record]).file("f", "").end();
        let (to, outcome) = restored(&packed, |_| ());
        // A system with SELinux gives it one of its own.
        let found = get(&to.path().join("f"), "security.selinux");
        assert_ne!(found.as_deref(), Some(with_nul.as_bytes()));
        assert_eq!(outcome.omitted.get("SELinux label").unwrap().count, 1);
        let (to, outcome) = restored(&packed, |it| it.labels = Labels::Restore);
        let found = get(&to.path().join("f"), "security.selinux");
        assert_eq!(found.as_deref(), Some(with_nul.as_bytes()));
        assert!(outcome.omitted.is_empty());
    }
}
