//! What is particular to one compression or another.

use archive::Verified;

use crate::compare::assert_same;
use crate::pack::{self, CHECKED, Compression, compress, filter};
use crate::support::{Random, failure, restore};

/// A tree of one file of some megabytes and a few small ones, and its archive.
fn tree() -> (tempfile::TempDir, Vec<u8>) {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(40);
    std::fs::write(original.path().join("large"), random.bytes(5_000_001)).unwrap();
    for index in 0..20 {
        std::fs::write(original.path().join(format!("{index}")), random.bytes(1000)).unwrap();
    }
    let packed = pack::tar(original.path(), &["--format=pax"]);
    (original, packed)
}

/// Restores it and says how it was verified.
fn verified(original: &tempfile::TempDir, object: Vec<u8>) -> Verified {
    let to = tempfile::tempdir().unwrap();
    let outcome = restore(object, to.path()).unwrap();
    assert_same(original.path(), to.path());
    outcome.verified
}

#[test]
fn archives_in_parts() {
    let (original, plain) = tree();
    for compression in CHECKED {
        let mut object = Vec::new();
        for part in plain.chunks(plain.len() / 7 + 1) {
            object.extend(compress(compression, part));
        }
        assert_eq!(
            verified(&original, object),
            Verified::Stream,
            "{compression:?}"
        );
    }
}

#[test]
fn what_is_put_in_between() {
    let (original, plain) = tree();
    let (one, other) = plain.split_at(1_234_567);
    let parts = |compression| [compress(compression, one), compress(compression, other)];
    // Padding, which xz has in fours (The .xz File Format, 2.2).
    let [one, other] = parts(Compression::Xz);
    let padded = [&one[..], &[0; 8], &other, &[0; 4]].concat();
    assert_eq!(verified(&original, padded), Verified::Stream);
    // Skippable frames.
    let [one, other] = parts(Compression::Lz4);
    let skippable = b"\x53\x2a\x4d\x18\x05\0\0\0anyth";
    let skipped = [&one[..], skippable, &other, skippable].concat();
    assert_eq!(verified(&original, skipped), Verified::Stream);
    for compression in [Compression::Gzip, Compression::Bzip2] {
        let [one, other] = parts(compression);
        let padded = [&one[..], &[0; 8], &other].concat();
        assert_eq!(failure(padded).0, "ArchiveCorrupt", "{compression:?}");
    }
}

#[test]
fn choices_of_who_packs() {
    let (original, plain) = tree();
    for (program, arguments, expected) in [
        ("gzip", &["-9c"][..], Verified::Stream),
        ("bzip2", &["-1c"], Verified::Stream),
        ("xz", &["-c", "--check=sha256", "-0"], Verified::Stream),
        ("xz", &["-c", "--check=crc32", "-0"], Verified::Stream),
        ("xz", &["-c", "--check=none", "-0"], Verified::None),
        // Several blocks, and a dictionary of 64 MiB.
        ("xz", &["-1c", "-T2", "--block-size=1MiB"], Verified::Stream),
        (
            "xz",
            &["-c", "--lzma2=preset=0,dict=64MiB"],
            Verified::Stream,
        ),
        ("lz4", &["-qc", "-B4"], Verified::Stream),
        ("lz4", &["-qc", "-BD", "-B4"], Verified::Stream),
        ("lz4", &["-qc", "-BD"], Verified::Stream),
        ("lz4", &["-qc", "--content-size"], Verified::Stream),
        ("lz4", &["-qc", "--no-frame-crc"], Verified::None),
        ("lz4", &["-qc", "--no-frame-crc", "-BX"], Verified::Stream),
    ] {
        let object = filter(program, arguments, &plain);
        let found = verified(&original, object);
        assert_eq!(found, expected, "{program} {arguments:?}");
    }
}

#[test]
fn dictionaries_beyond_the_limit_are_refused_with_the_figure() {
    let (_original, plain) = tree();
    let object = filter("xz", &["-c", "--lzma2=preset=0,dict=192MiB"], &plain);
    let (reason, message) = failure(object);
    assert_eq!(reason, "WindowTooLarge", "{message}");
    assert!(
        message.contains("268435456") && message.contains("134217728"),
        "{message}"
    );
}
