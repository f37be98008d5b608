//! Getting rid of an order and, where Kubernetes does not own it yet, of its volume.

use crds::restore_order::{Goal, State};

use super::{ALIVE_CHECK, Decision, NodeSight, Observed, Stance, Step, VolumeSight, Wait};

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
            Step::Wait(Wait::Until(observed.now + ALIVE_CHECK))
        }
        Goal::Deleted => match observed.node {
            NodeSight::Unknown => Step::LookAtNode,
            // With the node, what lay on it is out of reach; its agent sweeps should it come back.
            NodeSight::Absent => Step::DropOrder,
            NodeSight::Present => {
                return Decision::new(
                    Step::Wait(Wait::Until(observed.now + ALIVE_CHECK)),
                    match stance {
                        Some(Stance::CleaningUp) => Some(Stance::AgentSilent),
                        stance => stance,
                    },
                );
            }
        },
    };
    Decision::new(step, stance)
}

fn is_gone(observed: &Observed) -> bool {
    observed
        .order
        .as_ref()
        .and_then(|order| order.status.as_ref())
        .is_some_and(|status| status.state == State::Deleted)
}
