//! What this process remembers of each restore, beside the API objects. All of it may be lost at
//! any time: then a pause is shorter, or something is looked at once more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::RestoreOrder;
use crds::restore_order::Provisioned;
use crds::volume_restore::VolumeRestoreStatus;
use jiff::{SignedDuration, Timestamp};

use super::events::Notice;
use super::prime::PrimeClaim;

/// The pauses between attempts of an agent.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(5),
    most: Duration::from_secs(300),
};

/// The pauses between looks at what cannot be watched.
const LOOK: Backoff = Backoff {
    first: Duration::from_secs(5),
    most: Duration::from_secs(60),
};

/// The pauses of steering: between looks at a source that is being made, and before a node that
/// had no room is chosen again.
const STEERING: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

/// Pauses that double.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// The pause after the `failures`th failure, from 1, with up to a tenth more by chance, so that
    /// many that failed together do not come back together.
    fn pause(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let pause = self.first.saturating_mul(1 << doublings).min(self.most);
        let chance = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        pause + pause / 10 * chance / 255
    }
}

/// What is remembered, by PVC UID.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

/// What is remembered of one restore.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// What was last written into which VolumeRestore.
    pub reported: Option<Reported>,
    /// What the PVC's events were last made to say without a VolumeRestore.
    pub warned: Option<Notice>,
    /// What the PVC's annotation was last made to say: later than what a watch shows.
    pub milestone: Option<String>,
    /// The failed attempt that was seen, and when the next may begin.
    retry: Option<(i64, Timestamp)>,
    /// Not before then is a URL signed again.
    pub renewal: Option<Timestamp>,
    /// Nodes without room, how often they had none, and until when to leave them alone.
    full: BTreeMap<String, (u32, Timestamp)>,
    /// The order, as it was last written.
    pub order: Option<Arc<RestoreOrder>>,
    /// The prime PVC, and when it was made.
    pub prime: Option<(Instant, PrimeClaim)>,
    /// The UID of the VolumeAttachment that was last deleted.
    pub detached: Option<String>,
    /// Whether this process has made the PersistentVolume.
    pub made: bool,
    /// What a provisioner was seen to have made for the prime PVC that it names, within the node's reach.
    pub provisioned: Option<Provisioned>,
    /// How the PVC was steered to the node of its source.
    pub steered: Steered,
    looks: u32,
}

/// What is remembered of a PVC that is made from a snapshot or from another PVC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steered {
    /// The node that was chosen for it.
    pub given: Option<Given>,
    /// How often the choice was taken back.
    pub refused: u32,
    /// Not before then is a node chosen again.
    pub due: Option<Timestamp>,
}

/// A node that was chosen for a PVC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The node.
    pub node: String,
    /// The version of the PVC that was changed: whoever sees it still has not seen the change.
    pub upon: Option<String>,
}

impl Steered {
    /// The choice was taken back: not before a pause is there another one. How often so far.
    pub fn taken_back(&mut self, now: Timestamp) -> u32 {
        self.given = None;
        self.refused = self.refused.saturating_add(1);
        self.due = Some(now + STEERING.pause(self.refused));
        self.refused
    }
}

/// What was last written into a VolumeRestore. Later than what a watch shows, never earlier.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The VolumeRestore's UID.
    pub restore: String,
    /// Its status.
    pub status: VolumeRestoreStatus,
    /// When.
    pub at: Instant,
}

impl Memory {
    /// What is remembered of the restore of this PVC.
    pub fn recall(&self, uid: &str) -> Remembered {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Remembers something.
    pub fn update<T>(&self, uid: &str, change: impl FnOnce(&mut Remembered) -> T) -> T {
        change(self.lock().entry(uid.to_owned()).or_default())
    }

    /// Forgets the PVC.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// When the attempt after `attempt` may begin; the pause begins with the first call.
    pub fn retry_at(&mut self, attempt: i64, now: Timestamp) -> Timestamp {
        match self.retry {
            Some((seen, due)) if seen == attempt => due,
            _ => {
                let due = now + RETRY.pause(u32::try_from(attempt).unwrap_or(u32::MAX));
                self.retry = Some((attempt, due));
                due
            }
        }
    }

    /// What comes next is another order, whose attempts are counted anew.
    pub fn forget_attempts(&mut self) {
        self.retry = None;
        self.renewal = None;
    }

    /// A node had no room.
    pub fn full(&mut self, node: &str, now: Timestamp) {
        let (times, until) = self.full.entry(node.to_owned()).or_insert((0, now));
        *times = times.saturating_add(1);
        *until = now + RETRY.pause(*times) + SignedDuration::from_secs(1);
    }

    /// Nodes to leave alone, and until when.
    pub fn full_nodes(&self) -> BTreeMap<String, Timestamp> {
        self.full
            .iter()
            .map(|(node, (_, until))| (node.clone(), *until))
            .collect()
    }

    /// For how long to wait before looking again; longer each time.
    pub fn next_look(&mut self) -> Duration {
        self.looks = self.looks.saturating_add(1);
        LOOK.pause(self.looks)
    }

    /// For how long to wait for the source of a PVC; longer each time.
    pub fn next_source_look(&mut self) -> Duration {
        self.looks = self.looks.saturating_add(1);
        STEERING.pause(self.looks)
    }

    /// A look went well.
    pub fn looked(&mut self) {
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most() {
        for (failures, least) in [(1, 5), (2, 10), (3, 20), (7, 300), (100, 300)] {
            let pause = RETRY.pause(failures);
            let least = Duration::from_secs(least);
            assert!(
                pause >= least && pause <= least + least / 10,
                "{failures}: {pause:?}"
            );
        }
        assert!(LOOK.pause(50) <= Duration::from_secs(66));
    }

    #[test]
    fn a_pause_begins_when_the_failure_is_first_seen() {
        let now = Timestamp::UNIX_EPOCH;
        let mut memory = Remembered::default();
        let due = memory.retry_at(1, now);
        assert_eq!(memory.retry_at(1, now + SignedDuration::from_secs(3)), due);
        assert!(memory.retry_at(2, due) > due);
    }

    #[test]
    fn a_choice_taken_back_again_and_again_is_repeated_once_a_minute() {
        let now = Timestamp::UNIX_EPOCH;
        let mut steered = Steered::default();
        assert_eq!(steered.taken_back(now), 1);
        let first = steered.due.unwrap();
        assert!(first >= now + SignedDuration::from_secs(1));
        for _ in 0..20 {
            steered.taken_back(now);
        }
        let pause = steered.due.unwrap().duration_since(now);
        assert!(pause >= SignedDuration::from_secs(60) && pause <= SignedDuration::from_secs(66));
    }

    #[test]
    fn full_nodes_are_left_alone_for_longer_and_longer() {
        let now = Timestamp::UNIX_EPOCH;
        let mut memory = Remembered::default();
        memory.full("a", now);
        let first = memory.full_nodes()["a"];
        memory.full("a", now);
        assert!(memory.full_nodes()["a"] > first);
    }
}
