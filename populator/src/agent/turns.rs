//! One order at a time for each volume, and for each content while nobody has it yet.
//!
//! Two orders for one volume are a mistake of whoever made or removed them by hand. Then the second
//! waits until the first is done with, its record removed: so no clean-up of the one can ever take
//! away what the other has made.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Turnstile, OwnedMutexGuard};

/// Who may work on what.
#[derive(Debug)]
pub struct Turns<K>(Mutex<HashMap<K, Weak<Turnstile<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The right to work on something, now or later. Dropping it lets the next one go on.
#[derive(Debug)]
pub enum Turn {
    /// Now.
    Held(OwnedMutexGuard<()>),
    /// When all before it are done.
    Queued(Arc<Turnstile<()>>),
}

impl<K: Eq + Hash> Turns<K> {
    /// A turn at `key`: at once where nobody has it.
    pub fn take(&self, key: K) -> Turn {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, turnstile| turnstile.strong_count() > 0);
        let turnstile = known.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        known.insert(key, Arc::downgrade(&turnstile));
        match Arc::clone(&turnstile).try_lock_owned() {
            Ok(guard) => Turn::Held(guard),
            Err(_) => Turn::Queued(turnstile),
        }
    }
}

impl Turn {
    /// Waits until it is now.
    pub async fn held(self) -> OwnedMutexGuard<()> {
        match self {
            Self::Held(guard) => guard,
            Self::Queued(turnstile) => turnstile.lock_owned().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let turns = Turns::default();
        let first = turns.take("a");
        assert!(matches!(first, Turn::Held(_)));
        assert!(matches!(turns.take("b"), Turn::Held(_)));
        let second = turns.take("a");
        assert!(matches!(second, Turn::Queued(_)));
        let waiting = tokio::spawn(second.held());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.unwrap());
        assert!(matches!(turns.take("a"), Turn::Held(_)));
    }
}
