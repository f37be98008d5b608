//! Archives that mean harm: none writes outside the root, and each error names the entry.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};

use archive::Devices;
use tar::EntryType;

use crate::forged::{Forged, forged_header};
use crate::support::{Memory, failure, options, restore, restore_from};

fn refused(archive: Forged, entry: &str) {
    let (reason, message) = failure(archive.end());
    assert_eq!(reason, "EntryRefused", "{message}");
    assert!(message.contains(entry), "{message}");
}

/// What lies beside the root must stay as it is.
fn with_neighbour(archive: Forged) -> (Result<archive::Outcome, archive::RestoreError>, String) {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let result = restore(archive.end(), &root);
    let names: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "something was made outside");
    assert_eq!(
        fs::metadata(outside.path().join("victim")).unwrap().nlink(),
        1
    );
    (
        result,
        fs::read_to_string(outside.path().join("victim")).unwrap(),
    )
}

#[test]
fn dot_dot_is_refused() {
    refused(Forged::default().file("../victim", "x"), "../victim");
    refused(
        Forged::default().file("a/../../victim", "x"),
        "a/../../victim",
    );
    refused(Forged::default().directory(".."), "..");
    refused(
        Forged::default()
            .pax(&[("path", "../pax")])
            .file("harmless", "x"),
        "../pax",
    );
    let long = Forged::default().entry(EntryType::GNULongName, b"L", b"", b"../long\0");
    refused(long.file("harmless", "x"), "../long");
}

#[test]
fn absolute_names_are_made_relative_and_counted() {
    let to = tempfile::tempdir().unwrap();
    let archive = Forged::default()
        .file("/etc/engine-test", "x")
        .hard("/b", "/etc/engine-test");
    let outcome = restore(archive.end(), to.path()).unwrap();
    assert_eq!(
        fs::read_to_string(to.path().join("etc/engine-test")).unwrap(),
        "x"
    );
    assert!(!fs::exists("/etc/engine-test").unwrap());
    let lost = outcome.lost.get("leading / of a name").unwrap();
    assert_eq!(
        (lost.count, lost.examples[0].as_str()),
        (2, "\"/etc/engine-test\"")
    );
    assert_eq!(
        outcome
            .lost
            .get("leading / of a link's target")
            .unwrap()
            .count,
        1
    );
}

#[test]
fn nothing_goes_through_a_link_of_the_archive() {
    for target in ["..", "/tmp", ".", "directory"] {
        let through = |archive: Forged| archive.directory("directory").link("l", target);
        refused(through(Forged::default()).file("l/victim", "x"), "l/victim");
        refused(through(Forged::default()).directory("l/victim"), "l/victim");
        refused(through(Forged::default()).link("l/victim", "x"), "l/victim");
        refused(
            through(Forged::default())
                .file("a", "")
                .hard("l/victim", "a"),
            "l/victim",
        );
        refused(
            through(Forged::default()).file("l/deep/victim", "x"),
            "l/deep/victim",
        );
    }
    let (result, victim) = with_neighbour(Forged::default().link("l", "..").file("l/victim", "x"));
    assert_eq!(
        (result.unwrap_err().reason(), victim.as_str()),
        ("EntryRefused", "untouched")
    );
    // A link in the place of the file itself is replaced, not followed.
    let over = Forged::default().link("l", "../victim").file("l", "mine");
    let (result, victim) = with_neighbour(over);
    assert_eq!((result.unwrap().files, victim.as_str()), (1, "untouched"));
    // Metadata of a directory never reach what a later link points to.
    let over = Forged::default().directory("d").link("d", "/etc");
    with_neighbour(over).0.unwrap();
}

