//! How many ranges are asked for at a time, of a store that takes its time.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use archive::Budget;
use archive::source::{Source, SourceError, SourceErrorKind};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::compare::assert_same;
use crate::pack;
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
            tokio::time::sleep(Duration::from_millis(20)).await;
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
    assert!((12..=32).contains(&found), "{found}");
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
