//! The books: how much of the pool is promised, so that no byte is promised twice.
//!
//! An image has holes and blocks that it shares with snapshots and clones, and a write to either
//! takes a new block. So each volume is booked with its whole size, from before its first byte is
//! written until after its last is gone; and on top of all volumes comes what is *pinned*: blocks
//! that are in use and that no volume has for itself, such as a snapshot's. A write moves a volume
//! nearer to its size and changes neither sum. With both within the capacity, no write of a volume
//! ever finds the pool full.
//!
//! What is pinned is measured (`super::space`); between two measurements every operation adds
//! what it pins. What deletions give free shows at the next measurement, never too early.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::bytes::Bytes;
use crate::kernel::Failed;
use crate::kernel::files::Space;
use crate::volume::{SIZE_UNIT, VolumeId};

/// How far promises may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// How many bytes are promised for each byte there is; 1 for no more than there are.
    pub overcommit: f64,
    /// Where nothing new is made any more, in hundredths of the pool that are in use. Matters
    /// only with overcommitment.
    pub stop_percent: u64,
    /// What the pool's own file system may need for itself, in hundredths.
    pub margin_percent: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            overcommit: 1.0,
            stop_percent: 90,
            margin_percent: 3,
        }
    }
}

/// All sums of the books at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Promised to volumes.
    pub promised: u64,
    /// In use, and no volume's alone.
    pub pinned: u64,
    /// The number of volumes.
    pub volumes: usize,
}

/// The promises of a pool. One lock, held for moments: never while anything is made or measured.
#[derive(Debug, Default)]
pub struct Books {
    ledger: Mutex<Ledger>,
    policy: Policy,
}

#[derive(Debug, Default)]
struct Ledger {
    promises: BTreeMap<VolumeId, u64>,
    /// As measured, and what operations have pinned since.
    pinned: u64,
    /// What operations that are under way are about to pin.
    pending: u64,
    /// The sum of all that operations ever pinned, by which a measurement that began before one
    /// of them knows what it may have missed.
    ever_pinned: u64,
    /// Whether something was deleted since the last measurement.
    stale: bool,
}

/// Why something is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Not enough is left.
    #[error(
        "the pool has {} left to promise, and {} were asked for; delete volumes or snapshots, or \
         give it a larger pool", Bytes(*.available), Bytes(*.wanted)
    )]
    Full {
        /// What is left, in bytes.
        available: u64,
        /// What was asked for, in bytes.
        wanted: u64,
    },
    /// More is promised than there is, and what there is nears its end.
    #[error(
        "{used_percent} % of the pool are in use, and nothing new is made beyond {stop_percent} %; \
         delete volumes or snapshots, or give it a larger pool"
    )]
    Watermark {
        /// What is in use.
        used_percent: u64,
        /// The watermark.
        stop_percent: u64,
    },
    /// The space cannot be found out.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A booking for something that is being made. Dropped, it is struck out.
#[derive(Debug)]
#[must_use]
pub struct Promise<'a> {
    books: &'a Books,
    entry: Option<Entry>,
}

#[derive(Debug)]
enum Entry {
    /// A volume, and what was booked for it before.
    Volume(VolumeId, Option<u64>),
    /// Blocks that become nobody's alone.
    Pin(u64),
}

impl Promise<'_> {
    /// It is made: the booking stays.
    pub fn keep(mut self) {
        if let Some(Entry::Pin(bytes)) = self.entry.take() {
            let mut ledger = self.books.lock();
            ledger.pending -= bytes;
            ledger.pinned += bytes;
            ledger.ever_pinned += bytes;
        }
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut ledger = self.books.lock();
        match self.entry.take() {
            Some(Entry::Volume(id, Some(before))) => drop(ledger.promises.insert(id, before)),
            Some(Entry::Volume(id, None)) => drop(ledger.promises.remove(&id)),
            Some(Entry::Pin(bytes)) => ledger.pending -= bytes,
            None => {}
        }
    }
}

