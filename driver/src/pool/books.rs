//! The books: how much of the pool is promised, so that no byte is promised twice.
//!
//! An image has holes, and the file system in it may come to fill all of them. So each volume is
//! booked with its whole size, from before its first byte is written until after its last is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::bytes::Bytes;
use crate::kernel::Failed;
use crate::volume::{SIZE_UNIT, VolumeId};

/// What the pool's own file system may need for itself, in hundredths.
const MARGIN_PERCENT: u64 = 3;

/// The promises of a pool. One lock, held for moments: never while anything is made.
#[derive(Debug, Default)]
pub struct Books(Mutex<BTreeMap<VolumeId, u64>>);

/// Why a volume is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Not enough is left.
    #[error(
        "the pool has {} left to promise, and {} were asked for; delete volumes, or give it a \
         larger pool", Bytes(*.available), Bytes(*.wanted)
    )]
    Full {
        /// What is left, in bytes.
        available: u64,
        /// What was asked for, in bytes.
        wanted: u64,
    },
    /// The capacity cannot be found out.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A booking for a volume that is being made. Dropped, it is struck out.
#[derive(Debug)]
pub struct Promise<'a> {
    books: &'a Books,
    id: Option<VolumeId>,
}

impl Promise<'_> {
    /// The volume exists: the booking stays until [`Books::release`].
    pub fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.books.release(&id);
        }
    }
}

impl Books {
    /// Books a volume that exists, whether or not there is room for it.
    pub fn record(&self, id: VolumeId, size: u64) {
        self.lock().insert(id, size);
    }

    /// Books a volume that is to be made, if all promises together stay within the capacity.
    pub fn promise(
        &self,
        id: &VolumeId,
        size: u64,
        capacity: impl FnOnce() -> Result<u64, Failed>,
    ) -> Result<Promise<'_>, AdmissionError> {
        let mut promises = self.lock();
        let promised = promises.values().sum();
        let available = available(capacity()?, promised);
        if size > available {
            return Err(AdmissionError::Full {
                available,
                wanted: size,
            });
        }
        promises.insert(id.clone(), size);
        Ok(Promise {
            books: self,
            id: Some(id.clone()),
        })
    }

    /// Strikes out a volume of which nothing is left.
    pub fn release(&self, id: &VolumeId) {
        self.lock().remove(id);
    }

    /// The sum of all promises in bytes, and their number.
    pub fn totals(&self) -> (u64, usize) {
        let promises = self.lock();
        (promises.values().sum(), promises.len())
    }

    /// The map is right at every moment, so a panic elsewhere does not matter.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<VolumeId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can still be promised of a capacity, in bytes: the largest new volume.
pub fn available(capacity: u64, promised: u64) -> u64 {
    let margin = capacity / 100 * MARGIN_PERCENT;
    let left = (capacity - margin).saturating_sub(promised);
    left - left % SIZE_UNIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{GIB, MIB};
    use crate::volume::NodeName;

    fn id(name: &str) -> VolumeId {
        VolumeId::of(name, &NodeName::parse("node").unwrap())
    }

    #[test]
    fn three_hundredths_stay_back_and_the_rest_is_in_whole_mebibytes() {
        for (capacity, promised, left) in [
            (0, 0, 0),
            (100 * GIB, 0, 97 * GIB),
            (100 * GIB, 97 * GIB, 0),
            (100 * GIB, 97 * GIB - MIB - 1, MIB),
            (100 * GIB, 97 * GIB - 1, 0),
            (100 * GIB, 200 * GIB, 0),
        ] {
            assert_eq!(
                available(capacity, promised),
                left,
                "{promised} of {capacity}"
            );
        }
    }

    #[test]
    fn a_byte_is_promised_once() {
        let books = Books::default();
        let capacity = || Ok(100 * GIB);
        books
            .promise(&id("a"), 97 * GIB - MIB, capacity)
            .unwrap()
            .keep();
        let full = books.promise(&id("b"), MIB + 1, capacity).unwrap_err();
        assert!(
            matches!(full, AdmissionError::Full { available: MIB, .. }),
            "{full}"
        );
        books.promise(&id("b"), MIB, capacity).unwrap().keep();
        assert!(books.promise(&id("c"), 1, capacity).is_err());
        assert_eq!(books.totals(), (97 * GIB, 2));
        books.release(&id("a"));
        assert!(books.promise(&id("c"), 97 * GIB - MIB, capacity).is_ok());
    }

    #[test]
    fn what_was_not_made_is_struck_out() {
        let books = Books::default();
        drop(books.promise(&id("a"), GIB, || Ok(2 * GIB)).unwrap());
        assert_eq!(books.totals(), (0, 0));
    }
}