#[test]
fn hard_links_stay_inside() {
    refused(Forged::default().hard("l", "../victim"), "../victim");
    refused(Forged::default().hard("l", "/etc/passwd"), "etc/passwd");
    refused(
        Forged::default().link("s", "/etc").hard("l", "s/passwd"),
        "\"l\"",
    );
    refused(Forged::default().hard("l", "missing"), "missing");
    refused(Forged::default().directory("d").hard("l", "d"), "\"d\"");
    refused(Forged::default().hard("l", "."), "root");
    // A hard link to a symbolic link is one to the link itself.
    let twice = Forged::default()
        .link("s", "../victim")
        .hard("l", "s")
        .file("l", "mine");
    let (result, victim) = with_neighbour(twice);
    assert_eq!((result.unwrap().links, victim.as_str()), (2, "untouched"));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let to = tempfile::tempdir().unwrap();
    let archive = Forged::default()
        .file("f", "first")
        .hard("other", "f")
        .file("f", "second")
        .hard("f", "f")
        .directory("d")
        .file("d/stays", "x")
        .directory("d")
        .link("to-dir", "d")
        .directory("to-dir")
        .directory("empty")
        .file("empty", "now a file");
    let outcome = restore(archive.end(), to.path()).unwrap();
    let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
    assert_eq!(
        (read("f"), read("other")),
        ("second".into(), "first".into())
    );
    assert_eq!(
        (read("d/stays"), read("empty")),
        ("x".into(), "now a file".into())
    );
    assert!(
        fs::symlink_metadata(to.path().join("to-dir"))
            .unwrap()
            .is_dir()
    );
    assert_eq!((outcome.entries, outcome.files), (11, 4));
    let full = Forged::default()
        .directory("d")
        .file("d/f", "")
        .file("d", "");
    refused(full, "\"d\"");
}

#[test]
fn a_file_in_the_way_of_a_directory_is_refused() {
    refused(Forged::default().file("a", "").file("a/b", ""), "a/b");
    refused(Forged::default().file("./", "data"), "./");
    refused(
        Forged::default().entry(EntryType::Fifo, b".", b"", b""),
        "\".\"",
    );
}

