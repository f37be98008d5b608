//! A store that fails, and a caller that gives up.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use archive::source::{Source, SourceError, SourceErrorKind};
use archive::{Budget, Progress, RestoreError, Retry};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::compare::assert_same;
use crate::pack::{self, Compression, compress};
use crate::support::{Memory, RUNTIME, Random, cut, options, restore_from};

/// A tree of one large and some small files, and its archive of many ranges.
fn large() -> (tempfile::TempDir, Bytes) {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(30);
    std::fs::write(original.path().join("large"), random.bytes(9_999_999)).unwrap();
    for index in 0..20 {
        std::fs::write(original.path().join(format!("{index}")), random.bytes(1000)).unwrap();
    }
    let packed = compress(
        Compression::Gzip,
        &pack::tar(original.path(), &["--format=pax"]),
    );
    (original, packed.into())
}

fn unavailable() -> SourceError {
    SourceError::new(SourceErrorKind::Unavailable, "503 Slow Down")
}

#[test]
fn every_range_fails_once_and_is_fetched_again() {
    let (original, object) = large();
    let seen = Mutex::new(HashSet::new());
    let flaky = Memory::with(object.clone(), move |bytes, range| {
        if seen.lock().unwrap().insert(range.start) {
            // Half of them break off midway.
            if range.start % 3 == 0 {
                Err(unavailable())
            } else {
                Ok(cut(bytes, range.start..range.end - 1))
            }
        } else {
            Ok(cut(bytes, range))
        }
    });
    let to = tempfile::tempdir().unwrap();
    let outcome = restore_from(flaky, to.path(), &options()).unwrap();
    assert_same(original.path(), to.path());
    assert!(
        outcome.bytes_fetched > object.len() as u64,
        "the broken reads count too"
    );
}

#[test]
fn a_store_that_stays_away_is_a_transient_failure() {
    let (_original, object) = large();
    let attempts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&attempts);
    let middle = object.len() as u64 / 2;
    let away = Memory::with(object, move |bytes, range| {
        if range.contains(&middle) {
            counted.fetch_add(1, Ordering::Relaxed);
            return Err(unavailable());
        }
        Ok(cut(bytes, range))
    });
    let to = tempfile::tempdir().unwrap();
    let error = restore_from(away, to.path(), &options()).unwrap_err();
    assert_eq!(
        (error.reason(), error.retry()),
        ("StoreUnavailable", Retry::Transient)
    );
    assert!(error.to_string().contains("503"));
    assert_eq!(
        attempts.load(Ordering::Relaxed),
        u64::from(options().fetching.attempts)
    );
}

#[test]
fn other_refusals_are_final_and_told_apart() {
    let (_original, object) = large();
    for (kind, reason) in [
        (SourceErrorKind::Changed, "ArchiveChanged"),
        (SourceErrorKind::Denied, "ArchiveDenied"),
        (SourceErrorKind::NotFound, "ArchiveMissing"),
        (SourceErrorKind::Other, "StoreRefused"),
    ] {
        let attempts = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&attempts);
        let middle = object.len() as u64 / 2;
        let refusing = Memory::with(object.clone(), move |bytes, range| {
            if range.contains(&middle) {
                counted.fetch_add(1, Ordering::Relaxed);
                return Err(SourceError::new(kind, "the store's words"));
            }
            Ok(cut(bytes, range))
        });
        let to = tempfile::tempdir().unwrap();
        let error = restore_from(refusing, to.path(), &options()).unwrap_err();
        assert_eq!((error.reason(), error.retry()), (reason, Retry::Permanent));
        assert!(error.to_string().contains("the store's words"));
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
    }
}

/// Gives the first bytes and then nothing, for ever.
struct Stuck {
    bytes: Bytes,
    reached: Arc<AtomicU64>,
}

impl Source for Stuck {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Option<String> {
        None
    }

    fn read_at(&self, range: std::ops::Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        async move {
            if range.start > self.length() / 2 {
                self.reached.fetch_add(1, Ordering::Relaxed);
                futures::future::pending::<()>().await;
            }
            Ok(cut(&self.bytes, range))
        }
        .boxed()
    }
}

