//! Small objects that make much of little: ten gigabytes of zeros, a million files, and chains of
//! members that hold nothing.

use std::ops::Range;
use std::time::{Duration, Instant};

use archive::source::{Source, SourceError};
use archive::{Limits, Options, RestoreError};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tar::EntryType;

use crate::forged::Forged;
use crate::pack::{CHECKED, Compression, compress};
use crate::support::{options, restore, restore_from};

/// The same bytes again and again, as an object.
struct Repeated {
    bytes: Bytes,
    count: u64,
}

impl Source for Repeated {
    fn identity(&self) -> Option<String> {
        None
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64 * self.count
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        let length = self.bytes.len();
        let start = usize::try_from(range.start).unwrap() % length;
        let wanted = usize::try_from(range.end - range.start).unwrap();
        let all = self.bytes.iter().cycle().skip(start).take(wanted);
        let read = all.copied().collect();
        async move { Ok(read) }.boxed()
    }
}

/// What comes of an object whose parts each unpack to `part`, with these limits.
fn beyond(compression: Compression, part: &[u8], count: u64, limits: Limits) -> RestoreError {
    let bytes = compress(compression, part).into();
    let options = Options {
        limits,
        ..options()
    };
    let (to, begun) = (tempfile::tempdir().unwrap(), Instant::now());
    let error = restore_from(Repeated { bytes, count }, to.path(), &options).unwrap_err();
    assert_eq!(error.reason(), "LimitExceeded", "{compression:?}: {error}");
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "it was read to its end"
    );
    error
}

#[test]
fn ten_gigabytes_of_zeros() {
    const PART: usize = 16 << 20;
    let zeros = Forged::default().entry(EntryType::Regular, b"zeros", b"", &vec![0; PART - 512]);
    let count = (10 << 30) / PART as u64;
    for compression in CHECKED {
        let limits = Limits {
            unpacked: 64 << 20,
            ..Limits::default()
        };
        let said = beyond(compression, &zeros.0, count, limits).to_string();
        assert!(said.contains("67108864 unpacked bytes"), "{said}");
        let limits = Limits {
            ratio: 100,
            ..Limits::default()
        };
        let said = beyond(compression, &zeros.0, count, limits).to_string();
        assert!(
            said.contains("100 unpacked bytes for each stored one"),
            "{said}"
        );
    }
}

#[test]
fn a_million_empty_files() {
    let files = (0..1000).fold(Forged::default(), |archive, index| {
        archive.file(&format!("directory/{index}"), "")
    });
    let limits = Limits {
        entries: 5000,
        ..Limits::default()
    };
    let said = beyond(Compression::Gzip, &files.0, 1000, limits).to_string();
    assert!(said.contains("more than 5000 entries"), "{said}");
}

/// Thousands of members that hold nothing, in front of one that holds an archive.
#[test]
fn chains_of_empty_members() {
    let archive = Forged::default().file("f", "x").end();
    let skippable = b"\x5f\x2a\x4d\x18\0\0\0\0".to_vec();
    let mut chains: Vec<_> = CHECKED.map(|it| (it, compress(it, b""))).to_vec();
    chains.push((Compression::Zstd, skippable.clone()));
    for (compression, empty) in chains {
        let object = [empty.repeat(5000), compress(compression, &archive)].concat();
        let (to, begun) = (tempfile::tempdir().unwrap(), Instant::now());
        let outcome = restore(object, to.path()).unwrap();
        assert_eq!(outcome.entries, 1, "{compression:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{compression:?}");
    }
    // The last of them claims 4 GiB.
    let claims = b"\x5f\x2a\x4d\x18\xff\xff\xff\xff".to_vec();
    let object = [
        skippable.repeat(5000),
        claims,
        compress(Compression::Zstd, &archive),
    ]
    .concat();
    let to = tempfile::tempdir().unwrap();
    let error = restore(object, to.path()).unwrap_err();
    assert_eq!(error.reason(), "ArchiveTruncated", "{error}");
}
