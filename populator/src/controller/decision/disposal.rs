//! Getting rid of an order and, where Kubernetes does not own it yet, of its volume.

use crds::restore_order::{Goal, RestoreOrder, State};

use super::{ALIVE_CHECK, Decision, NodeSight, Observed, Stance, Step, VolumeSight, Wait};
use crate::controller::ending::Hindrance;

/// The next step towards nothing left. A volume whose publishing was recorded is deleted only after
/// a live look has shown that no PersistentVolume holds it.
pub(super) fn dispose(observed: &Observed, stance: Option<Stance>) -> Decision {
    let Some(order) = &observed.order else {
        return Decision::new(Step::Wait(Wait::OnChange), stance);
    };
    let step = match order.spec.goal {
        Goal::Filled => Step::Discard,
        Goal::Published => match observed.volume {
            VolumeSight::Unknown | VolumeSight::Made => Step::LookAtVolume,
            VolumeSight::Ours => Step::DropOrder,
            VolumeSight::Absent | VolumeSight::Foreign => Step::Discard,
        },
        Goal::Deleted if is_gone(observed) => Step::DropOrder,
        Goal::Deleted if observed.agents.is_alive(&order.spec.node_name) => {
            let wait = Step::Wait(Wait::Until(observed.now + ALIVE_CHECK));
            return Decision::new(wait, instead(stance, stuck(order)));
        }
        Goal::Deleted => match observed.node {
            // What is told depends on what is seen there.
            NodeSight::Unknown => return Decision::new(Step::LookAtNode, None),
            // With the node, what lay on it is out of reach; its agent sweeps should it come back.
            NodeSight::Absent | NodeSight::Down => Step::DropOrder,
            NodeSight::Present => {
                let wait = Step::Wait(Wait::Until(observed.now + ALIVE_CHECK));
                return Decision::new(wait, instead(stance, Some(Stance::AgentSilent)));
            }
        },
    };
    Decision::new(step, stance)
}

/// What keeps the cleaning up from its end, where that is what people would see.
pub(super) fn instead(stance: Option<Stance>, hindrance: Option<Stance>) -> Option<Stance> {
    match stance {
        Some(Stance::CleaningUp) => hindrance.or(stance),
        stance => stance,
    }
}

/// What the agent says of the volume that does not go.
fn stuck(order: &RestoreOrder) -> Option<Stance> {
    let status = order.status.as_ref()?;
    let failure = status.failure.as_ref()?;
    // What is older was said of filling the volume.
    let is_of_now = status.observed_generation == order.metadata.generation;
    (status.state == State::Failed && is_of_now).then(|| {
        Stance::Hindered(Hindrance::VolumeKept {
            node: order.spec.node_name.clone(),
            said: failure.message.clone(),
        })
    })
}

fn is_gone(observed: &Observed) -> bool {
    observed
        .order
        .as_ref()
        .and_then(|order| order.status.as_ref())
        .is_some_and(|status| status.state == State::Deleted)
}
