//! How many ranges are fetched at a time: as many as the store can be made to give, and no more than the
//! reader uses.

use std::time::{Duration, Instant};

/// What happened with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The reader had waited for it: more at a time might have brought it earlier.
    Awaited,
    /// It came in time.
    InTime,
    /// The reader has not even taken the one before, and all others are there too.
    Early,
    /// It had to be asked for again.
    Strained,
}

/// Ranges that the reader waits for, and is never behind, before more than the least at a time are tried: one long
/// request is cheaper for all, and the first piece is always waited for.
const PATIENCE: usize = 8;

/// What patience grows to, by four with every trial in vain.
const PATIENCE_MAX: usize = 512;

/// Ranges after which as many are in flight as will be.
const WARMING: usize = 8;

/// Ranges by which more at a time are judged, after that.
const TRIAL: usize = 16;

/// Times faster that more at a time must be: many requests cost both sides more than one does.
const WORTH: f64 = 1.25;

/// Grows by half with every range that the reader waits for: those that were asked for together come
/// together, so that is once in the time that one takes. Shrinks by one where the reader is slower than the
/// store, to half where the store fails, and to the least where more at a time do not come faster: a store
/// that is not far but busy, or a link that is full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Concurrency {
    allowed: usize,
    least: usize,
    most: usize,
    patience: usize,
    /// How many were waited for since one was early.
    awaited: usize,
    /// Of all that came since then, or since a trial is warm.
    pace: Pace,
    trial: Option<Trial>,
}

/// Ranges, and when the first of them began.
#[derive(Debug, Clone, Copy)]
struct Pace {
    ranges: usize,
    since: Instant,
}

impl Pace {
    fn from(since: Instant) -> Self {
        Self { ranges: 0, since }
    }

    fn time_of_one(self, now: Instant) -> Duration {
        let ranges = u32::try_from(self.ranges.max(1)).unwrap_or(u32::MAX);
        now.duration_since(self.since) / ranges
    }
}

/// More than the least at a time, until it is known whether that is worth it.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// With the least at a time.
    time_of_one: Duration,
    is_warm: bool,
}

impl Concurrency {
    pub(super) fn new(least: usize, most: usize, now: Instant) -> Self {
        let least = least.max(1);
        Self {
            allowed: least,
            least,
            most: most.max(least),
            patience: PATIENCE,
            awaited: 0,
            pace: Pace::from(now),
            trial: None,
        }
    }

    /// Ranges that may be in flight now.
    pub(super) fn allowed(self) -> usize {
        self.allowed
    }

    pub(super) fn is_more_than_least(self) -> bool {
        self.allowed > self.least
    }

    pub(super) fn after(&mut self, arrival: Arrival, now: Instant) {
        self.pace.ranges += 1;
        let was_least = !self.is_more_than_least();
        let next = match arrival {
            Arrival::Awaited => {
                self.awaited += 1;
                if self.awaited <= self.patience {
                    self.allowed
                } else {
                    self.allowed + (self.allowed / 2).max(1)
                }
            }
            Arrival::InTime => self.allowed,
            Arrival::Early => self.allowed - 1,
            Arrival::Strained => self.allowed / 2,
        };
        self.allowed = next.clamp(self.least, self.most);
        if matches!(arrival, Arrival::Early | Arrival::Strained) {
            // Not the number at a time decides how fast they come. A trial is begun anew, with what it is
            // measured against, so that more are never kept unjudged.
            let trial = self.trial.filter(|_| self.is_more_than_least());
            self.begin_anew(now);
            self.trial = trial.map(|trial| Trial {
                is_warm: false,
                ..trial
            });
        } else if was_least && self.is_more_than_least() {
            let time_of_one = self.pace.time_of_one(now);
            self.trial = Some(Trial {
                time_of_one,
                is_warm: false,
            });
            self.pace = Pace::from(now);
        } else {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: Instant) {
        match &mut self.trial {
            Some(trial) if !trial.is_warm && self.pace.ranges >= WARMING => {
                trial.is_warm = true;
                self.pace = Pace::from(now);
            }
            Some(trial) if trial.is_warm && self.pace.ranges >= TRIAL => {
                if self.pace.time_of_one(now).mul_f64(WORTH) > trial.time_of_one {
                    self.allowed = self.least;
                    self.patience = (self.patience * 4).min(PATIENCE_MAX);
                }
                self.begin_anew(now);
            }
            Some(_) | None => {}
        }
    }

    fn begin_anew(&mut self, now: Instant) {
        self.awaited = 0;
        self.trial = None;
        self.pace = Pace::from(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that each range moves on by so many milliseconds.
    struct Clock {
        now: Instant,
        concurrency: Concurrency,
    }

    impl Clock {
        fn new(least: usize, most: usize) -> Self {
            let now = Instant::now();
            let concurrency = Concurrency::new(least, most, now);
            Self { now, concurrency }
        }

        fn after(&mut self, arrivals: &[Arrival], milliseconds: u64) -> usize {
            for arrival in arrivals {
                self.now += Duration::from_millis(milliseconds);
                self.concurrency.after(*arrival, self.now);
            }
            self.concurrency.allowed()
        }
    }

    use Arrival::{Awaited, Early, InTime, Strained};

    #[test]
    fn it_follows_reader_and_store_within_its_bounds() {
        let mut all = Clock::new(2, 8);
        assert_eq!(all.after(&[Awaited; PATIENCE], 9), 2);
        assert_eq!(all.after(&[Awaited; 3], 9), 6);
        assert_eq!(all.after(&[Awaited; 5], 9), 8);
        assert_eq!(all.after(&[InTime, Early], 9), 7);
        assert_eq!(all.after(&[Strained], 9), 3);
        assert_eq!(all.after(&[Strained; 9], 9), 2);
        assert_eq!(all.after(&[Early; 5], 9), 2);
        let mut broken = Clock::new(2, 8);
        let arrivals = [[Awaited; PATIENCE], [Early; PATIENCE], [Awaited; PATIENCE]];
        assert_eq!(broken.after(&arrivals.concat(), 9), 2);
        assert_eq!(Clock::new(0, 0).after(&[Awaited, Early], 9), 1);
    }

    #[test]
    fn more_at_a_time_stay_where_they_come_faster() {
        let mut far = Clock::new(2, 32);
        assert_eq!(far.after(&[Awaited; PATIENCE + 1], 50), 3);
        assert_eq!(far.after(&[Awaited; WARMING + TRIAL], 5), 32);
        assert_eq!(far.after(&[Awaited; 1000], 5), 32);
        assert_eq!(far.concurrency.patience, PATIENCE);
    }

    #[test]
    fn a_trial_that_was_disturbed_is_judged_all_the_same() {
        let mut busy = Clock::new(2, 32);
        assert_eq!(busy.after(&[Awaited; PATIENCE + WARMING], 5), 32);
        assert_eq!(busy.after(&[Strained], 5), 16);
        assert_eq!(busy.after(&[Awaited; WARMING + TRIAL], 5), 2);
    }

    #[test]
    fn and_go_where_they_do_not_and_are_tried_less_and_less() {
        let mut busy = Clock::new(2, 32);
        let mut more = 0;
        for _ in 0..4000 {
            more += usize::from(busy.after(&[Awaited], 5) > 2);
        }
        // Four trials or five, and every 512 ranges one more.
        let trials = more / (WARMING + TRIAL);
        assert!((6..=13).contains(&trials), "{trials}");
        assert_eq!(busy.concurrency.patience, PATIENCE_MAX);
    }
}
