//! Names that lead out, cannot be, or are taken.

use tar::EntryType;

use super::What::{Directory, File};
use super::{Fate, Specimen, leaves, refused};
use crate::forged::Forged;

pub fn specimens() -> Vec<Specimen> {
    let new = Forged::default;
    let pax = |path: &str| new().pax(&[("path", path)]);
    let long = |name: &[u8]| new().entry(EntryType::GNULongName, b"L", b"", name);
    vec![
        leaves(
            "absolute.tar",
            new()
                .file("/engine-test-victim", "x")
                .hard("/b", "/engine-test-victim"),
            &[(b"engine-test-victim", File("x")), (b"b", File("x"))],
            &["leading / of a link's target", "leading / of a name"],
        ),
        refused(
            "dot-dot.tar",
            new().file("../victim", "x"),
            &["\"../victim\"", "\"..\""],
        ),
        refused(
            "dot-dot-within.tar",
            new().file("a/../../victim", "x"),
            &["\"a/../../victim\"", "\"..\""],
        ),
        refused(
            "dot-dot-directory.tar",
            new().directory(".."),
            &["entry \"..\""],
        ),
        refused(
            "dot-dot-absolute.tar",
            new().file("/../victim", "x"),
            &["\"/../victim\""],
        ),
        refused(
            "dot-dot-pax.tar",
            pax("../pax").file("harmless", "x"),
            &["\"../pax\""],
        ),
        refused(
            "dot-dot-long-name.tar",
            long(b"../long\0").file("harmless", "x"),
            &["\"../long\""],
        ),
        refused(
            "dot-dot-prefix.tar",
            new().altered(EntryType::Regular, b"victim", |header| {
                header.as_ustar_mut().unwrap().prefix[..2].copy_from_slice(b"..");
            }),
            &["\"../victim\""],
        ),
        leaves(
            "control-characters.tar",
            new().file("\x1b[2J\n\r\x07", "x"),
            &[(b"\x1b[2J\n\r\x07", File("x"))],
            &[],
        ),
        refused(
            "control-characters-refused.tar",
            new().file("\x1b[2J\n/../", ""),
            &[r#""\x1b[2J\x0a/../""#],
        ),
        leaves(
            "no-utf-8.tar",
            new().entry(EntryType::Regular, b"\xff\xc3/\xed\xa0\x80", b"", b"x"),
            &[
                (b"\xff\xc3", Directory),
                (b"\xff\xc3/\xed\xa0\x80", File("x")),
            ],
            &[],
        ),
        refused(
            "nul.tar",
            pax("a\0b").file("f", ""),
            &[r#""a\x00b""#, "NUL"],
        ),
        refused("no-name.tar", new().file("", ""), &["no name"]),
        refused(
            "part-of-256-bytes.tar",
            pax(&"x".repeat(256)).file("f", ""),
            &["255 bytes"],
        ),
        refused(
            "directory-of-256-bytes.tar",
            pax(&format!("{}/f", "x".repeat(256))).file("f", ""),
            &["255 bytes"],
        ),
        Specimen {
            file: "path-of-5000-bytes.tar",
            archive: pax(&format!("{}f", format!("{}/", "d".repeat(99)).repeat(50)))
                .file("f", "x")
                .end(),
            fate: Fate::Entries(1),
        },
        Specimen {
            file: "16000-directories-deep.tar.gz",
            archive: pax(&"d/".repeat(16_000)).directory("d").end(),
            fate: Fate::Entries(1),
        },
        refused(
            "path-of-40000-bytes.tar.gz",
            pax(&"x/".repeat(20_000)).directory("f"),
            &["32768"],
        ),
        refused(
            "million-directories-deep.tar.gz",
            pax(&"d/".repeat(1_000_000)).directory("d"),
            &["2000014 bytes", "1048576"],
        ),
        refused(
            "million-directories-deep-gnu.tar.gz",
            long(&b"d/".repeat(1_000_000)).directory("d"),
            &["2000000 bytes", "1048576"],
        ),
        refused("file-for-root.tar", new().file("./", "data"), &["\"./\""]),
        refused(
            "fifo-for-root.tar",
            new().entry(EntryType::Fifo, b".", b"", b""),
            &["\".\"", "root"],
        ),
        leaves(
            "file-over-file.tar",
            new().file("f", "first").file("f", "second"),
            &[(b"f", File("second"))],
            &[],
        ),
        leaves(
            "file-over-directory.tar",
            new().directory("d").file("d", "now a file"),
            &[(b"d", File("now a file"))],
            &[],
        ),
        refused(
            "file-over-full-directory.tar",
            new().directory("d").file("d/f", "").file("d", ""),
            &["\"d\"", "not empty"],
        ),
        leaves(
            "directory-over-file.tar",
            new().file("f", "x").directory("f").file("f/g", "y"),
            &[(b"f", Directory), (b"f/g", File("y"))],
            &[],
        ),
        leaves(
            "directory-over-directory.tar",
            new().directory("d").file("d/stays", "x").directory("d"),
            &[(b"d", Directory), (b"d/stays", File("x"))],
            &[],
        ),
        refused(
            "beneath-a-file.tar",
            new().file("a", "").file("a/b", ""),
            &["\"a/b\"", "not a directory"],
        ),
        refused(
            "beneath-a-fifo.tar",
            new().entry(EntryType::Fifo, b"p", b"", b"").file("p/b", ""),
            &["\"p/b\"", "not a directory"],
        ),
    ]
}
