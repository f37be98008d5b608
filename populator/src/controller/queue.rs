//! A queue of keys, each at most once in it and never worked on twice at the same time.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Keys with the time when each is due.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    due: BTreeSet<(Instant, K)>,
    keys: HashMap<K, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    running: bool,
}

impl<K: Clone + Eq + Hash + Ord> Default for Queue<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                due: BTreeSet::new(),
                keys: HashMap::new(),
            }),
            changed: Notify::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// Has `key` worked on at once, or as soon as it is not being worked on.
    pub fn add(&self, key: K) {
        self.add_at(key, Instant::now());
    }

    /// Has `key` worked on after `delay`, unless it is due earlier already.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    fn add_at(&self, key: K, at: Instant) {
        self.lock().add(key, at);
        self.changed.notify_one();
    }

    /// The next key that is due and not being worked on. To be called from one place; the key is
    /// being worked on until [`Self::done`].
    pub async fn next(&self) -> K {
        loop {
            let wait = {
                let mut state = self.lock();
                match state.take(Instant::now()) {
                    Ok(key) => return key,
                    Err(wait) => wait,
                }
            };
            let changed = self.changed.notified();
            match wait {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Work on `key` is over.
    pub fn done(&self, key: &K) {
        self.lock().done(key);
        self.changed.notify_one();
    }

    /// Whether `key` is being worked on.
    pub fn is_running(&self, key: &K) -> bool {
        self.lock().keys.get(key).is_some_and(|entry| entry.running)
    }

    /// How many keys are due and not being worked on.
    pub fn depth(&self) -> usize {
        self.lock().waiting(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K, at: Instant) {
        let entry = self.keys.entry(key.clone()).or_default();
        if entry.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(due) = entry.due.replace(at)
            && !entry.running
        {
            self.due.remove(&(due, key.clone()));
        }
        if !entry.running {
            self.due.insert((at, key));
        }
    }

    /// A key that is due, or when to ask again.
    fn take(&mut self, now: Instant) -> Result<K, Option<Instant>> {
        match self.due.first() {
            Some((at, _)) if *at > now => Err(Some(*at)),
            Some(_) => {
                let (_, key) = self.due.pop_first().ok_or(None)?;
                let entry = self.keys.entry(key.clone()).or_default();
                entry.due = None;
                entry.running = true;
                Ok(key)
            }
            None => Err(None),
        }
    }

    fn waiting(&self, now: Instant) -> usize {
        self.due.iter().take_while(|(at, _)| *at <= now).count()
    }

    fn done(&mut self, key: &K) {
        let Some(entry) = self.keys.get_mut(key) else {
            return;
        };
        entry.running = false;
        match entry.due {
            Some(at) => {
                self.due.insert((at, key.clone()));
            }
            None => {
                self.keys.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn is_empty(queue: &Queue<&'static str>) -> bool {
        tokio::time::timeout(Duration::from_millis(1), queue.next())
            .await
            .is_err()
    }

    #[tokio::test]
    async fn a_key_is_in_it_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(is_empty(&queue).await);
    }

    #[tokio::test]
    async fn a_key_is_not_worked_on_twice_at_a_time() {
        let queue = Queue::default();
        queue.add("a");
        assert!(!queue.is_running(&"a"));
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert!(is_empty(&queue).await);
        assert!(queue.is_running(&"a"));
        queue.done(&"a");
        assert!(!queue.is_running(&"a"));
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn its_depth_is_what_could_be_worked_on_now() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("b");
        queue.add_after("c", LONG);
        assert_eq!(queue.depth(), 2);
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.depth(), 1);
        queue.done(&"a");
        assert_eq!(queue.depth(), 2);
    }

    #[tokio::test]
    async fn the_earlier_time_counts() {
        let queue = Queue::default();
        queue.add_after("a", LONG);
        assert!(is_empty(&queue).await);
        queue.add("a");
        queue.add_after("a", LONG);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(
            is_empty(&queue).await,
            "the later time went with the earlier one"
        );
    }

    #[tokio::test]
    async fn delays_given_while_working_hold() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add_after("a", LONG);
        queue.add("b");
        queue.done(&"a");
        assert_eq!(queue.next().await, "b");
        assert!(is_empty(&queue).await);
        queue.add("a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn a_delay_ends() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_millis(20));
        queue.add_after("b", LONG);
        assert!(is_empty(&queue).await);
        assert_eq!(queue.next().await, "a");
    }
}
