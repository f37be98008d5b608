//! What to do next for one PVC: a pure function of what is known.
//!
//! Where something must be looked up first, the answer is a look: the caller adds what it saw to
//! [`Observed`] and asks again. So every rule about what must be known before what is done stands
//! here, and is tested without an API server.

mod disposal;
mod filling;
mod observed;
mod permission;
mod placement;
mod prime;

#[cfg(test)]
pub(super) mod tests;

use crds::restore_order::{Failure, Goal, RestoreOrder};
use crds::volume_restore::{Basis, Phase};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::claim::Claim;
use super::ending::{Ending, Hindrance};
use super::refusal::{Again, Refusal};

pub use observed::{ClaimSight, ClassSight, NodeSight, Observed, Restore, VolumeSight};

/// How often an agent that is at work is checked for being alive.
const ALIVE_CHECK: SignedDuration = SignedDuration::from_secs(15);

/// For how long a VolumeRestore may be on its way out before that is told.
const DELETION_PATIENCE: SignedDuration = SignedDuration::from_secs(15);

/// The answer: what to do, and what people shall see meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// What people shall see, `None` for what they see already.
    pub stance: Option<Stance>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Look: ask the API server for the PVC.
    LookAtClaim,
    /// Look: ask the API server for the StorageClass.
    LookAtClass,
    /// Look: ask the API server for the PersistentVolume.
    LookAtVolume,
    /// Look: ask the API server for the order's Node.
    LookAtNode,
    /// Look: ask the API server for the nodes that take no pods.
    LookAtCordoned,
    /// Look: ask the API server for the class's CSIDriver.
    LookAtDriver,
    /// Look: ask the API server for the prime PVC, and for what belongs to it.
    LookAtPrime,
    /// Look: ask the API server for the PersistentVolume that was provisioned for it.
    LookAtProvisioned,
    /// Look: ask the API server for the ReferenceGrants of the VolumeBackup's namespace.
    LookAtGrants,
    /// Look: find the archive, pin it and sign a URL.
    Resolve,
    /// Create the VolumeRestore.
    CreateRestore,
    /// Delete the VolumeRestore, which speaks of an earlier PVC of the same name, or of a failure that a
    /// person has mended.
    ReplaceRestore,
    /// Create the order, for this node.
    CreateOrder {
        /// The node.
        node: String,
    },
    /// Put a fresh URL into the order.
    RenewAccess,
    /// Have the agent try again.
    Retry,
    /// Have the agent stop, or go on.
    Pause(bool),
    /// Ask the scheduler for another node.
    ClearNode,
    /// Record in the order that the volume is about to be Kubernetes' own.
    RecordPublishing,
    /// Create the PersistentVolume.
    CreateVolume,
    /// Create the prime PVC.
    CreatePrime,
    /// Have its volume attached to the node.
    Attach,
    /// Have the agent use it.
    Adopt,
    /// Have the agent stop using it, and try again when it may.
    Reprovide,
    /// Have it detached.
    Detach,
    /// Point its PersistentVolume to the user's PVC.
    Rebind,
    /// Delete the prime PVC.
    DropPrime {
        /// Whether what was provisioned for it goes too.
        volume_too: bool,
    },
    /// Have the agent delete the volume.
    Discard,
    /// Take the finalizer off the order and delete it.
    DropOrder,
    /// Nothing until something changes, or until then.
    Wait(Wait),
}

/// How long to do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until a watch shows a change.
    OnChange,
    /// At most until then.
    Until(Timestamp),
    /// For a while that grows each time.
    Growing,
}

/// What people shall see.
#[derive(Clone, Debug, PartialEq)]
pub enum Stance {
    /// It cannot begin yet.
    Refused(Refusal),
    /// Others do not do what must be done.
    Hindered(Hindrance),
    /// The archive is fine; no pod wants the volume yet.
    WaitingForConsumer,
    /// A person wants it not to go on for now.
    Paused,
    /// What an earlier attempt left on a node is being deleted.
    CleaningUp,
    /// The order lies with the agent.
    Waiting,
    /// The agent makes the volume.
    Provisioning,
    /// The agent unpacks.
    Restoring,
    /// An attempt failed and another one will follow by itself.
    Retrying(Failure),
    /// The node has no room and another one is sought.
    Moving(Failure),
    /// The agent does not answer.
    AgentSilent,
    /// The volume is complete and being handed over.
    Publishing,
    /// The PVC is bound to it.
    Completed,
    /// It is over, and a person must do something.
    Failed(Failure),
}