impl Books {
    /// Empty books.
    pub fn new(policy: Policy) -> Self {
        Self {
            ledger: Mutex::default(),
            policy,
        }
    }

    /// Books a volume that exists, whether or not there is room for it.
    pub fn record(&self, id: VolumeId, size: u64) {
        self.lock().promises.insert(id, size);
    }

    /// Books a volume that is to be made, or to grow to this size.
    pub fn promise(
        &self,
        id: &VolumeId,
        size: u64,
        space: Space,
    ) -> Result<Promise<'_>, AdmissionError> {
        let mut ledger = self.lock();
        let before = ledger.promises.get(id).copied();
        self.admit(&ledger, space, size.saturating_sub(before.unwrap_or(0)))?;
        ledger.promises.insert(id.clone(), size);
        Ok(self.entry(Entry::Volume(id.clone(), before)))
    }

    /// Books blocks of a volume that are about to be shared, so that it has them no longer for
    /// itself.
    pub fn pin(&self, bytes: u64, space: Space) -> Result<Promise<'_>, AdmissionError> {
        let mut ledger = self.lock();
        self.admit(&ledger, space, bytes)?;
        ledger.pending += bytes;
        Ok(self.entry(Entry::Pin(bytes)))
    }

    fn entry(&self, entry: Entry) -> Promise<'_> {
        Promise {
            books: self,
            entry: Some(entry),
        }
    }

    fn admit(&self, ledger: &Ledger, space: Space, wanted: u64) -> Result<(), AdmissionError> {
        let available = available(self.policy, space, ledger.totals());
        if wanted > available {
            return Err(AdmissionError::Full { available, wanted });
        }
        let used_percent = space.used.saturating_mul(100) / space.total.max(1);
        let stop_percent = self.policy.stop_percent;
        if self.policy.overcommit > 1.0 && used_percent >= stop_percent {
            return Err(AdmissionError::Watermark {
                used_percent,
                stop_percent,
            });
        }
        Ok(())
    }

    /// Strikes out a volume of which nothing is left.
    pub fn release(&self, id: &VolumeId) {
        let mut ledger = self.lock();
        ledger.promises.remove(id);
        ledger.stale = true;
    }

    /// Notes that a snapshot is gone: less may be pinned.
    pub fn loosen(&self) {
        self.lock().stale = true;
    }

    /// Whether a measurement may find less pinned than is booked.
    pub fn is_stale(&self) -> bool {
        self.lock().stale
    }

    /// Begins a measurement; the mark is for [`Self::measured`].
    pub fn begin_measurement(&self) -> Mark {
        let mut ledger = self.lock();
        ledger.stale = false;
        Mark(ledger.ever_pinned)
    }

    /// Ends a measurement. What operations pinned meanwhile may be missing in it, and is added.
    pub fn measured(&self, mark: Mark, pinned: u64) {
        let mut ledger = self.lock();
        ledger.pinned = pinned + (ledger.ever_pinned - mark.0);
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        self.lock().totals()
    }

    /// Where nothing new is made any more, in hundredths of the pool that are in use, if more is
    /// promised than there is.
    pub fn stop_percent(&self) -> u64 {
        self.policy.stop_percent
    }

    /// What can still be promised, in bytes: the largest new volume.
    pub fn available(&self, space: Space) -> u64 {
        let left = available(self.policy, space, self.totals());
        match self.admit(&self.lock(), space, 0) {
            Ok(()) => left,
            Err(_) => 0,
        }
    }

    /// The ledger is right at every moment, so a panic elsewhere does not matter.
    fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn totals(&self) -> Totals {
        Totals {
            promised: self.promises.values().sum(),
            pinned: self.pinned + self.pending,
            volumes: self.promises.len(),
        }
    }
}