#[test]
fn cancelled_while_the_store_is_silent() {
    let (_original, object) = large();
    let reached = Arc::new(AtomicU64::new(0));
    let source = Arc::new(Stuck {
        bytes: object,
        reached: Arc::clone(&reached),
    });
    let weak = Arc::downgrade(&source);
    let to = tempfile::tempdir().unwrap();
    let directory = File::open(to.path()).unwrap();
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let canceller = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            while reached.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(50));
            cancel.cancel();
            Instant::now()
        }
    });
    let error = archive::restore(
        source,
        directory.as_fd(),
        &options(),
        &progress,
        &cancel,
        RUNTIME.handle(),
    )
    .unwrap_err();
    let asked = canceller.join().unwrap();
    assert!(matches!(error, RestoreError::Cancelled), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(1));
    let seen = progress.snapshot();
    assert!(seen.consumed > 0 && seen.consumed < seen.length, "{seen:?}");
    // Aborted tasks let go of the source a moment later.
    let patience = Instant::now();
    while weak.strong_count() > 0 {
        assert!(
            patience.elapsed() < Duration::from_secs(5),
            "the fetching goes on"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn cancelled_while_writing() {
    // One file of zeros: kilobytes to fetch, a gigabyte to write.
    let script = "truncate -s 1G zeros; tar -c --format=gnu zeros | zstd -q1c";
    let scratch = tempfile::tempdir().unwrap();
    let object = pack::output(
        std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(scratch.path()),
    );
    let to = tempfile::tempdir().unwrap();
    let directory = File::open(to.path()).unwrap();
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let canceller = std::thread::spawn({
        let (cancel, progress) = (cancel.clone(), Arc::clone(&progress));
        move || {
            while progress.snapshot().written < 8 << 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
            cancel.cancel();
            Instant::now()
        }
    });
    let source = Arc::new(Memory::new(object));
    let error = archive::restore(
        source,
        directory.as_fd(),
        &options(),
        &progress,
        &cancel,
        RUNTIME.handle(),
    )
    .unwrap_err();
    let asked = canceller.join().unwrap();
    assert!(matches!(error, RestoreError::Cancelled), "{error}");
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn restores_share_a_small_budget_and_all_end() {
    let (original, object) = large();
    let budget = Budget::new(6 << 20);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut options = options();
                options.budget = Arc::clone(&budget);
                let to = tempfile::tempdir().unwrap();
                restore_from(Memory::new(object.clone()), to.path(), &options).unwrap();
                assert_same(original.path(), to.path());
            });
        }
    });
}

/// A bug in a source ends the restore, as an error that is nobody's wish.
#[test]
fn a_source_that_panics() {
    let (_original, object) = large();
    for compression in [true, false] {
        let object = if compression {
            object.clone()
        } else {
            pack::filter("gzip", &["-dc"], &object).into()
        };
        for bad in [0, object.len() as u64 / 2] {
            let buggy = Memory::with(object.clone(), move |bytes, range| {
                assert!(!range.contains(&bad), "the bug");
                Ok(cut(bytes, range))
            });
            let to = tempfile::tempdir().unwrap();
            let error = restore_from(buggy, to.path(), &options()).unwrap_err();
            assert_eq!(error.reason(), "NodeError", "{error}");
        }
    }
}

/// One that decodes with the largest window and waits for its store keeps nobody else waiting.
#[test]
fn a_large_window_that_is_held() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("f"), Random(31).bytes(4 << 20)).unwrap();
    let plain = pack::tar(scratch.path(), &["--format=pax"]);
    // As from a pipe, so that the header declares the whole window.
    let held = pack::output(
        std::process::Command::new("sh")
            .args(["-c", "tar -c -C \"$0\" . | zstd -qc --long=27"])
            .arg(scratch.path()),
    );
    let budget = Budget::new(Budget::DEFAULT);
    let (reached, cancel) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    std::thread::scope(|scope| {
        let (holding, cancelled) = (Arc::clone(&reached), cancel.clone());
        let holder = scope.spawn(|| {
            let (source, cancel) = (
                Stuck {
                    bytes: held.into(),
                    reached: holding,
                },
                cancelled,
            );
            let mut options = options();
            options.budget = Arc::clone(&budget);
            let to = tempfile::tempdir().unwrap();
            let (directory, progress) = (File::open(to.path()).unwrap(), Arc::default());
            archive::restore(
                Arc::new(source),
                directory.as_fd(),
                &options,
                &progress,
                &cancel,
                RUNTIME.handle(),
            )
        });
        while reached.load(Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Time for the decoder to open its window with what it has.
        std::thread::sleep(Duration::from_millis(200));
        let mut options = options();
        options.budget = Arc::clone(&budget);
        let to = tempfile::tempdir().unwrap();
        let object = compress(Compression::Zstd, &plain);
        restore_from(Memory::new(object), to.path(), &options).unwrap();
        assert_same(scratch.path(), to.path());
        cancel.cancel();
        assert_eq!(holder.join().unwrap().unwrap_err().reason(), "Cancelled");
    });
}

#[test]
fn progress_adds_up() {
    let (_original, object) = large();
    let to = tempfile::tempdir().unwrap();
    let directory = File::open(to.path()).unwrap();
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let length = object.len() as u64;
    let source = Arc::new(Memory::new(object));
    let outcome = archive::restore(
        source,
        directory.as_fd(),
        &options(),
        &progress,
        &cancel,
        RUNTIME.handle(),
    )
    .unwrap();
    let seen = progress.snapshot();
    assert_eq!(
        (seen.length, seen.fetched, seen.consumed),
        (length, length, length)
    );
    assert_eq!((seen.written, seen.entries), (9_999_999 + 20 * 1000, 22));
    assert_eq!(
        (outcome.files, outcome.directories, outcome.entries),
        (21, 1, 22)
    );
}
