//! How many ranges are fetched at a time: as many as the store can be made to give, and no more than the
//! reader uses.

/// What happened with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The reader had waited for it: more at a time would have brought it earlier.
    Awaited,
    /// It came in time.
    InTime,
    /// The reader has not even taken the one before, and all others are there too.
    Early,
    /// It had to be asked for again.
    Strained,
}

/// Ranges that the reader waits for, and is never behind, before there are more than the least at a time: one long
/// request is cheaper for all, and the first piece is always waited for.
const PATIENCE: usize = 8;

/// Grows by half with every range that the reader waits for: those that were asked for together come
/// together, so that is once in the time that one takes. Shrinks by one where the reader is slower than the
/// store, and to half where the store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Concurrency {
    allowed: usize,
    /// How many were waited for since one was early.
    awaited: usize,
    least: usize,
    most: usize,
}

impl Concurrency {
    pub(super) fn new(least: usize, most: usize) -> Self {
        let least = least.max(1);
        Self {
            allowed: least,
            awaited: 0,
            least,
            most: most.max(least),
        }
    }

    /// Ranges that may be in flight now.
    pub(super) fn allowed(self) -> usize {
        self.allowed
    }

    pub(super) fn is_more_than_least(self) -> bool {
        self.allowed > self.least
    }

    pub(super) fn after(&mut self, arrival: Arrival) {
        self.awaited = match arrival {
            Arrival::Awaited => self.awaited + 1,
            Arrival::InTime => self.awaited,
            Arrival::Early | Arrival::Strained => 0,
        };
        let next = match arrival {
            Arrival::Awaited if self.awaited <= PATIENCE => self.allowed,
            Arrival::Awaited => self.allowed + (self.allowed / 2).max(1),
            Arrival::InTime => self.allowed,
            Arrival::Early => self.allowed - 1,
            Arrival::Strained => self.allowed / 2,
        };
        self.allowed = next.clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(mut concurrency: Concurrency, arrivals: &[Arrival]) -> usize {
        for arrival in arrivals {
            concurrency.after(*arrival);
        }
        concurrency.allowed()
    }

    #[test]
    fn it_follows_reader_and_store_within_its_bounds() {
        use Arrival::{Awaited, Early, InTime, Strained};
        let all = Concurrency::new(2, 8);
        assert_eq!(after(all, &[]), 2);
        assert_eq!(after(all, &[Awaited; PATIENCE]), 2);
        assert_eq!(after(all, &[Awaited; PATIENCE + 3]), 6);
        assert_eq!(after(all, &[Awaited; 100]), 8);
        let broken = [[Awaited; PATIENCE], [Early; PATIENCE], [Awaited; PATIENCE]];
        assert_eq!(after(all, &broken.concat()), 2);
        assert_eq!(after(all, &[Early; 5]), 2);
        let full = Concurrency { allowed: 8, ..all };
        assert_eq!(after(full, &[InTime, Early]), 7);
        assert_eq!(after(full, &[Strained]), 4);
        assert_eq!(after(full, &[Strained; 9]), 2);
        assert_eq!(after(Concurrency::new(0, 0), &[Awaited, Early]), 1);
    }
}