impl Wait {
    fn no_later_than(self, due: Timestamp) -> Self {
        match self {
            Self::OnChange | Self::Growing => Self::Until(due),
            Self::Until(other) => Self::Until(other.min(due)),
        }
    }
}

impl Decision {
    fn new(step: Step, stance: impl Into<Option<Stance>>) -> Self {
        Self {
            step,
            stance: stance.into(),
        }
    }

    /// Nothing to do until something changes.
    fn settled() -> Self {
        Self::new(Step::Wait(Wait::OnChange), None)
    }

    fn refused(refusal: Refusal) -> Self {
        let wait = match refusal.again() {
            Again::OnChange => Wait::OnChange,
            Again::Later => Wait::Growing,
        };
        Self::new(Step::Wait(wait), Stance::Refused(refusal))
    }
}

/// What to do next for one PVC. Deletion is handled before anything is looked up.
pub fn next(observed: &Observed) -> Decision {
    prime::tidied(observed, decide(observed))
}

fn decide(observed: &Observed) -> Decision {
    let claim = match &observed.claim {
        ClaimSight::Cached(claim) | ClaimSight::Live(claim) => claim,
        ClaimSight::NotCached if observed.order.is_none() => return Decision::settled(),
        ClaimSight::NotCached => return Decision::new(Step::LookAtClaim, None),
        ClaimSight::Gone => return disposal::dispose(observed, None),
    };
    if claim.deleting {
        return disposal::dispose(observed, None);
    }
    match &claim.volume {
        Some(volume) if *volume == volume_for(observed, claim) => bound(observed, claim),
        Some(volume) => bound_elsewhere(observed, claim, volume),
        None => unbound(observed, claim),
    }
}

/// The VolumeRestore must be there and speak of this PVC before anything is told or done.
fn without_restore(observed: &Observed, claim: &Claim) -> Option<Decision> {
    let step = match &observed.restore {
        None => Step::CreateRestore,
        Some(restore) if restore.deleting.is_some() => {
            return Some(without_deleted(observed.now, restore.deleting));
        }
        Some(restore) if restore.claim_uid != claim.uid => Step::ReplaceRestore,
        Some(_) => return None,
    };
    Some(Decision::new(step, None))
}

/// A VolumeRestore that is on its way out is soon gone, unless somebody's finalizer keeps it.
fn without_deleted(now: Timestamp, since: Option<Timestamp>) -> Decision {
    match since.map(|since| since + DELETION_PATIENCE) {
        Some(due) if now < due => Decision::new(Step::Wait(Wait::Until(due)), None),
        Some(_) | None => Decision::new(
            Step::Wait(Wait::OnChange),
            Stance::Hindered(Hindrance::RestoreKept),
        ),
    }
}

/// The PersistentVolume that the PVC shall get.
fn volume_for(observed: &Observed, claim: &Claim) -> String {
    let order = observed.order.as_ref();
    match order.and_then(|order| order.spec.provisioned.as_ref()) {
        Some(given) => given.persistent_volume_name.clone(),
        None => claim.volume_name(),
    }
}

/// Kubernetes gave the PVC the volume that is meant for it.
fn bound(observed: &Observed, claim: &Claim) -> Decision {
    let Some(order) = &observed.order else {
        return Decision::settled();
    };
    if order.spec.goal != Goal::Published {
        // Not by us: the volume of this order was never shown to anybody.
        return bound_elsewhere(observed, claim, &volume_for(observed, claim));
    }
    if !claim.bound {
        return Decision::new(Step::Wait(Wait::OnChange), Stance::Publishing);
    }
    // The VolumeRestore may have been deleted meanwhile: the result is told once more.
    without_restore(observed, claim)
        .unwrap_or_else(|| Decision::new(Step::DropOrder, Stance::Completed))
}

