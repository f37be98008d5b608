//! Links that point out, and entries that would go through them.

use tar::EntryType;

use super::What::{Directory, File, Link};
use super::{Specimen, leaves, refused};
use crate::forged::Forged;

pub fn specimens() -> Vec<Specimen> {
    let new = Forged::default;
    let through = |target: &str| new().directory("directory").link("l", target);
    let way = &["\"l/victim\"", "its path leads through"];
    vec![
        leaves(
            "links-out.tar",
            new()
                .link("relative", "../victim")
                .link("absolute", "/etc/passwd")
                .link("loop", "loop"),
            &[
                (b"relative", Link("../victim")),
                (b"absolute", Link("/etc/passwd")),
                (b"loop", Link("loop")),
            ],
            &[],
        ),
        refused(
            "through-link-up.tar",
            through("..").file("l/victim", "x"),
            way,
        ),
        refused(
            "through-link-absolute.tar",
            through("/tmp").file("l/victim", "x"),
            way,
        ),
        refused(
            "through-link-to-root.tar",
            through(".").file("l/victim", "x"),
            way,
        ),
        refused(
            "through-link-inside.tar",
            through("directory").file("l/victim", "x"),
            way,
        ),
        refused(
            "directory-through-link.tar",
            through("..").directory("l/victim"),
            way,
        ),
        refused(
            "link-through-link.tar",
            through("..").link("l/victim", "x"),
            way,
        ),
        refused(
            "hard-link-through-link.tar",
            through("..").file("a", "").hard("l/victim", "a"),
            way,
        ),
        refused(
            "fifo-through-link.tar",
            through("..").entry(EntryType::Fifo, b"l/victim", b"", b""),
            way,
        ),
        refused(
            "deep-through-link.tar",
            through("..").file("l/deep/victim", "x"),
            &["\"l/deep/victim\"", "its path leads through"],
        ),
        refused(
            "through-two-links.tar",
            new()
                .link("one", ".")
                .link("two", "one/..")
                .file("two/victim", "x"),
            &["\"two/victim\"", "its path leads through"],
        ),
        refused(
            "link-over-directory-then-beneath.tar",
            new().directory("d").link("d", "..").file("d/victim", "x"),
            &["\"d/victim\"", "its path leads through"],
        ),
        refused(
            "link-over-file-then-beneath.tar",
            new().file("d", "x").link("d", "..").file("d/victim", "x"),
            &["\"d/victim\"", "its path leads through"],
        ),
        refused(
            "link-over-full-directory.tar",
            new().directory("d").file("d/victim", "x").link("d", ".."),
            &["\"d\"", "not empty"],
        ),
        leaves(
            "file-over-link.tar",
            new().link("l", "../victim").file("l", "mine"),
            &[(b"l", File("mine"))],
            &[],
        ),
        leaves(
            "directory-over-link.tar",
            new()
                .link("l", "..")
                .directory("l")
                .file("l/victim", "mine"),
            &[(b"l", Directory), (b"l/victim", File("mine"))],
            &[],
        ),
        // Its metadata, which come last, must not reach what the link points to.
        leaves(
            "link-over-directory.tar",
            new().directory("d").link("d", ".."),
            &[(b"d", Link(".."))],
            &[],
        ),
        refused(
            "hard-link-up.tar",
            new().hard("l", "../victim"),
            &["\"l\"", "\"../victim\""],
        ),
        refused(
            "hard-link-absolute.tar",
            new().hard("l", "/etc/passwd"),
            &["\"l\"", "\"/etc/passwd\"", "no entry before it"],
        ),
        refused(
            "hard-link-target-through-link.tar",
            new().link("s", "/etc").hard("l", "s/passwd"),
            &["\"l\"", "no entry before it"],
        ),
        refused(
            "hard-link-missing.tar",
            new().hard("l", "missing"),
            &["\"l\"", "\"missing\""],
        ),
        refused(
            "hard-link-to-later.tar",
            new().hard("l", "later").file("later", "x"),
            &["\"l\"", "\"later\"", "no entry before it"],
        ),
        refused(
            "hard-link-to-directory.tar",
            new().directory("d").hard("l", "d"),
            &["\"l\"", "that is a directory"],
        ),
        refused(
            "hard-link-to-root.tar",
            new().hard("l", "."),
            &["\"l\"", "that is the root"],
        ),
        refused(
            "hard-link-to-nothing.tar",
            new().hard("l", ""),
            &["\"l\"", "no name"],
        ),
        leaves(
            "hard-link-to-itself.tar",
            new().file("f", "x").hard("f", "f"),
            &[(b"f", File("x"))],
            &[],
        ),
        // A hard link to a symbolic link is one to the link itself.
        leaves(
            "hard-link-to-link-then-overwritten.tar",
            new()
                .link("s", "../victim")
                .hard("l", "s")
                .file("l", "mine"),
            &[(b"s", Link("../victim")), (b"l", File("mine"))],
            &[],
        ),
        leaves(
            "hard-link-then-overwritten.tar",
            new().file("a", "first").hard("b", "a").file("b", "second"),
            &[(b"a", File("first")), (b"b", File("second"))],
            &[],
        ),
        leaves(
            "first-of-hard-links-overwritten.tar",
            new().file("a", "first").hard("b", "a").file("a", "second"),
            &[(b"a", File("second")), (b"b", File("first"))],
            &[],
        ),
        refused(
            "link-without-target.tar",
            new().link("l", ""),
            &["\"l\"", "empty"],
        ),
        refused(
            "link-of-4096-bytes.tar",
            new().pax(&[("linkpath", &"x".repeat(4096))]).link("l", "l"),
            &["\"l\"", "4095"],
        ),
        refused(
            "link-with-nul.tar",
            new().pax(&[("linkpath", "a\0b")]).link("l", "l"),
            &["\"l\"", "NUL"],
        ),
    ]
}
