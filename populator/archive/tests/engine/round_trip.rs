//! What goes into an archive comes out of it.

use std::fs;
use std::path::Path;

use archive::{Outcome, Verified};

use crate::compare::assert_same;
use crate::pack::{self, ALL, Compression, compress, filter};
use crate::support::{Random, restore};
use crate::tree::{self, Limits};

const PAX: Limits = Limits {
    rich: true,
    devices: false,
    path: 2000,
    fifos: true,
    large_ids: true,
};
const GNU: Limits = Limits { rich: false, ..PAX };
const USTAR: Limits = Limits {
    path: 98,
    large_ids: false,
    ..GNU
};
const V7: Limits = Limits {
    fifos: false,
    ..USTAR
};

/// A random tree, through every compression.
fn round_trips(limits: Limits, seed: u64, options: &[&str]) {
    let original = tempfile::tempdir().unwrap();
    tree::make(original.path(), limits, seed, 120);
    let plain = pack::tar(original.path(), options);
    for compression in ALL {
        let outcome = round_trip(original.path(), &compress(compression, &plain));
        let (format, verified) = match compression {
            Compression::None => ("tar", Verified::None),
            Compression::Gzip => ("tar.gz", Verified::Stream),
            Compression::Zstd => ("tar.zst", Verified::Stream),
            Compression::Xz => ("tar.xz", Verified::Stream),
            Compression::Bzip2 => ("tar.bz2", Verified::Stream),
            Compression::Lz4 => ("tar.lz4", Verified::Stream),
        };
        assert_eq!(outcome.format.to_string(), format);
        assert_eq!(outcome.verified, verified, "{format}");
    }
}

fn round_trip(original: &Path, object: &[u8]) -> Outcome {
    let to = tempfile::tempdir().unwrap();
    let outcome = restore(object.to_vec(), to.path()).unwrap();
    assert_same(original, to.path());
    assert!(outcome.lost.is_empty(), "{:?}", outcome.lost);
    // The end of a zstd file is looked at first: there may be an index.
    let is_zstd = outcome.format.compression == archive::Compression::Zstd;
    let looked_at = if is_zstd { 21 } else { 0 };
    assert_eq!(outcome.bytes_fetched, object.len() as u64 + looked_at);
    let sum = filter("sha256sum", &[], object);
    assert_eq!(outcome.sha256.as_bytes(), &sum[..64]);
    outcome
}

#[test]
fn pax() {
    let options = ["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse"];
    round_trips(PAX, 1, &options);
    round_trips(PAX, 2, &options[..3]);
}

#[test]
fn gnu() {
    round_trips(GNU, 3, &["--format=gnu"]);
    round_trips(GNU, 4, &["--format=gnu", "--sparse"]);
}

#[test]
fn ustar() {
    round_trips(USTAR, 5, &["--format=ustar"]);
}

#[test]
fn v7() {
    round_trips(V7, 6, &["--format=v7"]);
}

/// Names of which ustar keeps a part in its prefix.
#[test]
fn ustar_prefixes() {
    let original = tempfile::tempdir().unwrap();
    let deep = original.path().join("d".repeat(80)).join("e".repeat(60));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(90)), "deep").unwrap();
    for path in [
        deep.join("f".repeat(90)),
        deep.clone(),
        deep.join(".."),
        original.path().into(),
    ] {
        tree::set_time(&path, 1_234_567_890, 0);
    }
    round_trip(
        original.path(),
        &pack::tar(original.path(), &["--format=ustar"]),
    );
}

