//! Cut off, altered, or no archive at all: never a success with different data.

use crate::compare::difference;
use crate::pack::{self, ALL, CHECKED, Compression, compress, filter};
use crate::support::{Random, failure, restore};
use crate::tree::{self, Limits};

const LIMITS: Limits = Limits {
    rich: true,
    devices: false,
    path: 300,
    fifos: true,
    large_ids: true,
};

fn small_tree() -> (tempfile::TempDir, Vec<u8>) {
    let original = tempfile::tempdir().unwrap();
    std::fs::create_dir(original.path().join("d")).unwrap();
    let mut random = Random(20);
    for index in 0..12 {
        let length = random.index(3000);
        let content = random.bytes(length);
        std::fs::write(original.path().join(format!("d/file-{index}")), content).unwrap();
    }
    let packed = pack::tar(original.path(), &["--format=pax"]);
    (original, packed)
}

#[test]
fn cut_off_anywhere() {
    let (_original, plain) = small_tree();
    let last = plain.iter().rposition(|byte| *byte != 0).unwrap();
    // An uncompressed archive is complete with its mark; the padding after that is nobody's.
    let complete = last.next_multiple_of(512) + 1024;
    for compression in ALL {
        let object = compress(compression, &plain);
        let length = if compression == Compression::None {
            complete
        } else {
            object.len()
        };
        let mut random = Random(21);
        let mut ends: Vec<usize> = (1..40).chain(length - 40..length).collect();
        ends.extend((0..500).map(|_| random.index(length)));
        for end in ends {
            let (reason, message) = failure(object[..end].to_vec());
            let expected = match end {
                0 => "ArchiveEmpty",
                _ if end < compression.magic() => "NotAnArchive",
                _ => "ArchiveTruncated",
            };
            assert_eq!(reason, expected, "{compression:?} at {end}: {message}");
        }
    }
}

#[test]
fn one_bit_flipped() {
    let (original, plain) = small_tree();
    for compression in CHECKED {
        let object = compress(compression, &plain);
        let mut random = Random(22);
        let mut unchanged = 0;
        for _ in 0..500 {
            let bit = random.index(object.len() * 8);
            let mut flipped = object.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let to = tempfile::tempdir().unwrap();
            if restore(flipped, to.path()).is_ok() {
                // The time or the system in gzip's header, say.
                assert_eq!(
                    difference(original.path(), to.path()),
                    None,
                    "{compression:?} bit {bit}"
                );
                unchanged += 1;
            }
        }
        assert!(
            unchanged < 20,
            "{compression:?}: {unchanged} flips went unnoticed"
        );
    }
}

#[test]
fn headers_of_a_plain_archive_are_summed() {
    let (_original, plain) = small_tree();
    let second = plain
        .windows(6)
        .enumerate()
        .filter(|(_, w)| *w == b"ustar\0")
        .nth(1)
        .unwrap()
        .0;
    let mut altered = plain.clone();
    altered[second] ^= 1;
    assert_eq!(failure(altered).0, "ArchiveCorrupt");
    let mut altered = plain;
    altered[3] ^= 1;
    assert_eq!(failure(altered).0, "NotAnArchive");
}

#[test]
fn rubbish_after_the_end() {
    let (original, plain) = small_tree();
    for compression in ALL {
        let mut rubbish = compress(compression, &plain);
        rubbish.extend(b"rubbish");
        let (reason, message) = failure(rubbish);
        assert_eq!(reason, "ArchiveCorrupt", "{message}");
        // Inside the compression.
        let rubbish = [&plain[..], b"rubbish"].concat();
        assert_eq!(failure(compress(compression, &rubbish)).0, "ArchiveCorrupt");
        // Zeros are padding.
        let padded = compress(compression, &[&plain[..], &[0; 5000]].concat());
        let to = tempfile::tempdir().unwrap();
        restore(padded, to.path()).unwrap();
        assert_eq!(difference(original.path(), to.path()), None);
    }
}

#[test]
fn the_end_mark_is_two_blocks() {
    let (_original, plain) = small_tree();
    let last = plain
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap()
        .next_multiple_of(512);
    for compression in ALL {
        for missing in [last, last + 512] {
            let (reason, message) = failure(compress(compression, &plain[..missing]));
            assert_eq!(reason, "ArchiveTruncated", "{message}");
        }
        let lone = [&plain[..last], &[0; 512], &plain[..512], &[0; 1024]].concat();
        assert_eq!(failure(compress(compression, &lone)).0, "ArchiveCorrupt");
    }
}

