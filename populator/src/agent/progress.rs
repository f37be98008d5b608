//! How far a restore is, for programs and for people.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use archive::Snapshot;
use crds::volume_restore::Progress;

use crate::units;

/// What "of late" means.
const WINDOW: Duration = Duration::from_secs(10);

/// Before this, a rate says nothing about the rest.
const SETTLED: Duration = Duration::from_secs(2);

/// Makes figures of counters.
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    consumed: u64,
    written: u64,
}

impl Meter {
    /// The figures at a moment when the counters show this.
    pub fn read(&mut self, at: Instant, counters: &Snapshot) -> Progress {
        let now = Sample {
            at,
            consumed: counters.consumed,
            written: counters.written,
        };
        self.samples.push_back(now);
        // The oldest sample kept is the last one that is at least as old as the window.
        while self.samples.len() > 2 && at.duration_since(self.samples[1].at) >= WINDOW {
            self.samples.pop_front();
        }
        let then = self.samples.front().copied().unwrap_or(now);
        let span = at.duration_since(then.at);
        let rate = per_second(now.written.saturating_sub(then.written), span);
        let eta = eta(counters, now.consumed.saturating_sub(then.consumed), span);
        Progress {
            percent: percent(counters.consumed, counters.length),
            bytes_read: signed(counters.consumed),
            bytes_total: signed(counters.length),
            bytes_written: signed(counters.written),
            entries: signed(counters.entries),
            bytes_per_second: signed(rate),
            eta_seconds: eta.map(|eta| signed(eta.as_secs())),
            restored: units::bytes(counters.written),
            rate: units::rate(rate),
            eta: eta.map(units::duration),
        }
    }
}

fn percent(part: u64, whole: u64) -> i64 {
    match whole {
        0 => 0,
        whole => signed(u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(100)),
    }
}

fn per_second(bytes: u64, span: Duration) -> u64 {
    match span.as_millis() {
        0 => 0,
        millis => u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX),
    }
}

/// The time for what is left of the stored bytes at the speed at which they were used of late.
fn eta(counters: &Snapshot, consumed: u64, span: Duration) -> Option<Duration> {
    if span < SETTLED || consumed == 0 {
        return None;
    }
    let left = u128::from(counters.length.saturating_sub(counters.consumed));
    let millis = (left * span.as_millis()).div_ceil(u128::from(consumed));
    Some(Duration::from_secs(
        u64::try_from(millis.div_ceil(1000)).ok()?,
    ))
}

/// A count as the API carries it.
pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(consumed: u64, written: u64) -> Snapshot {
        Snapshot {
            length: 1000 << 20,
            fetched: consumed,
            consumed,
            written,
            entries: 3,
        }
    }

    #[test]
    fn figures_follow_the_last_ten_seconds() {
        let begun = Instant::now();
        let mut meter = Meter::default();
        let first = meter.read(begun, &counters(0, 0));
        assert_eq!(
            (first.percent, first.bytes_per_second, first.eta_seconds),
            (0, 0, None)
        );

        // 10 MiB of the archive and 30 MiB of files each second, then half of that.
        let mut last = first;
        for second in 1..=10 {
            let at = begun + Duration::from_secs(second);
            last = meter.read(at, &counters((second * 10) << 20, (second * 30) << 20));
        }
        assert_eq!((last.percent, last.rate.as_str()), (10, "30 MiB/s"));
        assert_eq!(last.restored, "300 MiB");
        assert_eq!(
            (last.eta_seconds, last.eta.as_deref()),
            (Some(90), Some("1m30s"))
        );
        for second in 1..=10 {
            let at = begun + Duration::from_secs(10 + second);
            let (read, written) = (100 + second * 5, 300 + second * 15);
            last = meter.read(at, &counters(read << 20, written << 20));
        }
        assert_eq!((last.percent, last.rate.as_str()), (15, "15 MiB/s"));
        assert_eq!(last.eta_seconds, Some(170));
    }

    #[test]
    fn an_unknown_end_is_left_out() {
        let begun = Instant::now();
        let mut meter = Meter::default();
        meter.read(begun, &counters(5 << 20, 0));
        let stalled = meter.read(begun + Duration::from_secs(60), &counters(5 << 20, 0));
        assert_eq!((stalled.bytes_per_second, stalled.eta_seconds), (0, None));
        let early = Meter::default().read(begun, &Snapshot::default());
        assert_eq!((early.percent, early.eta_seconds), (0, None));
    }
}
