//! In how many extents the volumes lie, and how long it takes to copy that many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::volume::VolumeId;

/// Copies of fewer extents take as long as the disk takes to answer, which says nothing of many.
const TELLING: u64 = 5_000;

/// What is known of fragmentation, from what was looked at anyway.
#[derive(Debug)]
pub struct Fragments {
    extents: Mutex<BTreeMap<VolumeId, u64>>,
    /// The shortest that copying an extent has ever taken, in nanoseconds; the largest number
    /// while nothing is known.
    pace: AtomicU64,
}

impl Default for Fragments {
    fn default() -> Self {
        Self {
            extents: Mutex::default(),
            pace: AtomicU64::new(u64::MAX),
        }
    }
}

impl Fragments {
    /// Takes down in how many extents a volume lies.
    pub fn observe(&self, id: &VolumeId, extents: u64) {
        self.lock().insert(id.clone(), extents);
    }

    /// The volume is gone.
    pub fn forget(&self, id: &VolumeId) {
        self.lock().remove(id);
    }

    /// In how many extents volumes lay when they were looked at last.
    pub fn all(&self) -> BTreeMap<VolumeId, u64> {
        self.lock().clone()
    }

    /// Learns from a copy how fast this machine is.
    pub fn learn(&self, extents: u64, took: Duration) {
        if extents >= TELLING {
            let each = took.as_nanos() / u128::from(extents);
            let each = u64::try_from(each).unwrap_or(u64::MAX);
            self.pace.fetch_min(each, Ordering::Relaxed);
        }
    }

    /// The shortest that a copy of so many extents can take, as far as is known. A machine that
    /// was busy once is not held to that.
    pub fn forecast(&self, extents: u64) -> Option<Duration> {
        let pace = self.pace.load(Ordering::Relaxed);
        (pace != u64::MAX).then(|| Duration::from_nanos(pace.saturating_mul(extents)))
    }

    /// The map is whole at every moment, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeId, u64>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_copy_tells_how_long_one_takes() {
        let fragments = Fragments::default();
        assert_eq!(fragments.forecast(1_000_000), None, "nothing is known");
        fragments.learn(TELLING - 1, Duration::from_secs(60));
        assert_eq!(fragments.forecast(1_000_000), None, "too few to tell");
        fragments.learn(100_000, Duration::from_secs(2));
        assert_eq!(fragments.forecast(1_000_000), Some(Duration::from_secs(20)));
        fragments.learn(100_000, Duration::from_secs(9));
        assert_eq!(
            fragments.forecast(1_000_000),
            Some(Duration::from_secs(20)),
            "the machine was busy"
        );
        fragments.learn(10_000, Duration::from_millis(100));
        assert_eq!(fragments.forecast(1_000_000), Some(Duration::from_secs(10)));
    }
}