/// Kubernetes gave the PVC some other volume: binding ignores data sources.
fn bound_elsewhere(observed: &Observed, claim: &Claim, volume: &str) -> Decision {
    let told = observed.restore.as_ref().map(|it| it.status.phase);
    if observed.order.is_none() && !matches!(told, Some(Phase::Completed | Phase::Failed)) {
        // What a driver's own provisioner has named may be ours all the same, and long since told.
        match observed.volume {
            VolumeSight::Unknown | VolumeSight::Made => {
                return Decision::new(Step::LookAtVolume, None);
            }
            VolumeSight::Ours => return Decision::settled(),
            VolumeSight::Foreign | VolumeSight::Absent => {}
        }
    }
    if let Some(decision) = without_restore(observed, claim) {
        return decision;
    }
    let done = observed
        .restore
        .as_ref()
        .is_some_and(|restore| matches!(restore.status.phase, Phase::Completed | Phase::Failed));
    let ending = Ending::BoundElsewhere {
        volume: volume.to_owned(),
        backup: claim.backup_told(),
    };
    let stance = Stance::Failed(ending.failure());
    disposal::dispose(observed, (!done).then_some(stance))
}

fn unbound(observed: &Observed, claim: &Claim) -> Decision {
    if let Some(decision) = without_restore(observed, claim) {
        return decision;
    }
    let failed = observed
        .restore
        .as_ref()
        .is_some_and(|restore| restore.status.phase == Phase::Failed);
    match &observed.order {
        None if failed && is_asked_again(observed, claim) => {
            Decision::new(Step::ReplaceRestore, None)
        }
        // The failure is of an order before this one: its VolumeRestore was replaced, which the watch
        // does not show yet.
        Some(order) if failed && is_before(observed, order) => Decision::settled(),
        _ if failed => disposal::dispose(observed, None),
        None if is_paused(observed) => Decision::new(Step::Wait(Wait::OnChange), Stance::Paused),
        None => placement::begin(observed, claim),
        Some(order) => match order.spec.goal {
            Goal::Filled => filling::fill(observed, claim, order),
            Goal::Published => publishing(observed, order),
            Goal::Deleted => disposal::dispose(observed, Some(Stance::CleaningUp)),
        },
    }
}

fn is_paused(observed: &Observed) -> bool {
    observed.restore.as_ref().is_some_and(|it| it.paused)
}

/// Whether a person has changed, since the restore failed, what it rested on.
fn is_asked_again(observed: &Observed, claim: &Claim) -> bool {
    let Some(before) = failed_basis(observed) else {
        // It was told by a version that did not write down what it rested on.
        return claim.retry.is_some();
    };
    let now = observed.basis.as_ref().unwrap_or(before);
    let now = Basis {
        retry: claim.retry.clone(),
        ..now.clone()
    };
    now.is_newer_than(before)
}

/// Whether the restore that failed rested on something older than `order` does.
fn is_before(observed: &Observed, order: &RestoreOrder) -> bool {
    match (failed_basis(observed), &order.spec.basis) {
        (Some(before), Some(now)) => now.is_newer_than(before),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

fn failed_basis(observed: &Observed) -> Option<&Basis> {
    observed
        .restore
        .as_ref()
        .and_then(|it| it.status.basis.as_ref())
}

/// The volume is complete, and nothing may delete it any more.
fn publishing(observed: &Observed, order: &RestoreOrder) -> Decision {
    let stance = Stance::Publishing;
    let hand_over = if order.spec.prime.is_some() {
        let is_handed_over = matches!(observed.volume, VolumeSight::Made | VolumeSight::Ours);
        if !is_handed_over && let Some(decision) = prime::detach(observed, order) {
            return decision;
        }
        Step::Rebind
    } else {
        Step::CreateVolume
    };
    match (observed.volume, &observed.claim) {
        (VolumeSight::Made | VolumeSight::Ours, _) => {
            Decision::new(Step::Wait(Wait::OnChange), stance)
        }
        (VolumeSight::Foreign, _) => {
            let ending = match &order.spec.provisioned {
                Some(given) => Ending::VolumeLost {
                    volume: given.persistent_volume_name.clone(),
                },
                None => Ending::VolumeNameTaken,
            };
            disposal::dispose(observed, Some(Stance::Failed(ending.failure())))
        }
        (VolumeSight::Unknown | VolumeSight::Absent, ClaimSight::Live(_)) => {
            Decision::new(hand_over, stance)
        }
        (VolumeSight::Unknown | VolumeSight::Absent, _) => Decision::new(Step::LookAtClaim, stance),
    }
}

/// Whether the controller's finalizer is on the order.
pub fn has_finalizer(order: &RestoreOrder) -> bool {
    order
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == super::order::CLEAN_UP)
}
