//! Who fills a volume next, of those that wait: the namespace that has the fewest at work, then the one whose
//! turn is longest ago; and in it the most urgent, then who came first. So no namespace with a thousand
//! restores, however urgent, keeps another from its one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Places of work on a node.
#[derive(Debug)]
pub struct Places(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Of the namespaces that wait or work.
    known: HashMap<String, Standing>,
    turns: u64,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
}

/// What a namespace has had.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Places that it has now.
    working: usize,
    /// When it was last given one, counted in turns.
    turn: u64,
}

#[derive(Debug)]
struct Waiting {
    wish: Wish,
    given: oneshot::Sender<Place>,
}

/// Who wants a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The namespace that it is for.
    pub namespace: String,
    /// How urgent it is among those of its namespace: 0 for most, more before less.
    pub priority: i64,
}

/// A place. It is given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    namespace: String,
}

impl Places {
    /// So many, all free.
    pub fn new(number: u16) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: usize::from(number),
            known: HashMap::new(),
            turns: 0,
            waiting: Vec::new(),
        })))
    }

    /// Waits for a place. Who stops waiting leaves no trace.
    pub async fn wait(self: &Arc<Self>, wish: Wish) -> Place {
        let (given, place) = oneshot::channel();
        self.lock().waiting.push(Waiting { wish, given });
        self.give();
        place
            .await
            .expect("only those that nobody waits for are dropped")
    }

    /// Gives what is free to those that wait.
    fn give(self: &Arc<Self>) {
        while let Some((given, place)) = self.next() {
            // Outside of the lock: a place that nobody takes any more comes back at once.
            drop(given.send(place));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Place>, Place)> {
        let mut state = self.lock();
        state.waiting.retain(|one| !one.given.is_closed());
        if state.free == 0 {
            return None;
        }
        let index = first(state.waiting.iter().map(|one| &one.wish), &state.known)?;
        let Waiting { wish, given } = state.waiting.remove(index);
        let namespace = wish.namespace;
        state.free -= 1;
        state.turns += 1;
        let turn = state.turns;
        let standing = state.known.entry(namespace.clone()).or_default();
        standing.working += 1;
        standing.turn = turn;
        let places = Arc::clone(self);
        Some((given, Place { places, namespace }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.free += 1;
        let State { known, waiting, .. } = &mut *state;
        if let Some(standing) = known.get_mut(&self.namespace) {
            standing.working -= 1;
        }
        // Who comes back later is no worse than who comes for the first time.
        known.retain(|namespace, standing| {
            standing.working > 0 || waiting.iter().any(|it| it.wish.namespace == *namespace)
        });
        drop(state);
        self.places.give();
    }
}

/// Which of the wishes, in the order in which they came, is served first.
fn first<'a>(
    wishes: impl Iterator<Item = &'a Wish>,
    known: &HashMap<String, Standing>,
) -> Option<usize> {
    let ranked = wishes.enumerate().map(|(index, wish)| {
        let standing = known.get(&wish.namespace).copied().unwrap_or_default();
        (
            standing.working,
            standing.turn,
            Reverse(wish.priority),
            index,
        )
    });
    ranked.min().map(|(.., index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(namespace: &str, priority: i64) -> Wish {
        Wish {
            namespace: namespace.to_owned(),
            priority,
        }
    }

    #[test]
    fn fairness_then_urgency_then_order() {
        let standing = |working, turn| Standing { working, turn };
        let known = [("a", 2, 1), ("b", 1, 3), ("d", 1, 2)];
        let known = known.map(|(name, working, turn)| (name.to_owned(), standing(working, turn)));
        let known = HashMap::from(known);
        let first = |wishes: &[Wish]| first(wishes.iter(), &known);
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[wish("a", 0), wish("a", 0)]), Some(0));
        assert_eq!(first(&[wish("a", 0), wish("b", 0), wish("b", 0)]), Some(1));
        assert_eq!(first(&[wish("a", 0), wish("b", 0), wish("c", 0)]), Some(2));
        assert_eq!(first(&[wish("b", 0), wish("d", 0)]), Some(1));
        assert_eq!(first(&[wish("a", 9), wish("c", 0)]), Some(1));
        assert_eq!(first(&[wish("a", 0), wish("a", 5), wish("a", 5)]), Some(1));
    }

    #[tokio::test]
    async fn one_of_another_namespace_passes_the_many_of_one() {
        let places = Places::new(1);
        let held = places.wait(wish("many", 0)).await;
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for namespace in ["many", "many", "few"] {
            let (places, order) = (Arc::clone(&places), order.clone());
            tokio::spawn(async move {
                let place = places.wait(wish(namespace, 0)).await;
                order.send(namespace).unwrap();
                drop(place);
            });
            tokio::task::yield_now().await;
        }
        let given_up = places.wait(wish("gone", 9));
        assert!(futures::poll!(std::pin::pin!(given_up)).is_pending());
        drop(held);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(served.recv().await.unwrap());
        }
        assert_eq!(all, ["few", "many", "many"]);
        let state = places.lock();
        assert_eq!(
            (state.free, state.known.len(), state.waiting.len()),
            (1, 0, 0)
        );
    }

    #[tokio::test]
    async fn a_place_that_nobody_takes_comes_back() {
        let places = Places::new(2);
        let (one, two) = (
            places.wait(wish("a", 0)).await,
            places.wait(wish("a", 0)).await,
        );
        let waiting = {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.wait(wish("b", 0)).await })
        };
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop((one, two));
        drop(places.wait(wish("c", 0)).await);
        assert_eq!(places.lock().free, 2);
    }
}
