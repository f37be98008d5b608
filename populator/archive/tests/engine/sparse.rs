//! Sparse files, in every form in which GNU tar has written them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::compare::assert_same;
use crate::pack::{self, ALL, compress};
use crate::support::{Random, failure, restore};
use crate::tree::{make_sparse, set_time};

const FORMS: [&[&str]; 4] = [
    &["--format=gnu", "--sparse"],
    &["--format=pax", "--sparse", "--sparse-version=0.0"],
    &["--format=pax", "--sparse", "--sparse-version=0.1"],
    &["--format=pax", "--sparse", "--sparse-version=1.0"],
];

#[test]
fn every_form() {
    let original = tempfile::tempdir().unwrap();
    let root = original.path();
    let mut random = Random(11);
    let long = format!("{}-many", "l".repeat(120));
    let mut many = Vec::new();
    for index in 0..90 {
        many.push((index * 64 * 1024, random.bytes(4096)));
    }
    make_sparse(&root.join("all-hole"), 8 << 20, &[]);
    make_sparse(
        &root.join("hole-at-end"),
        6 << 20,
        &[(0, random.bytes(5000))],
    );
    make_sparse(
        &root.join("hole-at-start"),
        (6 << 20) + 3,
        &[(6 << 20, random.bytes(3))],
    );
    make_sparse(&root.join(&long), 6 << 20, &many);
    make_sparse(
        &root.join("large-data"),
        16 << 20,
        &[(2 << 20, random.bytes(7 << 20))],
    );
    // Ends within a block, as what is written past the page cache cannot.
    make_sparse(
        &root.join("large-end"),
        (6 << 20) + 3,
        &[
            (1 << 20, random.bytes(200_000)),
            (4 << 20, random.bytes((2 << 20) + 3)),
        ],
    );
    fs::write(root.join("dense"), random.bytes(100_000)).unwrap();
    for name in [
        "all-hole",
        "hole-at-end",
        "hole-at-start",
        &long,
        "large-data",
        "large-end",
        "dense",
        ".",
    ] {
        set_time(&root.join(name), 1_700_000_000, 0);
    }
    for options in FORMS {
        let packed = pack::tar(root, options);
        assert!(packed.len() < 12 << 20, "tar found the holes");
        for compression in ALL {
            let to = tempfile::tempdir().unwrap();
            let outcome = restore(compress(compression, &packed), to.path()).unwrap();
            assert_same(root, to.path());
            assert!(outcome.lost.is_empty(), "{:?}", outcome.lost);
            assert!(outcome.bytes_written < 12 << 20);
            for name in [
                "all-hole",
                "hole-at-end",
                "hole-at-start",
                &long,
                "large-data",
                "large-end",
            ] {
                let blocks =
                    |root: &std::path::Path| fs::metadata(root.join(name)).unwrap().blocks();
                assert!(
                    blocks(to.path()) <= blocks(root) + 16,
                    "{name} lost its holes"
                );
            }
        }
    }
}

/// A sparse file cut off anywhere, in its map too, is an error.
#[test]
fn cut_off() {
    let original = tempfile::tempdir().unwrap();
    let data: Vec<_> = (0..60)
        .map(|index| (index * 16384, vec![b'x'; 4096]))
        .collect();
    make_sparse(&original.path().join("s"), 1 << 20, &data);
    for options in FORMS {
        let packed = pack::tar(original.path(), options);
        let mut random = Random(12);
        for _ in 0..40 {
            let end = random.index(60 * 4096);
            let (reason, _) = failure(packed[..end].to_vec());
            assert!(["ArchiveTruncated", "NotAnArchive", "ArchiveEmpty"].contains(&reason));
        }
    }
}
