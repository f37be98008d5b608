//! One lock per volume, so that unrelated volumes never wait for one another.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::volume::VolumeId;

/// The volumes on which an operation is running.
#[derive(Debug, Default, Clone)]
pub struct Locks(Arc<Mutex<HashSet<VolumeId>>>);

/// An operation runs on this volume until this is dropped.
#[derive(Debug)]
pub struct VolumeLock {
    locks: Locks,
    id: VolumeId,
}

/// Another operation is running on the volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another operation on {0} is under way; retry when it has ended")]
pub struct Busy(VolumeId);

impl Locks {
    /// Begins an operation on a volume. Does not wait: CSI wants ABORTED, and the caller to retry.
    pub fn begin(&self, id: &VolumeId) -> Result<VolumeLock, Busy> {
        if self.set().insert(id.clone()) {
            Ok(VolumeLock {
                locks: self.clone(),
                id: id.clone(),
            })
        } else {
            Err(Busy(id.clone()))
        }
    }

    /// The set is right at every moment, so a panic elsewhere does not matter.
    fn set(&self) -> std::sync::MutexGuard<'_, HashSet<VolumeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        self.locks.set().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::NodeName;

    #[test]
    fn one_operation_per_volume_and_none_for_others_to_wait_for() {
        let node = NodeName::parse("node").unwrap();
        let (a, b) = (VolumeId::of("a", &node), VolumeId::of("b", &node));
        let locks = Locks::default();
        let held = locks.begin(&a).unwrap();
        assert_eq!(locks.begin(&a).unwrap_err(), Busy(a.clone()));
        assert!(locks.begin(&b).is_ok());
        drop(held);
        assert!(locks.begin(&a).is_ok());
    }
}
