//! The prime way: what there is to do for the prime PVC and its volume's attachment, besides what both ways
//! have in common.

use crds::restore_order::{Failure, Goal, Prime, Provisioned, RestoreOrder, State};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::{ALIVE_CHECK, Decision, Observed, Stance, Step, Wait, disposal, filling};
use crate::controller::claim::Claim;
use crate::controller::ending::{Ending, Hindrance, Sidecar};

/// A provisioner that has nothing to say of a prime PVC for so long is asked about.
const ASKED_ABOUT: SignedDuration = SignedDuration::from_secs(10);

/// A sidecar that has not answered for so long may not be there at all.
const SILENCE: SignedDuration = SignedDuration::from_mins(1);

/// The next step towards a volume that the agent can use, in the prime way; none while it has one, or has
/// filled it.
pub(super) fn provided(
    observed: &Observed,
    claim: &Claim,
    order: &RestoreOrder,
) -> Option<Decision> {
    let wishes = order.spec.prime?;
    let Some(given) = &order.spec.provisioned else {
        return Some(provision(observed, claim, order, wishes));
    };
    let status = order.status.clone().unwrap_or_default();
    if status.state == State::Filled {
        let filled = status.volume.map(|made| made.handle);
        // An agent of another time, or of another version, speaks of another volume.
        let is_it = filled.as_ref() == Some(&given.volume.handle);
        return (!is_it).then(|| Decision::new(Step::Discard, Stance::CleaningUp));
    }
    taken_away(observed, given).or_else(|| detached(observed, given))
}

fn provision(observed: &Observed, claim: &Claim, order: &RestoreOrder, wishes: Prime) -> Decision {
    if let Some(decision) = filling::silent(observed, claim, order) {
        return decision;
    }
    let sight = &observed.prime;
    let Some(prime) = &sight.claim else {
        return Decision::new(Step::CreatePrime, Stance::Provisioning);
    };
    if prime.deleting {
        return Decision::new(Step::Wait(Wait::OnChange), Stance::CleaningUp);
    }
    // It belongs to an order that was removed by force, and goes with that; or nothing is left of it.
    if prime.order != order.uid().unwrap_or_default() || prime.lost {
        return Decision::new(Step::DropPrime { volume_too: true }, Stance::CleaningUp);
    }
    if let Some(volume) = &prime.volume {
        return match &sight.provisioned {
            None => Decision::new(Step::LookAtProvisioned, None),
            Some(Err(unfit)) => filling::over(&Ending::Unfillable {
                volume: volume.clone(),
                unfit: unfit.clone(),
            }),
            Some(Ok(_)) if sight.elsewhere => {
                filling::leave_node(observed, claim, order, Stance::Moving(no_room(order)))
            }
            Some(Ok(given)) if wishes.attach_required => attach(observed, order, given),
            // It has been told already; why it cannot be done, is told when it is tried.
            Some(Ok(_)) => Decision::new(Step::Adopt, None),
        };
    }
    let driver = || order.spec.volume.driver.clone();
    if prime.selected_node.is_none() {
        // The provisioner has found no room on the node, and left the choice to others.
        return filling::leave_node(observed, claim, order, Stance::Moving(no_room(order)));
    }
    let due = prime
        .created
        .map_or(observed.now, |made| made + ASKED_ABOUT);
    if observed.now < due {
        return Decision::new(Step::Wait(Wait::Until(due)), Stance::Provisioning);
    }
    if !sight.live {
        return Decision::new(Step::LookAtPrime, None);
    }
    let hindrance = match &sight.complaint {
        Some(said) => Some(Hindrance::Complaint {
            sidecar: Sidecar::Provisioner,
            driver: driver(),
            said: said.clone(),
        }),
        None => silence(Sidecar::Provisioner, observed, order, prime.created),
    };
    patiently(observed, hindrance)
}

fn no_room(order: &RestoreOrder) -> Failure {
    let hindrance = Hindrance::NodeFull {
        driver: order.spec.volume.driver.clone(),
        node: order.spec.node_name.clone(),
    };
    hindrance.failure()
}

fn attach(observed: &Observed, order: &RestoreOrder, given: &Provisioned) -> Decision {
    let state = order.status.as_ref().map(|status| status.state);
    match &observed.prime.attachment {
        // What was attached before must be unmounted first (CSI, "Volume Lifecycle").
        None if matches!(
            state,
            Some(State::Provisioning | State::Restoring | State::Failed)
        ) =>
        {
            patiently(observed, None)
        }
        None => Decision::new(Step::Attach, Stance::Provisioning),
        Some(other) if other.volume != given.persistent_volume_name && !other.deleting => {
            Decision::new(Step::Detach, Stance::Provisioning)
        }
        Some(attachment) if attachment.attached && !attachment.deleting => {
            Decision::new(Step::Adopt, None)
        }
        Some(attachment) => {
            let hindrance = attacher(order, attachment.error.as_ref())
                .or_else(|| silence(Sidecar::Attacher, observed, order, attachment.since));
            patiently(observed, hindrance)
        }
    }
}

