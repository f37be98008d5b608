//! Sizes, owners, times and device numbers that no file has.

use tar::{EntryType, Header};

use super::What::{Directory, File};
use super::{Specimen, corrupt, fails, leaves, refused};
use crate::forged::Forged;

/// A file `f` of no bytes whose header is altered.
fn altered(alter: impl Fn(&mut Header)) -> Forged {
    Forged::default().altered(EntryType::Regular, b"f", alter)
}

/// One whose field for the size is this.
fn sized(size: [u8; 12]) -> Forged {
    altered(|header| header.as_old_mut().size = size)
}

/// One whose field for the user is this.
fn owned(uid: [u8; 8]) -> Forged {
    altered(|header| header.as_old_mut().uid = uid)
}

/// A file `f` of no bytes with a PAX record.
fn pax(key: &str, value: &str) -> Forged {
    Forged::default().pax(&[(key, value)]).file("f", "")
}

pub fn specimens() -> Vec<Specimen> {
    let mut all = sizes();
    all.extend(others());
    all
}

fn sizes() -> Vec<Specimen> {
    let new = Forged::default;
    let with = |size: &str| new().pax(&[("size", size)]);
    // A header within the data of another file.
    let inner = String::from_utf8(new().file("inner", "").0).unwrap();
    vec![
        corrupt(
            "size-8-eib.tar",
            sized(*b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
            &["\"f\"", "9223372036854775808"],
        ),
        fails(
            "size-8-eib-less-1.tar",
            sized(*b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
            "DoesNotFit",
            &["\"f\""],
        ),
        corrupt("size-negative.tar", sized([0xff; 12]), &["\"f\"", "-1"]),
        corrupt(
            "size-beyond-64-bits.tar",
            sized(*b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            &["\"f\"", "number"],
        ),
        corrupt(
            "size-no-number.tar",
            sized(*b"00000000009\0"),
            &["\"f\"", "in place of a number"],
        ),
        corrupt(
            "size-minus.tar",
            sized(*b"-0000000001\0"),
            &["\"f\"", "in place of a number"],
        ),
        fails(
            "size-without-data.tar",
            sized(*b"00000020000\0"),
            "ArchiveTruncated",
            &["\"f\""],
        ),
        // Of a link, a directory and the like no data follow: an entry must not be taken for such.
        leaves(
            "size-of-directory.tar",
            new()
                .altered(EntryType::Directory, b"d", |header| header.set_size(1000))
                .file("next", "x"),
            &[(b"d", Directory), (b"next", File("x"))],
            &[],
        ),
        leaves(
            "size-of-hard-link.tar",
            new()
                .file("f", "x")
                .altered(EntryType::Link, b"l", |header| {
                    header.set_size(1000);
                    header.as_old_mut().linkname[0] = b'f';
                })
                .file("next", "x"),
            &[(b"f", File("x")), (b"l", File("x")), (b"next", File("x"))],
            &[],
        ),
        leaves(
            "pax-size-of-directory.tar",
            with("1000")
                .entry(EntryType::Directory, b"d", b"", b"")
                .file("next", "x"),
            &[(b"d", Directory), (b"next", File("x"))],
            &[],
        ),
        refused(
            "size-of-directory-by-slash.tar",
            new().file("d/", "data"),
            &["\"d/\"", "directory that has data"],
        ),
        // The size in the PAX header is what counts, whatever is in the other.
        leaves(
            "pax-size-of-more.tar",
            with("5")
                .altered(EntryType::Regular, b"f", |_| ())
                .raw(b"12345"),
            &[(b"f", File("12345"))],
            &[],
        ),
        leaves(
            "pax-size-of-less.tar",
            with("0").file("f", &inner),
            &[(b"f", File("")), (b"inner", File(""))],
            &[],
        ),
        fails(
            "pax-size-of-too-much.tar",
            with("99999").file("f", ""),
            "ArchiveTruncated",
            &["\"f\""],
        ),
        corrupt(
            "pax-size-8-eib.tar",
            with("9223372036854775808").file("f", ""),
            &["\"f\""],
        ),
        corrupt(
            "pax-size-beyond-64-bits.tar",
            with("18446744073709551616").file("f", ""),
            &["size"],
        ),
        corrupt(
            "pax-size-negative.tar",
            with("-1").file("f", ""),
            &["size", "-1"],
        ),
        // It is not for the long name's own header.
        leaves(
            "pax-size-and-long-name.tar",
            with("3")
                .entry(EntryType::GNULongName, b"L", b"", b"long\0")
                .file("f", "abc"),
            &[(b"long", File("abc"))],
            &[],
        ),
    ]
}

fn others() -> Vec<Specimen> {
    let new = Forged::default;
    let device = |kind| {
        new().altered(kind, b"dev/null", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
    };
    let not_allowed = &["\"dev/null\"", "device node"];
    vec![
        refused("device-char.tar", device(EntryType::Char), not_allowed),
        refused("device-block.tar", device(EntryType::Block), not_allowed),
        corrupt(
            "device-beyond-the-kernel.tar",
            new().altered(EntryType::Char, b"dev/null", |header| {
                header.set_device_major(4097).unwrap();
            }),
            &["\"dev/null\"", "4097"],
        ),
        // The highest number means "no change" to chown(2): the file would stay root's.
        corrupt("uid-minus-1.tar", owned([0xff; 8]), &["\"f\"", "-1"]),
        corrupt(
            "uid-that-changes-nothing.tar",
            owned(*b"\x80\0\0\0\xff\xff\xff\xff"),
            &["\"f\"", "owner"],
        ),
        corrupt(
            "uid-no-number.tar",
            owned(*b"root\0\0\0\0"),
            &["\"f\"", "root"],
        ),
        corrupt(
            "pax-uid-that-changes-nothing.tar",
            pax("uid", "4294967295"),
            &["\"f\"", "owner"],
        ),
        corrupt(
            "pax-uid-of-33-bits.tar",
            pax("uid", "4294967296"),
            &["\"f\"", "owner"],
        ),
        corrupt("pax-uid-minus-1.tar", pax("uid", "-1"), &["uid", "-1"]),
        corrupt(
            "pax-gid-that-changes-nothing.tar",
            pax("gid", "4294967295"),
            &["\"f\"", "group"],
        ),
        corrupt(
            "pax-time-2-to-the-63.tar",
            pax("mtime", "9223372036854775808"),
            &["mtime"],
        ),
        corrupt(
            "pax-time-of-letters.tar",
            pax("mtime", "1.5e9"),
            &["mtime", "1.5e9"],
        ),
        leaves(
            "pax-time-2-to-the-63-less-1.tar",
            pax("mtime", "9223372036854775807.999999999999"),
            &[(b"f", File(""))],
            &["time beyond what the file system keeps"],
        ),
        leaves(
            "pax-time-long-before.tar",
            pax("mtime", "-9223372036854775807.999999999999"),
            &[(b"f", File(""))],
            &["time beyond what the file system keeps"],
        ),
        corrupt(
            "time-2-to-the-63.tar",
            altered(|header| header.as_old_mut().mtime = *b"\x80\0\0\0\x80\0\0\0\0\0\0\0"),
            &["\"f\"", "9223372036854775808"],
        ),
        leaves(
            "time-2-to-the-63-less-1.tar",
            altered(|header| {
                header.as_old_mut().mtime = *b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff";
            }),
            &[(b"f", File(""))],
            &["time beyond what the file system keeps"],
        ),
    ]
}