#[test]
fn what_is_no_archive_is_named() {
    for (object, word) in [
        (b"LZIP\x01...".to_vec(), "lzip"),
        (filter("lz4", &["-qlc"], &vec![b'z'; 5000]), "legacy"),
        (b"PK\x03\x04....".to_vec(), "zip"),
        (b"<?xml version='1.0'?><Error/>".to_vec(), "XML"),
        (vec![b'z'; 5000], "zzzz"),
        (vec![0; 100], r"\x00"),
    ] {
        let (reason, message) = failure(object);
        assert_eq!(reason, "NotAnArchive", "{message}");
        assert!(
            message.contains(word) && message.contains(".tar.zst"),
            "{message}"
        );
    }
}

#[test]
fn what_is_compressed_is_an_archive_too() {
    for compression in CHECKED {
        let (reason, message) = failure(compress(compression, &vec![b'z'; 5000]));
        assert_eq!(reason, "NotAnArchive", "{message}");
        assert!(message.contains("not a tar"), "{message}");
    }
}

#[test]
fn nothing_is_not_a_success() {
    assert_eq!(failure(Vec::new()).0, "ArchiveEmpty");
    assert_eq!(failure(vec![0; 10240]).0, "ArchiveEmpty");
    for compression in CHECKED {
        assert_eq!(
            failure(compress(compression, &[0; 10240])).0,
            "ArchiveEmpty"
        );
        assert_eq!(failure(compress(compression, b"")).0, "ArchiveTruncated");
    }
}

#[test]
fn windows_beyond_the_limit_are_refused_with_the_figure() {
    let original = tempfile::tempdir().unwrap();
    tree::make(original.path(), LIMITS, 23, 10);
    // Unknown size, as in a pipe, so that the header declares the whole window.
    let script = "tar -c -C \"$0\" . | zstd -qc --long=31";
    let object = pack::output(
        std::process::Command::new("sh")
            .args(["-c", script])
            .arg(original.path()),
    );
    let (reason, message) = failure(object);
    assert_eq!(reason, "WindowTooLarge", "{message}");
    assert!(
        message.contains("2147483648") && message.contains("134217728"),
        "{message}"
    );
}

/// What stands between members and frames is cut off, or is not what belongs there.
#[test]
fn seams_that_are_not_whole() {
    let (original, plain) = small_tree();
    let (one, other) = plain.split_at(plain.len() / 2);
    let gzip = |bytes: &[u8]| compress(Compression::Gzip, bytes);
    let zstd = |bytes: &[u8]| compress(Compression::Zstd, bytes);
    // Within the second member's header, and within the first one's trailer.
    let (first, second) = (gzip(one), gzip(other));
    for kept in 0..12 {
        let object = [&first[..], &second[..kept]].concat();
        assert_eq!(failure(object).0, "ArchiveTruncated", "{kept} bytes");
        let object = first[..first.len() - kept].to_vec();
        assert_eq!(failure(object).0, "ArchiveTruncated", "{kept} bytes less");
    }
    // A frame that is to be passed over has to be there; all bytes of the archive came before.
    let skippable = b"\x53\x2a\x4d\x18\x05\0\0\0anyth";
    let whole = zstd(&plain);
    for kept in 1..skippable.len() {
        let object = [&whole[..], &skippable[..kept]].concat();
        assert_eq!(failure(object).0, "ArchiveTruncated", "{kept} bytes");
    }
    let to = tempfile::tempdir().unwrap();
    restore([&whole[..], skippable].concat(), to.path()).unwrap();
    assert_eq!(difference(original.path(), to.path()), None);
    // gzip has padding of zeros (tapes), zstd has not.
    let to = tempfile::tempdir().unwrap();
    restore([gzip(&plain), vec![0; 1]].concat(), to.path()).unwrap();
    assert_eq!(difference(original.path(), to.path()), None);
    assert_eq!(failure([whole, vec![0; 512]].concat()).0, "ArchiveCorrupt");
}

#[test]
fn a_frame_that_needs_a_dictionary() {
    let (original, plain) = small_tree();
    let scratch = tempfile::tempdir().unwrap();
    let script = "for i in $(seq 200); do echo \"$i line $((i * 7919)) of a sample\" > s$i; done; \
                  zstd -q --train s* -o dictionary --maxdict=2000 && zstd -qc -D dictionary archive";
    std::fs::write(scratch.path().join("archive"), &plain).unwrap();
    let object = pack::output(
        std::process::Command::new("bash")
            .args(["-c", script])
            .current_dir(scratch.path()),
    );
    let (reason, message) = failure(object);
    assert_eq!(reason, "NotAnArchive", "{message}");
    assert!(message.contains("dictionary"), "{message}");
    drop(original);
}
