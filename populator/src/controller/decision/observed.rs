//! What a decision rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::RestoreOrder;
use crds::volume_restore::{Basis, VolumeRestoreStatus};
use jiff::Timestamp;

use crate::controller::agents::Agents;
use crate::controller::claim::Claim;
use crate::controller::class::Class;
use crate::controller::grants::GrantSight;
use crate::controller::prime::{DriverWishes, Sight};
use crate::controller::refusal::Refusal;
use crate::controller::resolution::Pinned;

/// All that a decision rests on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// The PVC.
    pub claim: ClaimSight,
    /// Its VolumeRestore.
    pub restore: Option<Restore>,
    /// Its order.
    pub order: Option<Arc<RestoreOrder>>,
    /// Its StorageClass.
    pub class: ClassSight,
    /// Whether its VolumeBackup may be read.
    pub grant: GrantSight,
    /// What a restore would rest on now, where the VolumeBackup is there.
    pub basis: Option<Basis>,
    /// The archive, once it was looked at.
    pub archive: Option<Result<Pinned, Refusal>>,
    /// How the class's driver wants its volumes used, once that was looked at.
    pub wishes: Option<DriverWishes>,
    /// What was made for it, where the driver's own provisioner makes the volume.
    pub prime: Sight,
    /// The PersistentVolume that the PVC gets.
    pub volume: VolumeSight,
    /// The Node object of the order's node.
    pub node: NodeSight,
    /// Nodes that take no pods, once that was looked at.
    pub cordoned: Option<Arc<BTreeSet<String>>>,
    /// The agents.
    pub agents: Agents,
    /// When the failed attempt may be repeated.
    pub retry_at: Option<Timestamp>,
    /// Not before then is a URL signed again, where that was refused.
    pub renewal_at: Option<Timestamp>,
    /// Nodes that had no room, and until when they are left alone.
    pub full_nodes: BTreeMap<String, Timestamp>,
    /// The drivers that the administrator named.
    pub drivers: Arc<[String]>,
}

/// What is known of the PVC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimSight {
    /// As the watch last showed it.
    Cached(Claim),
    /// As the API server has just shown it.
    Live(Claim),
    /// The watch shows none of this UID.
    NotCached,
    /// The API server has just said that there is none of this UID.
    Gone,
}

/// What is known of the StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassSight {
    /// As the watch last showed it, or the API server has just.
    Known(Class),
    /// The watch shows none of this name.
    NotCached,
    /// The API server has just said that there is none.
    Absent,
}

impl ClassSight {
    /// The class, where it is known.
    pub fn known(&self) -> Option<&Class> {
        match self {
            Self::Known(class) => Some(class),
            Self::NotCached | Self::Absent => None,
        }
    }
}

/// What is known of the PersistentVolume that the PVC gets or, without an order, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeSight {
    /// Nobody has looked.
    Unknown,
    /// This process has made it earlier, or pointed it to the PVC.
    Made,
    /// The API server has just shown it, with the restored volume in it and for the PVC.
    Ours,
    /// The API server has just shown one of that name with another volume in it.
    Foreign,
    /// The API server has just said that there is none, or none for the PVC yet.
    Absent,
}

/// What is known of the Node object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSight {
    /// Nobody has looked.
    Unknown,
    /// The API server has just shown it.
    Present,
    /// The API server has just shown that nothing runs there any more ([`crate::controller::node::is_down`]).
    Down,
    /// The API server has just said that there is none.
    Absent,
}

/// A VolumeRestore.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// Its UID.
    pub uid: String,
    /// Its generation.
    pub generation: Option<i64>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// The UID of the PVC that it speaks of.
    pub claim_uid: String,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
    /// Whether a person wants it not to go on for now.
    pub paused: bool,
    /// What this program last wrote there.
    pub status: VolumeRestoreStatus,
}
