//! What is particular to one compression or another.

use archive::{Budget, Verified};

use crate::compare::assert_same;
use crate::pack::{self, CHECKED, Compression, compress, filter};
use crate::support::{Memory, Random, failure, options, restore, restore_from};

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

/// Those that are decoded as a whole, ahead of the reader, among those that are not.
#[test]
fn frames_of_every_kind_in_one_object() {
    let (original, plain) = tree();
    let whole = |part: &[u8]| {
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        let flag = zstd::zstd_safe::CParameter::ChecksumFlag(true);
        compressor.set_parameter(flag).unwrap();
        compressor.compress(part).unwrap()
    };
    let mut random = Random(41);
    let mut object = Vec::new();
    let mut rest = &plain[..];
    while !rest.is_empty() {
        let length = random.index(400_000).min(rest.len());
        let (part, behind) = rest.split_at(length);
        rest = behind;
        match random.below(8) {
            // Does not say what it unpacks to.
            0 => object.extend(compress(Compression::Zstd, part)),
            1 => object.extend([&b"\x53\x2a\x4d\x18\x05\0\0\0anyth"[..], &whole(part)].concat()),
            _ => object.extend(whole(part)),
        }
    }
    for memory in [Budget::DEFAULT, 1] {
        let mut options = options();
        options.budget = Budget::new(memory);
        let to = tempfile::tempdir().unwrap();
        let outcome = restore_from(Memory::new(object.clone()), to.path(), &options).unwrap();
        assert_eq!(outcome.verified, Verified::Stream);
        assert_same(original.path(), to.path());
    }
}

/// Frames whose headers say other things than their blocks.
#[test]
fn frames_that_lie() {
    let (_original, plain) = tree();
    let frame = zstd::bulk::compress(&plain[..100_000], 1).unwrap();
    // Content size in four bytes behind the descriptor: larger, and smaller, than it is.
    assert_eq!(frame[4] & 0xe0, 0xa0, "one segment, four bytes");
    for claimed in [100_001_u32, 99_999, 0] {
        let mut lying = frame.clone();
        lying[5..9].copy_from_slice(&claimed.to_le_bytes());
        assert_eq!(failure(lying).0, "ArchiveCorrupt", "{claimed}");
    }
    // Empty blocks without end, in a frame that says that it has one byte.
    let mut endless = b"\x28\xb5\x2f\xfd\x20\x01".to_vec();
    endless.extend(vec![0; 3 * 200_000]);
    assert_eq!(failure(endless).0, "ArchiveTruncated");
    // A block of the type that there is not.
    let reserved = b"\x28\xb5\x2f\xfd\x20\x01\x07\0\0".to_vec();
    assert_eq!(failure(reserved).0, "ArchiveCorrupt");
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
