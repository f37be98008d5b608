//! How far a restore is: counters that its threads raise and anybody may look at.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The live counters of one restore. They are independent of one another, so relaxed order will do; but
/// who sees the length sees also from where the restore goes on.
#[derive(Debug, Default)]
pub struct Progress {
    length: AtomicU64,
    fetched: AtomicU64,
    consumed: AtomicU64,
    written: AtomicU64,
    written_before: AtomicU64,
    entries: AtomicU64,
}

/// What the counters showed at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Bytes in the stored object; 0 until the restore has begun.
    pub length: u64,
    /// Bytes received from the store, those of repeated ranges included.
    pub fetched: u64,
    /// Bytes of the stored object that the decoder has used up: `consumed / length` is the share
    /// that is done.
    pub consumed: u64,
    /// Bytes of file data written into the volume (holes are not counted).
    pub written: u64,
    /// Archive entries that are in place, or about to be.
    pub entries: u64,
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            length: self.length.load(Ordering::Acquire),
            fetched: self.fetched.load(Ordering::Relaxed),
            consumed: self.consumed.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
        }
    }

    /// Bytes of [`Snapshot::written`] that an attempt before has written.
    pub fn written_before(&self) -> u64 {
        self.written_before.load(Ordering::Relaxed)
    }

    /// A restore begins, or goes on from where another one was.
    pub(crate) fn begin(&self, from: Snapshot) {
        for (counter, value) in [
            (&self.fetched, from.fetched),
            (&self.consumed, from.consumed),
            (&self.written, from.written),
            (&self.written_before, from.written),
            (&self.entries, from.entries),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        self.length.store(from.length, Ordering::Release);
    }

    pub(crate) fn add_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_consumed(&self, bytes: u64) {
        self.consumed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }
}