/// Where a measurement began.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// What can still be promised of a space, in bytes, in whole units.
fn available(policy: Policy, space: Space, totals: Totals) -> u64 {
    let real = space.total - space.total / 100 * policy.margin_percent;
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a policy beyond 1 is a rough wish, and the product is positive"
    )]
    let limit = if policy.overcommit > 1.0 {
        (real as f64 * policy.overcommit) as u64
    } else {
        real
    };
    let left = limit.saturating_sub(totals.promised.saturating_add(totals.pinned));
    left - left % SIZE_UNIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{GIB, MIB};
    use crate::volume::NodeName;

    const SPACE: Space = Space {
        total: 100 * GIB,
        used: 0,
    };

    fn id(name: &str) -> VolumeId {
        VolumeId::of(name, &NodeName::parse("node").unwrap())
    }

    fn totals(promised: u64, pinned: u64) -> Totals {
        Totals {
            promised,
            pinned,
            volumes: 1,
        }
    }

    #[test]
    fn three_hundredths_stay_back() {
        for (total, promised, pinned, left) in [
            (0, 0, 0, 0),
            (100 * GIB, 0, 0, 97 * GIB),
            (100 * GIB, 97 * GIB, 0, 0),
            (100 * GIB, 90 * GIB, 7 * GIB - MIB, MIB),
            (100 * GIB, 200 * GIB, 0, 0),
        ] {
            let space = Space { total, used: 0 };
            let found = available(Policy::default(), space, totals(promised, pinned));
            assert_eq!(found, left, "{promised} and {pinned} of {total}");
        }
    }

    #[test]
    fn a_byte_is_promised_once() {
        let books = Books::default();
        books.promise(&id("a"), 96 * GIB, SPACE).unwrap().keep();
        let full = books.promise(&id("b"), GIB + 1, SPACE).unwrap_err();
        assert!(
            matches!(full, AdmissionError::Full { available: GIB, .. }),
            "{full}"
        );
        books.pin(GIB, SPACE).unwrap().keep();
        assert!(books.pin(1, SPACE).is_err());
        assert_eq!(books.totals(), totals(96 * GIB, GIB));
        books.release(&id("a"));
        assert!(books.is_stale());
        assert!(books.promise(&id("c"), 96 * GIB, SPACE).is_ok());
    }

    #[test]
    fn growth_is_admitted_by_the_difference() {
        let books = Books::default();
        books.promise(&id("a"), 90 * GIB, SPACE).unwrap().keep();
        drop(books.promise(&id("a"), 97 * GIB, SPACE).unwrap());
        assert_eq!(books.totals().promised, 90 * GIB);
        assert!(books.promise(&id("a"), 98 * GIB, SPACE).is_err());
    }

    #[test]
    fn what_was_not_made_is_struck_out() {
        let books = Books::default();
        drop(books.promise(&id("a"), GIB, SPACE).unwrap());
        drop(books.pin(GIB, SPACE).unwrap());
        assert_eq!(books.totals(), Totals::default());
    }

    #[test]
    fn a_measurement_counts_what_was_pinned_meanwhile() {
        let books = Books::default();
        books.pin(5 * GIB, SPACE).unwrap().keep();
        books.loosen();
        let mark = books.begin_measurement();
        books.pin(GIB, SPACE).unwrap().keep();
        books.measured(mark, 2 * GIB);
        assert_eq!(books.totals().pinned, 3 * GIB);
        assert!(!books.is_stale());
    }

    #[test]
    fn overcommitment_goes_up_to_its_ratio_and_to_the_watermark() {
        let policy = Policy {
            overcommit: 2.0,
            stop_percent: 80,
            ..Policy::default()
        };
        let books = Books::new(policy);
        assert_eq!(books.available(SPACE), 194 * GIB);
        let used = |used| Space { used, ..SPACE };
        books
            .promise(&id("a"), 190 * GIB, used(79 * GIB))
            .unwrap()
            .keep();
        let stopped = books.promise(&id("b"), GIB, used(80 * GIB)).unwrap_err();
        assert!(
            matches!(stopped, AdmissionError::Watermark { .. }),
            "{stopped}"
        );
        assert_eq!(books.available(used(80 * GIB)), 0);
        assert_eq!(books.available(used(79 * GIB)), 4 * GIB);
    }
}