#[test]
fn device_nodes_are_refused_unless_allowed() {
    let archive = |kind| {
        let mut header = forged_header(kind, b"dev/null", b"");
        header.set_size(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        Forged(header.as_bytes().to_vec())
    };
    refused(archive(EntryType::Char), "dev/null");
    refused(archive(EntryType::Block), "dev/null");
    let to = tempfile::tempdir().unwrap();
    let mut options = options();
    options.devices = Devices::Create;
    restore_from(
        Memory::new(archive(EntryType::Char).end()),
        to.path(),
        &options,
    )
    .unwrap();
    let made = fs::symlink_metadata(to.path().join("dev/null")).unwrap();
    assert!(made.file_type().is_char_device());
    assert_eq!((made.rdev(), made.mode() & 0o7777), (0x103, 0o644));

    // Cut to the kernel's width, this would be a device that the archive does not name.
    let mut header = forged_header(EntryType::Char, b"dev/null", b"");
    header.set_device_major(4096 + 1).unwrap();
    header.set_cksum();
    let archive = Forged(header.as_bytes().to_vec()).end();
    let to = tempfile::tempdir().unwrap();
    let error = restore_from(Memory::new(archive), to.path(), &options).unwrap_err();
    assert_eq!(error.reason(), "ArchiveCorrupt", "{error}");
}

/// Of a link, a directory and the like no data follow: an entry must not be taken for such.
#[test]
fn sizes_of_what_has_no_data() {
    for kind in [
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
    ] {
        let mut header = forged_header(kind, b"sized", b"first");
        header.set_size(1000);
        header.set_cksum();
        let mut archive = Forged::default().file("first", "x");
        archive.0.extend_from_slice(header.as_bytes());
        let to = tempfile::tempdir().unwrap();
        let outcome = restore(archive.file("next", "here").end(), to.path()).unwrap();
        assert_eq!(outcome.entries, 3, "{kind:?}");
        let next = fs::read_to_string(to.path().join("next")).unwrap();
        assert_eq!(next, "here", "{kind:?}");
    }
}

#[test]
fn times_beyond_the_file_system_are_counted() {
    let mut archive = Forged::default();
    for (name, seconds) in [(b"far", 1 << 40), (b"now", 1_800_000_000)] {
        let mut header = forged_header(EntryType::Regular, name, b"");
        header.set_size(0);
        header.set_mtime(seconds);
        header.set_cksum();
        archive.0.extend_from_slice(header.as_bytes());
    }
    let to = tempfile::tempdir_in("/tmp").unwrap();
    let outcome = restore(archive.end(), to.path()).unwrap();
    let kept = fs::metadata(to.path().join("far")).unwrap().mtime() == 1 << 40;
    let lost = outcome.lost.get("time beyond what the file system keeps");
    assert_eq!(lost.map(|loss| loss.count), (!kept).then_some(1));
}

#[test]
fn names_that_cannot_be() {
    refused(
        Forged::default()
            .pax(&[("path", &"x".repeat(256))])
            .file("f", ""),
        "255 bytes",
    );
    refused(
        Forged::default()
            .pax(&[("path", &"x/".repeat(20_000))])
            .directory("f"),
        "32768",
    );
    refused(
        Forged::default().pax(&[("path", "a\0b")]).file("f", ""),
        r"a\x00b",
    );
    refused(Forged::default().file("", ""), "no name");
    refused(Forged::default().link("l", ""), "\"l\"");
    refused(
        Forged::default()
            .pax(&[("linkpath", &"x".repeat(4096))])
            .link("l", "l"),
        "\"l\"",
    );
    refused(Forged::default().file("\x1b[2J/../", ""), r"\x1b[2J");
    // Control characters are names like any other.
    let to = tempfile::tempdir().unwrap();
    restore(Forged::default().file("\x1b[2J\n", "").end(), to.path()).unwrap();
    assert!(to.path().join("\x1b[2J\n").exists());
}

#[test]
fn what_is_not_known_is_refused_or_counted() {
    refused(
        Forged::default().entry(EntryType::new(b'M'), b"rest", b"", b""),
        "multi-volume",
    );
    refused(
        Forged::default().entry(EntryType::new(b'Z'), b"odd", b"", b""),
        "\"Z\"",
    );
    refused(
        Forged::default().entry(EntryType::GNUSparse, b"star", b"", b""),
        "star",
    );
    let version = [
        ("GNU.sparse.major", "2"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "0"),
    ];
    refused(Forged::default().pax(&version).file("future", ""), "2.0");
    let records = [
        ("SCHILY.acl.access", "user::rw-"),
        ("SCHILY.xattr.security.selinux", "label"),
        ("SCHILY.xattr.bogus.name", "value"),
        ("VENDOR.key", "value"),
        ("comment", "nothing"),
    ];
    let to = tempfile::tempdir().unwrap();
    let outcome = restore(
        Forged::default().pax(&records).file("f", "").end(),
        to.path(),
    )
    .unwrap();
    let kinds: Vec<_> = outcome
        .lost
        .iter()
        .map(|(kind, loss)| (kind, loss.count))
        .collect();
    let expected = ["PAX record \"VENDOR.key\"", "POSIX ACL", "xattr bogus"];
    assert_eq!(kinds, expected.map(|kind| (kind, 1)));
}

#[test]
fn sizes_beyond_all_files() {
    let header = |size: u64| {
        let mut header = forged_header(EntryType::Regular, b"huge", b"");
        header.set_size(size);
        header.set_cksum();
        Forged(header.as_bytes().to_vec()).end()
    };
    assert_eq!(failure(header(1 << 63)).0, "ArchiveCorrupt");
    let (reason, message) = failure(header((1 << 63) - 1));
    assert_eq!(reason, "DoesNotFit", "{message}");
    assert!(message.contains("huge"), "{message}");
    let sparse = Forged::default().pax(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "9223372036854775807"),
    ]);
    assert_eq!(
        failure(sparse.file("huge", &format!("{:\0<512}", "0\n")).end()).0,
        "DoesNotFit"
    );
    // Extended headers are held in memory, so there is a bound to them.
    let mut header = forged_header(EntryType::XHeader, b"pax", b"");
    header.set_size(1 << 40);
    header.set_cksum();
    refused(Forged(header.as_bytes().to_vec()), "1048576");
}

#[test]
fn owners_that_mean_no_change_are_refused() {
    let pax = |value| Forged::default().pax(&[("uid", value)]).file("f", "").end();
    assert_eq!(failure(pax("4294967295")).0, "ArchiveCorrupt");
    assert_eq!(failure(pax("4294967296")).0, "ArchiveCorrupt");
}

/// The root is a volume: what is mounted or lies in it is no business of the archive.
#[test]
fn a_root_that_is_not_empty_is_refused() {
    let to = tempfile::tempdir().unwrap();
    symlink("/etc", to.path().join("there")).unwrap();
    let error = restore(Forged::default().file("f", "").end(), to.path()).unwrap_err();
    assert_eq!(error.reason(), "VolumeNotEmpty");
    assert!(error.to_string().contains("there"));

    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("lost+found")).unwrap();
    let archive = Forged::default()
        .directory("./lost+found")
        .file("lost+found/f", "")
        .end();
    restore(archive, to.path()).unwrap();
    assert!(to.path().join("lost+found/f").exists());
}
