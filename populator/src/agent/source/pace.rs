//! Limits to how fast is read, shared by all who read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// A limit: who has read waits for as long as what it has read takes, behind those before.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that was read so far is through.
    through: Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits until so many bytes are through, at so many a second.
    pub(super) async fn pass(&self, bytes: u64, rate: u64) {
        tokio::time::sleep_until(self.book(bytes, rate, Instant::now())).await;
    }

    fn book(&self, bytes: u64, rate: u64, now: Instant) -> Instant {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut through = self.through.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = through.map_or(now, |through| through.max(now));
        let end = begin.checked_add(takes).unwrap_or(begin);
        *through = Some(end);
        end
    }
}

/// The limits of a node.
#[derive(Debug, Default)]
pub(super) struct Paces {
    /// Bytes a second for the whole node.
    rate: Option<u64>,
    node: Arc<Pace>,
    stores: Mutex<HashMap<String, Weak<Pace>>>,
}

impl Paces {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            ..Self::default()
        }
    }

    /// What is shared by all who read from this store.
    pub(super) fn store(&self, store: &str) -> Arc<Pace> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, pace| pace.strong_count() > 0);
        let known = stores.get(store).and_then(Weak::upgrade);
        let pace = known.unwrap_or_default();
        stores.insert(store.to_owned(), Arc::downgrade(&pace));
        pace
    }

    /// Waits until so many bytes are through on this node.
    pub(super) async fn pass(&self, bytes: u64) {
        if let Some(rate) = self.rate {
            self.node.pass(bytes, rate).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_one_after_the_other() {
        let (pace, now) = (Pace::default(), Instant::now());
        let at = |milliseconds| now + Duration::from_millis(milliseconds);
        assert_eq!(pace.book(100, 1000, now), at(100));
        assert_eq!(pace.book(100, 1000, now), at(200), "behind the first");
        assert_eq!(pace.book(100, 100, at(150)), at(1200), "at another rate");
        assert_eq!(
            pace.book(1, 1000, at(5000)),
            at(5001),
            "nothing is saved up"
        );
        pace.book(u64::MAX, 0, now);
    }

    #[test]
    fn a_store_has_one_while_it_is_read_from() {
        let paces = Paces::default();
        let one = paces.store("a/store");
        assert!(Arc::ptr_eq(&one, &paces.store("a/store")));
        assert!(!Arc::ptr_eq(&one, &paces.store("b/store")));
        drop(one);
        paces.store("b/store");
        assert_eq!(paces.stores.lock().unwrap().len(), 1);
    }
}