/// Deeper than the kernel follows in one call.
#[test]
fn paths_longer_than_the_kernel_takes() {
    let original = tempfile::tempdir().unwrap();
    let name = "n".repeat(200);
    let script = format!(
        "cd {} && for i in $(seq 30); do mkdir {name} && cd {name} || exit 1; done && echo deep > f",
        original.path().display()
    );
    pack::output(std::process::Command::new("bash").args(["-c", &script]));
    let packed = pack::tar(original.path(), &["--format=gnu"]);
    let to = tempfile::tempdir().unwrap();
    restore(packed, to.path()).unwrap();
    let script = format!(
        "cd {} && for i in $(seq 30); do cd {name} || exit 1; done && cat f",
        to.path().display()
    );
    assert_eq!(
        pack::output(std::process::Command::new("bash").args(["-c", &script])),
        b"deep\n"
    );
}

#[test]
fn members_frames_and_skippable_frames() {
    let original = tempfile::tempdir().unwrap();
    tree::make(original.path(), GNU, 7, 60);
    let plain = pack::tar(original.path(), &["--format=gnu"]);
    let parts: Vec<&[u8]> = plain.chunks(plain.len() / 7 + 1).collect();
    let joined = |parts: Vec<Vec<u8>>| parts.concat();

    let members = parts
        .iter()
        .map(|part| compress(Compression::Gzip, part))
        .collect();
    let mut members = joined(members);
    // An empty member, and the padding of a tape.
    members.extend(compress(Compression::Gzip, b""));
    members.extend([0; 700]);
    assert_eq!(
        round_trip(original.path(), &members).verified,
        Verified::Stream
    );

    let skippable = b"\x53\x2a\x4d\x18\x05\0\0\0anyth";
    let mut frames = skippable.to_vec();
    for part in &parts {
        frames.extend(compress(Compression::Zstd, part));
        frames.extend(skippable);
    }
    assert_eq!(
        round_trip(original.path(), &frames).verified,
        Verified::Stream
    );

    // One frame without a checksum is one too many.
    let without = filter("zstd", &["-qc", "--no-check"], parts[0]);
    let rest = parts[1..]
        .iter()
        .map(|part| compress(Compression::Zstd, part))
        .collect();
    let frames = [without, joined(rest)].concat();
    assert_eq!(
        round_trip(original.path(), &frames).verified,
        Verified::None
    );
}

#[test]
fn the_largest_window_that_is_allowed() {
    let original = tempfile::tempdir().unwrap();
    let half = Random(8).bytes(3 << 20);
    fs::write(
        original.path().join("file"),
        [&half[..], &half[..]].concat(),
    )
    .unwrap();
    tree::set_time(&original.path().join("file"), 5, 0);
    tree::set_time(original.path(), 6, 0);
    let plain = pack::tar(original.path(), &["--format=gnu"]);
    round_trip(
        original.path(),
        &filter("zstd", &["-qc", "--long=27"], &plain),
    );
}

/// Many directories, so that their records go through the file on the volume.
#[test]
fn more_directories_than_fit_in_memory() {
    let original = tempfile::tempdir().unwrap();
    let name = "d".repeat(240);
    for index in 0..6000 {
        let path = original.path().join(format!("{name}{index}"));
        fs::create_dir(&path).unwrap();
        tree::set_time(&path, index, 7);
    }
    tree::set_time(original.path(), 1, 7);
    round_trip(
        original.path(),
        &pack::tar(original.path(), &["--format=pax"]),
    );
}

/// Read by another tar, which knows nothing of GNU's ways.
#[test]
fn busybox_and_python() {
    let original = tempfile::tempdir().unwrap();
    tree::make(original.path(), USTAR, 9, 60);
    let mut busybox = std::process::Command::new("busybox");
    let packed = pack::output(
        busybox
            .args(["tar", "-c", "-C"])
            .arg(original.path())
            .arg("."),
    );
    round_trip(original.path(), &packed);

    let original = tempfile::tempdir().unwrap();
    tree::make(original.path(), GNU, 10, 60);
    let script = "import sys, tarfile\n\
                  with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT) as t:\n \
                  t.add(sys.argv[1], arcname='.')";
    let mut python = std::process::Command::new("python3");
    let packed = pack::output(python.args(["-c", script]).arg(original.path()));
    round_trip(original.path(), &packed);
}
