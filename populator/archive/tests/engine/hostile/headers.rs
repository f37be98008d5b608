//! Extended headers that are malformed, endless, orphaned or in a place where they mean another thing.

use tar::EntryType;

use super::What::File;
use super::{Specimen, corrupt, leaves, refused};
use crate::forged::Forged;

/// What most of them leave.
const ONE: &[super::Left] = &[(b"f", File("x"))];

/// A file `f` after a PAX header that is these bytes.
fn records(bytes: &[u8]) -> Forged {
    Forged::default()
        .entry(EntryType::XHeader, b"pax", b"", bytes)
        .file("f", "")
}

fn global(bytes: &[u8]) -> Forged {
    Forged::default().entry(EntryType::XGlobalHeader, b"g", b"", bytes)
}

/// A header of this type that claims so many bytes, with none of them.
fn claims(kind: EntryType, size: u64) -> Forged {
    Forged::default().altered(kind, b"long", |header| header.set_size(size))
}

pub fn specimens() -> Vec<Specimen> {
    let mut all = malformed();
    all.extend(misplaced());
    all.extend(attributes());
    all
}

fn malformed() -> Vec<Specimen> {
    let malformed = &["PAX record is malformed"];
    let limit = &["\"long\"", "1048576 are read"];
    vec![
        corrupt("pax-length-short.tar", records(b"8 path=abc\n"), malformed),
        corrupt("pax-length-long.tar", records(b"99 path=abc\n"), malformed),
        corrupt("pax-length-0.tar", records(b"0 path=abc\n"), malformed),
        corrupt("pax-length-missing.tar", records(b"path=abc\n"), malformed),
        corrupt(
            "pax-length-negative.tar",
            records(b"-12 path=abc\n"),
            malformed,
        ),
        corrupt(
            "pax-length-beyond-64-bits.tar",
            records(b"99999999999999999999 path=abc\n"),
            malformed,
        ),
        corrupt(
            "pax-length-64-bits.tar",
            records(b"18446744073709551615 path=abc\n"),
            malformed,
        ),
        corrupt("pax-no-equals.tar", records(b"11 pathabc\n"), malformed),
        corrupt("pax-no-newline.tar", records(b"12 path=abcd"), malformed),
        corrupt(
            "pax-control-characters.tar",
            records(b"\x1b[2J\n"),
            &[r#""\x1b[2J\x0a""#],
        ),
        corrupt(
            "pax-nul-in-key.tar",
            records(b"25 SCHILY.xattr.user.\0=v\n"),
            &[r"user.\x00"],
        ),
        refused(
            "pax-nul-in-path.tar",
            records(b"12 path=a\0b\n"),
            &[r#""a\x00b""#, "NUL"],
        ),
        corrupt(
            "pax-nul-between.tar",
            records(b"10 path=a\n\0\x0010 path=b\n"),
            malformed,
        ),
        refused("pax-1-tib.tar", claims(EntryType::XHeader, 1 << 40), limit),
        refused(
            "long-name-1-gib.tar",
            claims(EntryType::GNULongName, 1 << 30),
            limit,
        ),
        refused(
            "long-link-1-gib.tar",
            claims(EntryType::GNULongLink, 1 << 30),
            limit,
        ),
        refused(
            "global-1-gib.tar",
            claims(EntryType::XGlobalHeader, 1 << 30),
            limit,
        ),
    ]
}

fn misplaced() -> Vec<Specimen> {
    let new = Forged::default;
    let comment = [
        b"700000 comment=".to_vec(),
        vec![b'x'; 699_984],
        b"\n".to_vec(),
    ]
    .concat();
    let orphan = &["its last header belongs to no entry"];
    let in_global = &["for one entry", "global header"];
    vec![
        corrupt("orphan-pax.tar", new().pax(&[("path", "f")]), orphan),
        corrupt(
            "orphan-long-name.tar",
            new().entry(EntryType::GNULongName, b"L", b"", b"f\0"),
            orphan,
        ),
        corrupt(
            "global-path.tar",
            global(b"9 path=a\n").file("f", ""),
            in_global,
        ),
        corrupt(
            "global-linkpath.tar",
            global(b"14 linkpath=a\n").link("l", "b"),
            in_global,
        ),
        corrupt(
            "global-size.tar",
            global(b"11 size=12\n").file("f", ""),
            in_global,
        ),
        corrupt(
            "global-sparse.tar",
            global(b"22 GNU.sparse.major=1\n").file("f", ""),
            in_global,
        ),
        leaves(
            "global-owner.tar",
            global(b"9 gid=77\n")
                .file("f", "x")
                .raw(&global(b"7 gid=\n").0)
                .file("g", "y"),
            &[(b"f", File("x")), (b"g", File("y"))],
            &[],
        ),
        corrupt(
            "global-between.tar",
            new()
                .pax(&[("path", "f")])
                .raw(&global(b"9 gid=77\n").0)
                .file("f", ""),
            &["global header stands between"],
        ),
        refused(
            "global-after-global.tar.gz",
            global(&comment)
                .file("f", "")
                .raw(&global(&comment).0)
                .file("g", ""),
            &["\"g\"", "1400000 bytes", "1048576"],
        ),
        refused(
            "pax-after-pax.tar.gz",
            new()
                .raw(&records(&comment).0[..700_416 + 512])
                .raw(&records(&comment).0),
            &["\"pax\"", "1400000 bytes", "1048576"],
        ),
        corrupt(
            "two-names.tar",
            new()
                .entry(EntryType::GNULongName, b"L", b"", b"one\0")
                .pax(&[("path", "other")])
                .file("f", ""),
            &["\"other\"", "\"one\""],
        ),
        corrupt(
            "two-targets.tar",
            new()
                .entry(EntryType::GNULongLink, b"K", b"", b"one\0")
                .pax(&[("linkpath", "other")])
                .link("l", "t"),
            &["\"l\"", "\"other\"", "\"one\""],
        ),
        refused(
            "rest-of-volume.tar",
            new().entry(EntryType::new(b'M'), b"rest", b"", b""),
            &["\"rest\"", "multi-volume"],
        ),
        refused(
            "unknown-type.tar",
            new().entry(EntryType::new(b'Z'), b"odd", b"", b""),
            &["\"odd\"", "type \"Z\""],
        ),
    ]
}

fn attributes() -> Vec<Specimen> {
    let new = Forged::default;
    let xattr = |name: &str, value: &str| {
        new()
            .pax(&[(format!("SCHILY.xattr.{name}").as_str(), value)])
            .file("f", "x")
    };
    let left = ONE;
    let many: Vec<_> = (0..10_001)
        .map(|index| format!("SCHILY.xattr.user.{index}"))
        .collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "v")).collect();
    vec![
        corrupt("xattr-without-name.tar", xattr("", "v"), &["SCHILY.xattr."]),
        corrupt(
            "xattr-with-nul.tar",
            xattr("user.a\0b", "v"),
            &[r"user.a\x00b"],
        ),
        leaves(
            "xattr-of-300-bytes.tar",
            xattr(&format!("user.{}", "n".repeat(295)), "v"),
            left,
            &["xattr user"],
        ),
        leaves(
            "xattr-value-of-70000-bytes.tar.gz",
            xattr("user.large", &"v".repeat(70_000)),
            left,
            &["xattr user"],
        ),
        leaves(
            "xattr-of-no-namespace.tar",
            xattr("bogus.\x1b[2J", "v"),
            left,
            &["xattr bogus"],
        ),
        leaves(
            "xattr-system.tar",
            xattr("system.posix_acl_access", "rubbish"),
            left,
            &["xattr system"],
        ),
        leaves(
            "xattr-capability.tar",
            xattr("security.capability", "rubbish"),
            left,
            &["xattr security"],
        ),
        corrupt(
            "xattrs-10001.tar.gz",
            new().pax(&many).file("f", "x"),
            &["user.10000"],
        ),
        leaves(
            "not-restored.tar",
            new()
                .pax(&[
                    ("SCHILY.acl.access", "user::rw-"),
                    ("VENDOR.key", "value"),
                    ("comment", "nothing"),
                ])
                .file("f", "x"),
            left,
            &["PAX record \"VENDOR.key\"", "POSIX ACL"],
        ),
    ]
}