/// Whatever is waited for, the node may go meanwhile.
fn patiently(observed: &Observed, hindrance: Option<Hindrance>) -> Decision {
    let stance = hindrance.map_or(Stance::Provisioning, Stance::Hindered);
    Decision::new(Step::Wait(Wait::Until(observed.now + ALIVE_CHECK)), stance)
}

fn attacher(order: &RestoreOrder, error: Option<&String>) -> Option<Hindrance> {
    Some(Hindrance::Complaint {
        sidecar: Sidecar::Attacher,
        driver: order.spec.volume.driver.clone(),
        said: error?.clone(),
    })
}

fn silence(
    sidecar: Sidecar,
    observed: &Observed,
    order: &RestoreOrder,
    since: Option<Timestamp>,
) -> Option<Hindrance> {
    (observed.now.duration_since(since?) >= SILENCE).then(|| Hindrance::Silent {
        sidecar,
        driver: order.spec.volume.driver.clone(),
        seconds: SILENCE.as_secs(),
    })
}

/// Without its prime PVC, the volume is on its way out: all begins anew.
fn taken_away(observed: &Observed, given: &Provisioned) -> Option<Decision> {
    let sight = &observed.prime;
    match &sight.claim {
        Some(prime) if prime.uid == given.claim_uid && !prime.deleting && !prime.lost => None,
        None if !sight.live => Some(Decision::new(Step::LookAtPrime, None)),
        Some(_) | None => Some(Decision::new(Step::Discard, Stance::CleaningUp)),
    }
}

/// Somebody else has detached the volume while it was to be filled, as kube-controller-manager does with what
/// no pod uses, when it starts. It is attached again, and gone on with.
fn detached(observed: &Observed, given: &Provisioned) -> Option<Decision> {
    let uid = given.attachment_uid.as_ref()?;
    let sight = &observed.prime;
    let step = match &sight.attachment {
        Some(attachment) if attachment.uid == *uid && !attachment.deleting => return None,
        Some(_) => Step::Reprovide,
        None if sight.live => Step::Reprovide,
        None => return Some(Decision::new(Step::LookAtPrime, None)),
    };
    let stance = Stance::Retrying(Hindrance::Detached.failure());
    Some(Decision::new(step, stance))
}

/// A complete volume is handed over once it is attached nowhere.
pub(super) fn detach(observed: &Observed, order: &RestoreOrder) -> Option<Decision> {
    let was_attached = order.spec.provisioned.as_ref()?.attachment_uid.is_some();
    if !was_attached {
        return None;
    }
    let sight = &observed.prime;
    let Some(attachment) = &sight.attachment else {
        return (!sight.live).then(|| Decision::new(Step::LookAtPrime, Stance::Publishing));
    };
    if !attachment.deleting {
        return Some(Decision::new(Step::Detach, Stance::Publishing));
    }
    let hindrance = attacher(order, attachment.error.as_ref())
        .or_else(|| silence(Sidecar::Attacher, observed, order, attachment.since));
    let stance = hindrance.map_or(Stance::Publishing, Stance::Hindered);
    let wait = Wait::Until(observed.now + ALIVE_CHECK);
    Some(Decision::new(Step::Wait(wait), stance))
}

/// An order goes when nothing is left that was made for it. What is attached once the volume is handed over
/// is the user's.
pub(super) fn tidied(observed: &Observed, decision: Decision) -> Decision {
    let order = observed.order.as_ref();
    let order = match (order, &decision.step) {
        (Some(order), Step::DropOrder) if order.spec.prime.is_some() => order,
        _ => return decision,
    };
    let sight = &observed.prime;
    let volume_too = order.spec.goal == Goal::Deleted;
    // A watch may show what the next order has made before it shows that this one is gone.
    let uid = order.uid().unwrap_or_default();
    let attachment = sight.attachment.as_ref().filter(|it| it.order == uid);
    let claim = sight.claim.as_ref().filter(|it| it.order == uid);
    let step = match (attachment, claim) {
        (Some(attachment), _) if volume_too && !attachment.deleting => Step::Detach,
        (Some(attachment), _) if volume_too => {
            let hindrance = attacher(order, attachment.error.as_ref())
                .or_else(|| silence(Sidecar::Attacher, observed, order, attachment.since));
            let stance = disposal::instead(decision.stance, hindrance.map(Stance::Hindered));
            let wait = Wait::Until(observed.now + ALIVE_CHECK);
            return Decision::new(Step::Wait(wait), stance);
        }
        (_, Some(prime)) if prime.deleting => Step::Wait(Wait::OnChange),
        (_, Some(_)) => Step::DropPrime { volume_too },
        (_, None) if !sight.live => Step::LookAtPrime,
        (_, None) => Step::DropOrder,
    };
    Decision { step, ..decision }
}
