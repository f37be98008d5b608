//! One lock per volume, snapshot and group, so that unrelated ones never wait for one another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use crate::volume::{Id, Kind};

/// The objects on which an operation is running, by their ids.
#[derive(Debug, Default, Clone)]
pub struct Locks(Arc<Mutex<HashMap<String, Hold>>>);

/// By whom an object is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// By one that changes it.
    Changed,
    /// By so many that read it.
    Read(usize),
}

/// An operation runs on an object until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    locks: Locks,
    id: String,
}

/// Another operation is running on the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another operation on {0} is under way; retry when it has ended")]
pub struct Busy(String);

impl Locks {
    /// Begins an operation that changes an object. Does not wait: CSI wants ABORTED, and the
    /// caller to retry.
    pub fn begin<K: Kind>(&self, id: &Id<K>) -> Result<Lock, Busy> {
        match self.map().entry(id.as_str().to_owned()) {
            Entry::Occupied(_) => return Err(Busy(id.to_string())),
            Entry::Vacant(vacant) => vacant.insert(Hold::Changed),
        };
        Ok(self.lock(id))
    }

    /// Begins an operation that reads an object, beside others that do.
    pub fn read<K: Kind>(&self, id: &Id<K>) -> Result<Lock, Busy> {
        match self
            .map()
            .entry(id.as_str().to_owned())
            .or_insert(Hold::Read(0))
        {
            Hold::Changed => return Err(Busy(id.to_string())),
            Hold::Read(readers) => *readers += 1,
        }
        Ok(self.lock(id))
    }

    fn lock<K: Kind>(&self, id: &Id<K>) -> Lock {
        Lock {
            locks: self.clone(),
            id: id.to_string(),
        }
    }

    /// The map is right at every moment, so a panic elsewhere does not matter.
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut map = self.locks.map();
        match map.get_mut(&self.id) {
            Some(Hold::Read(readers)) if *readers > 1 => *readers -= 1,
            _ => drop(map.remove(&self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{NodeName, SnapshotId, VolumeId};

    #[test]
    fn one_operation_per_volume_and_none_for_others_to_wait_for() {
        let node = NodeName::parse("node").unwrap();
        let (a, b) = (VolumeId::of("a", &node), VolumeId::of("b", &node));
        let locks = Locks::default();
        let held = locks.begin(&a).unwrap();
        assert_eq!(locks.begin(&a).unwrap_err(), Busy(a.to_string()));
        assert!(locks.read(&a).is_err());
        assert!(locks.begin(&b).is_ok());
        assert!(locks.begin(&SnapshotId::of("a", &node)).is_ok());
        drop(held);
        assert!(locks.begin(&a).is_ok());
    }

    #[test]
    fn readers_run_beside_one_another_and_keep_changes_out() {
        let id = SnapshotId::of("a", &NodeName::parse("node").unwrap());
        let locks = Locks::default();
        let (first, second) = (locks.read(&id).unwrap(), locks.read(&id).unwrap());
        assert!(locks.begin(&id).is_err());
        drop(first);
        assert!(locks.begin(&id).is_err());
        drop(second);
        assert!(locks.begin(&id).is_ok());
    }
}
