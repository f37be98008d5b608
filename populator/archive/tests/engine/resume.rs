//! Restores that are interrupted and go on.

use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use archive::source::{Source, SourceError, SourceErrorKind};
use archive::{Checkpoints, Options, Outcome, Progress, RestoreError};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::compare::assert_same;
use crate::order;
use crate::own_format;
use crate::pack::{self, ALL, Compression, compress};
use crate::support::{RUNTIME, Random, cut, options};
use crate::tree::{self, Limits, make_sparse, set_time};
use crate::volume::Volume;

const LIMITS: Limits = Limits {
    devices: false,
    rich: true,
    path: 300,
    fifos: true,
    large_ids: true,
};

/// An object that has an identity and counts what is read of it.
pub struct Counted {
    bytes: Bytes,
    identity: &'static str,
    read: AtomicU64,
    /// From here on nothing can be read.
    end: u64,
}

impl Counted {
    pub fn new(bytes: &Bytes) -> Self {
        Self {
            bytes: bytes.clone(),
            identity: "the first",
            read: AtomicU64::new(0),
            end: u64::MAX,
        }
    }

    /// The same, of which nothing can be read from here on.
    pub fn up_to(bytes: &Bytes, end: u64) -> Self {
        Self {
            end,
            ..Self::new(bytes)
        }
    }
}

impl Source for Counted {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Option<String> {
        Some(self.identity.to_owned())
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        async move {
            if range.end > self.end {
                return Err(SourceError::new(SourceErrorKind::Denied, "no further"));
            }
            let length = range.end - range.start;
            self.read.fetch_add(length, Ordering::Relaxed);
            Ok(cut(&self.bytes, range))
        }
        .boxed()
    }
}

/// The usual options, with a checkpoint after so many bytes of files.
pub fn with_checkpoints(state: &Path, bytes: u64) -> Options {
    let mut options = options();
    options.fetching.parallel = 2;
    options.checkpoints = Some(Checkpoints {
        bytes,
        time: Duration::from_secs(3600),
        ..Checkpoints::new(state)
    });
    options
}

/// Restores until it has written so many bytes.
pub fn attempt(
    source: &Arc<Counted>,
    to: &Path,
    options: &Options,
    until: u64,
) -> Result<Outcome, RestoreError> {
    let directory = File::open(to).unwrap();
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let ended = CancellationToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.snapshot().written < until && !ended.is_cancelled() {
                std::thread::sleep(Duration::from_micros(50));
            }
            cancel.cancel();
        });
        let result = archive::restore(
            Arc::clone(source) as Arc<dyn Source>,
            directory.as_fd(),
            options,
            &progress,
            &cancel,
            RUNTIME.handle(),
        );
        ended.cancel();
        result
    })
}

/// A tree with everything in it, of some 20 MB, and its archive.
pub fn everything(seed: u64) -> (tempfile::TempDir, Vec<u8>) {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(seed);
    for directory in ["a", "b"] {
        let path = original.path().join(directory);
        fs::create_dir(&path).unwrap();
        tree::make(&path, LIMITS, seed, 40);
        let name = format!("{directory}-large");
        fs::write(original.path().join(&name), random.bytes(6_000_001)).unwrap();
        set_time(&original.path().join(&name), 1_000, 5);
    }
    let data = [
        (1 << 20, random.bytes(1_500_000)),
        (9 << 20, random.bytes(300_000)),
    ];
    make_sparse(&original.path().join("c-sparse"), 20 << 20, &data);
    fs::hard_link(
        original.path().join("a-large"),
        original.path().join("d-link"),
    )
    .unwrap();
    set_time(original.path(), 1_000, 0);
    let options = [
        "--format=pax",
        "-S",
        "--sort=name",
        "--xattrs",
        "--xattrs-include=*",
    ];
    let packed = pack::tar(original.path(), &options);
    (original, packed)
}

/// A tree in every compression, and as an archive of our own.
pub fn objects(tree: &Path, packed: &[u8]) -> Vec<(String, Bytes)> {
    let all = ALL
        .iter()
        .map(|it| (format!("{it:?}"), compress(*it, packed).into()));
    let ours = ("ours".to_owned(), own_format::pack(tree).into());
    all.chain([ours]).collect()
}

