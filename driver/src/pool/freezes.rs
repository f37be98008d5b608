//! For how long volumes were frozen for the sake of snapshots and clones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A count, a sum and a maximum, since the start.
#[derive(Debug, Default)]
pub struct Freezes {
    count: AtomicU64,
    nanoseconds: AtomicU64,
    longest: AtomicU64,
}

impl Freezes {
    /// Counts one, unless nothing was frozen.
    pub fn observe(&self, frozen: Duration) {
        let nanoseconds = u64::try_from(frozen.as_nanos()).unwrap_or(u64::MAX);
        if nanoseconds > 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
            self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
            self.longest.fetch_max(nanoseconds, Ordering::Relaxed);
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}
