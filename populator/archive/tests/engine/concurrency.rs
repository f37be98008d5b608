//! How many ranges are asked for at a time, of a store that takes its time.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archive::source::{Source, SourceError, SourceErrorKind};
use archive::{Budget, RestoreError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};

use crate::compare::assert_same;
use crate::pack::{self, Compression, compress};
use crate::support::{Random, cut, options, restore_from};

/// Answers each range after a while, and counts those that wait.
struct Slow {
    bytes: Bytes,
    now: AtomicUsize,
    most: Arc<AtomicUsize>,
    /// Whether each range is refused when it is asked for first.
    failing: bool,
    refused: Mutex<HashSet<u64>>,
}

impl Source for Slow {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Option<String> {
        None
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        async move {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(60)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            if self.failing && self.refused.lock().unwrap().insert(range.start) {
                return Err(SourceError::new(SourceErrorKind::Unavailable, "too much"));
            }
            Ok(cut(&self.bytes, range))
        }
        .boxed()
    }
}

/// The most ranges of this size that were asked for at a time, with so much memory.
fn most(memory: u64, range: u64, failing: bool) -> usize {
    let (original, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = Random(90).bytes(16 << 20);
    fs::write(original.path().join("large"), data).unwrap();
    let most = Arc::default();
    let source = Slow {
        bytes: pack::tar(original.path(), &["--format=pax"]).into(),
        now: AtomicUsize::default(),
        most: Arc::clone(&most),
        failing,
        refused: Mutex::default(),
    };
    let mut options = options();
    options.budget = Budget::new(memory);
    options.fetching.range = range;
    restore_from(source, to.path(), &options).unwrap();
    assert_same(original.path(), to.path());
    most.load(Ordering::SeqCst)
}

const SMALL: u64 = 64 << 10;

#[test]
fn a_distant_store_is_asked_for_more_at_a_time() {
    let found = most(Budget::DEFAULT, SMALL, false);
    assert!((16..=32).contains(&found), "{found}");
}

#[test]
fn a_failing_store_is_asked_for_less() {
    assert_eq!(most(Budget::DEFAULT, SMALL, true), 2);
}

#[test]
fn memory_that_is_not_there_is_not_used() {
    let found = most(Budget::MIN, 256 << 10, false);
    assert!(found <= 3, "{found}");
}

/// Gives streams, whose answers end early or fail as `odd` says for the number of the request.
struct Streams {
    bytes: Bytes,
    requests: Arc<AtomicUsize>,
    ranges: Arc<AtomicUsize>,
    /// What is waited for before each answer or part of one, and how often that is.
    pause: Duration,
    pauses: AtomicUsize,
    odd: fn(usize) -> Odd,
}

impl Streams {
    async fn pause(&self) {
        let left = self
            .pauses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
        if left.is_ok() {
            tokio::time::sleep(self.pause).await;
        }
    }
}

enum Odd {
    Whole,
    Cut,
    Broken,
    TooLong,
}

impl Source for Streams {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn identity(&self) -> Option<String> {
        None
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        self.ranges.fetch_add(1, Ordering::SeqCst);
        async move {
            self.pause().await;
            Ok(cut(&self.bytes, range))
        }
        .boxed()
    }

    fn stream(&self, range: Range<u64>) -> Option<BoxStream<'_, Result<Bytes, SourceError>>> {
        let bytes = cut(&self.bytes, range);
        let chunks = (0..bytes.len().div_ceil(50_000))
            .map(move |it| bytes.slice(it * 50_000..bytes.len().min((it + 1) * 50_000)));
        let answer = async move {
            let half = chunks.len() / 2;
            let odd = (self.odd)(self.requests.fetch_add(1, Ordering::SeqCst));
            let broken = SourceError::new(SourceErrorKind::Unavailable, "broken");
            let mut all: Vec<Result<Bytes, SourceError>> = chunks.map(Ok).collect();
            match odd {
                Odd::Whole => {}
                Odd::Cut => all.truncate(half),
                Odd::Broken => all[half] = Err(broken),
                Odd::TooLong => all.push(Ok(Bytes::from_static(b"more"))),
            }
            stream::iter(all)
        };
        let paced = answer.flatten_stream().then(|chunk| async {
            self.pause().await;
            chunk
        });
        Some(paced.boxed())
    }
}

/// A restore from such a source; how many streams and ranges were asked for.
fn streamed(
    compression: Compression,
    (pause, pauses): (Duration, usize),
    odd: fn(usize) -> Odd,
) -> Result<(usize, usize), RestoreError> {
    let (original, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = Random(91).bytes(20 << 20);
    fs::write(original.path().join("large"), data).unwrap();
    let (requests, ranges) = (Arc::default(), Arc::default());
    let plain = pack::tar(original.path(), &["--format=pax"]);
    let source = Streams {
        bytes: compress(compression, &plain).into(),
        requests: Arc::clone(&requests),
        ranges: Arc::clone(&ranges),
        pause,
        pauses: AtomicUsize::new(pauses),
        odd,
    };
    restore_from(source, to.path(), &options())?;
    assert_same(original.path(), to.path());
    Ok((
        requests.load(Ordering::SeqCst),
        ranges.load(Ordering::SeqCst),
    ))
}

const NEVER: (Duration, usize) = (Duration::ZERO, 0);

/// What takes long to decode, so that the store is never waited for.
const SLOW: Compression = Compression::Bzip2;

#[test]
fn a_near_store_is_asked_for_long_spans() {
    let (spans, ranges) = streamed(SLOW, NEVER, |_| Odd::Whole).unwrap();
    // One if the machine is not busy otherwise.
    assert!((1..=5).contains(&spans) && ranges < 30, "{spans} {ranges}");
}

#[test]
fn a_stream_that_is_slow_gives_way_to_ranges() {
    let (always, plain) = ((Duration::from_millis(5), usize::MAX), Compression::None);
    let (spans, ranges) = streamed(plain, always, |_| Odd::Whole).unwrap();
    assert!(spans >= 1 && ranges > 200, "{spans} {ranges}");
}

#[test]
fn a_stream_comes_back_when_it_is_fast_enough() {
    let at_first = (Duration::from_millis(40), 40);
    let (spans, ranges) = streamed(SLOW, at_first, |_| Odd::Whole).unwrap();
    assert!(spans >= 2 && ranges > 2, "{spans} {ranges}");
}

#[test]
fn a_stream_that_breaks_is_gone_on_with() {
    let cut = |request: usize| match request {
        0..5 => Odd::Cut,
        _ => Odd::Whole,
    };
    let broken = |request: usize| match request {
        0..5 => Odd::Broken,
        _ => Odd::Whole,
    };
    for odd in [cut as fn(usize) -> Odd, broken] {
        let (spans, _) = streamed(SLOW, NEVER, odd).unwrap();
        assert!(spans > 5, "{spans}");
    }
    let error = streamed(SLOW, NEVER, |_| Odd::TooLong).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("longer than the range"), "{said}");
}