/// What every attempt has to agree on.
fn result(outcome: &Outcome) -> String {
    let Outcome {
        format,
        entries,
        files,
        directories,
        links,
        left_out,
        bytes_written,
        verified,
        sha256,
        lost,
        ..
    } = outcome;
    format!(
        "{format} {entries} {files} {directories} {links} {left_out} {bytes_written} {verified} \
         {sha256} {lost}"
    )
}

/// Whatever is interrupted, and however often, ends as if it had not been.
#[test]
fn the_end_is_that_of_a_whole_restore() {
    let mut random = Random(60);
    let (original, packed) = everything(60);
    for (what, object) in objects(original.path(), &packed) {
        let source = || Arc::new(Counted::new(&object));
        let whole = tempfile::tempdir().unwrap();
        let outcome = attempt(&source(), whole.path(), &options(), u64::MAX).unwrap();
        let (expected, all) = (result(&outcome), outcome.bytes_written);
        for round in 0..4 {
            let (to, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let state = scratch.path().join("state");
            let options = with_checkpoints(&state, random.pick(&[1, 300_000, 3_000_000]));
            let (mut until, mut attempts) = (0, 0);
            let outcome = loop {
                until += 1 + random.below(all / 2);
                attempts += 1;
                match attempt(&source(), to.path(), &options, until) {
                    Ok(outcome) => break outcome,
                    Err(RestoreError::Cancelled) => assert!(state.join("record").exists()),
                    Err(error) => panic!("{what}, {round}, {attempts}: {error}"),
                }
            };
            assert_eq!(result(&outcome), expected, "{what}");
            assert_eq!(outcome.resumed_at.is_some(), attempts > 1);
            assert_same(original.path(), to.path());
            assert!(!state.exists(), "the checkpoints stay");
        }
    }
}

/// Reading goes on where it was, as far as the format allows it.
#[test]
fn what_is_read_again() {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(61);
    fs::write(original.path().join("large"), random.bytes(40 << 20)).unwrap();
    let packed = pack::tar(original.path(), &["--format=pax"]);
    let frames = |program| {
        let parts = packed.chunks(3 << 20);
        parts.flat_map(|part| compress(program, part)).collect()
    };
    for (what, object, goes_on) in [
        ("tar", packed.clone(), true),
        ("gzip", compress(Compression::Gzip, &packed), true),
        (
            "zstd, one frame",
            compress(Compression::Zstd, &packed),
            false,
        ),
        ("zstd, frames", frames(Compression::Zstd), true),
        ("zstd, ours", own_format::pack(original.path()), true),
        ("xz, streams", frames(Compression::Xz), true),
        ("bzip2", compress(Compression::Bzip2, &packed), false),
        ("lz4", compress(Compression::Lz4, &packed), false),
    ] {
        let object = Bytes::from(object);
        let (to, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = with_checkpoints(&scratch.path().join("state"), 1 << 20);
        let first = Arc::new(Counted::new(&object));
        let error = attempt(&first, to.path(), &options, 30 << 20).unwrap_err();
        assert_eq!(error.reason(), "Cancelled", "{what}");
        let second = Arc::new(Counted::new(&object));
        let outcome = attempt(&second, to.path(), &options, u64::MAX).unwrap();
        assert_same(original.path(), to.path());
        let length = object.len() as u64;
        let [before, again] = [&first, &second].map(|it| it.read.load(Ordering::Relaxed));
        let from = outcome.resumed_at.unwrap();
        // Where zstd may have an index is looked at first.
        let look = if what.starts_with("zstd") { 1 << 16 } else { 0 };
        assert!(again - (length - from) <= look, "{what}: {again}");
        // What is read of an index is counted at its end.
        let index = if what == "zstd, ours" { 1 << 10 } else { 0 };
        let uncounted = before + again - outcome.bytes_fetched;
        assert!(uncounted <= index, "{what}: {uncounted}");
        assert!((before - from) - outcome.fetched_again <= look, "{what}");
        if goes_on {
            assert!(from > length / 2, "{what}: from {from} of {length}");
        } else {
            assert_eq!(from, 0, "{what}");
        }
    }
}

/// The pieces of a file with holes end anywhere, but what is known of its digest at some places only.
#[test]
fn what_is_read_again_of_a_file_with_holes() {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(62);
    let pieces = (0..60).map(|index| (index << 20, random.bytes(300 << 10)));
    let mut pieces: Vec<_> = pieces.collect();
    // Behind these, a long one that ends within a block.
    let last = (22 << 20) + 7;
    pieces.push((80 << 20, random.bytes(last)));
    let size = (80 << 20) + last as u64;
    make_sparse(&original.path().join("sparse"), size, &pieces);
    for (what, object) in [
        ("tar", pack::tar(original.path(), &["--format=pax", "-S"])),
        ("ours", own_format::pack(original.path())),
    ] {
        let object = Bytes::from(object);
        let (to, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = with_checkpoints(&scratch.path().join("state"), 1 << 20);
        let source = Arc::new(Counted::new(&object));
        let error = attempt(&source, to.path(), &options, 30 << 20).unwrap_err();
        assert_eq!(error.reason(), "Cancelled", "{what}");
        let outcome = attempt(&source, to.path(), &options, u64::MAX).unwrap();
        assert_same(original.path(), to.path());
        let (from, length) = (outcome.resumed_at.unwrap(), object.len() as u64);
        assert!(from > length / 2, "{what}: from {from} of {length}");
    }
}

/// Entries that replace one another and link to one another, interrupted anywhere.
#[test]
fn replaying_makes_the_same_of_entries_that_depend_on_one_another() {
    let mut random = Random(62);
    let (mut whole, mut resumed) = (0, 0);
    for round in 0..4000 {
        let length = 2 + random.index(6);
        let mut entries = order::entries(&mut random, length);
        // So that most lie in ranges of their own.
        for (_, kind) in &mut entries {
            if let order::Kind::File { size } = kind {
                *size += 66_000;
            }
        }
        let Some(nodes) = order::model(&entries) else {
            continue;
        };
        let object = Bytes::from(order::pack(&entries));
        let (to, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = with_checkpoints(
            &scratch.path().join("state"),
            random.pick(&[1, 60_000, 1 << 30]),
        );
        for _ in 0..random.below(3) {
            let mut source = Counted::new(&object);
            source.end = random.below(object.len() as u64);
            let failed = attempt(&Arc::new(source), to.path(), &options, u64::MAX);
            assert_eq!(failed.unwrap_err().reason(), "ArchiveDenied");
        }
        let source = Arc::new(Counted::new(&object));
        let outcome = attempt(&source, to.path(), &options, u64::MAX)
            .unwrap_or_else(|error| panic!("{round}: {error}: {entries:?}"));
        order::compare(to.path(), &nodes);
        whole += 1;
        resumed += u64::from(outcome.resumed_at.is_some());
    }
    assert!(whole > 100 && resumed > 50, "{whole} and {resumed}");
}

/// An attempt that was interrupted half-way, with its checkpoint.
fn interrupted(object: &Bytes) -> (tempfile::TempDir, tempfile::TempDir) {
    let (to, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = Arc::new(Counted::new(object));
    let options = with_checkpoints(state.path(), 1 << 20);
    let error = attempt(&source, to.path(), &options, 8_000_000).unwrap_err();
    assert_eq!(error.reason(), "Cancelled");
    (to, state)
}

/// What may be done to a record.
type Change<'a> = (&'a str, &'a dyn Fn(String) -> String);

#[test]
fn a_record_that_is_odd_is_not_trusted() {
    let (original, packed) = everything(63);
    let object = Bytes::from(compress(Compression::Gzip, &packed));
    let (to, state) = interrupted(&object);
    let record = state.path().join("record");
    let good = fs::read_to_string(&record).unwrap();
    let summed = |body: String| {
        let sum = pack::filter("sha256sum", &[], body.trim_end().as_bytes());
        format!("{}\n{body}", String::from_utf8_lossy(&sum[..64]))
    };
    let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(
        summed(body(&good)),
        good,
        "the helper sums as the engine does"
    );
    let changes: [Change<'_>; 8] = [
        ("nothing", &|_| String::new()),
        ("rubbish", &|_| "\0rubbish\n{}\n".to_owned()),
        ("cut off", &|good| good[..good.len() / 2].to_owned()),
        ("one digit", &|good| {
            good.replacen("\"files\":", "\"files\":1", 1)
        }),
        ("another version", &|good| {
            summed(body(&good).replacen("\"version\":", "\"version\":9", 1))
        }),
        ("an unknown field", &|good| {
            summed(body(&good).replacen("\"version\":", "\"new\":1,\"version\":", 1))
        }),
        ("a later checkpoint", &|good| {
            summed(body(&good).replacen("\"sequence\":", "\"sequence\":9", 1))
        }),
        ("another place", &|good| {
            summed(body(&good).replacen("\"packed\":", "\"packed\":9", 1))
        }),
    ];
    let again = |identity, strict| {
        let mut source = Counted::new(&object);
        source.identity = identity;
        let mut options = with_checkpoints(state.path(), 1 << 20);
        options.strict = strict;
        attempt(&Arc::new(source), to.path(), &options, u64::MAX)
    };
    let refused = |result: Result<Outcome, RestoreError>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.reason(), "VolumeNotEmpty", "{what}: {error}");
    };
    for (what, change) in changes {
        fs::write(&record, change(good.clone())).unwrap();
        refused(again("the first", false), what);
    }
    fs::write(&record, &good).unwrap();
    refused(again("the second", false), "another object");
    refused(again("the first", true), "other options");
    let list = fs::read(state.path().join("directories")).unwrap();
    fs::write(state.path().join("directories"), &list[1..]).unwrap();
    refused(again("the first", false), "another list of directories");
    fs::write(state.path().join("directories"), &list).unwrap();
    // Nothing of that did any harm.
    let outcome = again("the first", false).unwrap();
    assert!(outcome.resumed_at.is_some());
    assert_same(original.path(), to.path());
}

#[test]
fn a_directory_that_is_another_one() {
    let (original, packed) = everything(64);
    let object = Bytes::from(packed);
    // Emptied, as whoever meets an error is told.
    let (to, state) = interrupted(&object);
    for entry in fs::read_dir(to.path()).unwrap() {
        let path = entry.unwrap().path();
        let removed = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        removed.unwrap();
    }
    let options = with_checkpoints(state.path(), 1 << 20);
    let source = Arc::new(Counted::new(&object));
    let outcome = attempt(&source, to.path(), &options, u64::MAX).unwrap();
    assert_eq!(outcome.resumed_at, None);
    assert_same(original.path(), to.path());
    // A copy of it, in which files are other ones.
    let (to, state) = interrupted(&object);
    let copy = tempfile::tempdir().unwrap();
    let mut copying = std::process::Command::new("cp");
    pack::output(copying.arg("-aT").args([to.path(), copy.path()]));
    let options = with_checkpoints(state.path(), 1 << 20);
    let error = attempt(&source, copy.path(), &options, u64::MAX).unwrap_err();
    assert_eq!(error.reason(), "VolumeNotEmpty", "{error}");
}

/// A volume that was put back to what it was before the checkpoint lacks what that says it has.
#[test]
fn a_volume_that_lost_what_was_durable() {
    let (_original, packed) = everything(65);
    let object = Bytes::from(packed);
    let volume = Volume::loop_device(&["mkfs.ext4", "-q", "-b", "4096"], 256);
    let state = tempfile::tempdir().unwrap();
    let options = with_checkpoints(state.path(), 1 << 20);
    let source = Arc::new(Counted::new(&object));
    attempt(&source, &volume.path(), &options, 4_000_000).unwrap_err();
    volume.unmount();
    let before = state.path().join("before");
    fs::copy(volume.image(), &before).unwrap();
    volume.mount();
    attempt(&source, &volume.path(), &options, 12_000_000).unwrap_err();
    volume.unmount();
    fs::copy(&before, volume.image()).unwrap();
    volume.mount();
    let error = attempt(&source, &volume.path(), &options, u64::MAX).unwrap_err();
    assert_eq!(error.reason(), "VolumeNotEmpty", "{error}");
}

#[test]
fn two_at_a_time() {
    let (_original, packed) = everything(66);
    let object = Bytes::from(packed);
    let (to, state) = interrupted(&object);
    let held = File::open(state.path()).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&held, exclusive).unwrap();
    let options = with_checkpoints(state.path(), 1 << 20);
    let source = Arc::new(Counted::new(&object));
    let error = attempt(&source, to.path(), &options, u64::MAX).unwrap_err();
    assert_eq!(error.reason(), "NodeError", "{error}");
}
