//! Before there is an order: whether a restore can begin, and on which node.

use crds::restore_order::{RestoreOrder, VolumeMode};

use super::{ClassSight, Decision, NodeSight, Observed, Stance, Step, Wait, permission};
use crate::controller::agents::Kept;
use crate::controller::claim::Claim;
use crate::controller::class::Class;
use crate::controller::content;
use crate::controller::refusal::Refusal;
use crate::controller::resolution::Pinned;

/// The next step towards an order. What a person must mend is told in this order: what the PVC
/// asks for, whether it may, its class, the archive, the node. The archive is looked at before a pod wants the
/// volume, so that a mistake is seen in seconds.
pub(super) fn begin(observed: &Observed, claim: &Claim) -> Decision {
    if let Some(refusal) = &claim.refusal {
        return Decision::refused(refusal.clone());
    }
    if let Some(decision) = permission::before_reading(observed, claim) {
        return decision;
    }
    let class = match (&claim.class, &observed.class) {
        (None, _) => return Decision::refused(Refusal::NoClass),
        // What has just been made may not be shown by the watch yet.
        (Some(_), ClassSight::NotCached) => return Decision::new(Step::LookAtClass, None),
        (Some(name), ClassSight::Absent) => {
            return Decision::refused(Refusal::ClassNotFound {
                class: name.clone(),
            });
        }
        (Some(_), ClassSight::Known(class)) => class,
    };
    let is_direct = observed.drivers.contains(&class.driver);
    if let Some(refusal) = class.refusal(is_direct) {
        return Decision::refused(refusal);
    }
    let pinned = match &observed.archive {
        None => return Decision::new(Step::Resolve, None),
        Some(Err(refusal)) => return Decision::refused(refusal.clone()),
        Some(Ok(pinned)) => pinned,
    };
    if claim.volume_mode == VolumeMode::Block
        && let Some(field) = pinned.options.about_files()
    {
        let backup = claim.backup_told();
        return Decision::refused(Refusal::AboutFiles { backup, field });
    }
    if claim.volume_mode == VolumeMode::Block && pinned.options.image_file.is_some() {
        let backup = claim.backup_told();
        return Decision::refused(Refusal::FileOnDevice { backup });
    }
    let size = u64::try_from(pinned.archive.size).unwrap_or(0);
    // Of a large archive a small part may be wanted, whose size nobody knows yet.
    if size > claim.required_bytes && !pinned.options.is_partial() {
        return Decision::refused(Refusal::DoesNotFit {
            size,
            required: claim.required_bytes,
        });
    }
    if !is_direct {
        match &observed.wishes {
            None => return Decision::new(Step::LookAtDriver, None),
            Some(wishes) => {
                if let Some(refusal) = wishes.refusal(&class.driver) {
                    return Decision::refused(refusal);
                }
            }
        }
    }
    if class.waits_for_consumer {
        on_selected_node(observed, claim, class)
    } else {
        on_roomiest_node(observed, claim, class, pinned)
    }
}

fn on_selected_node(observed: &Observed, claim: &Claim, class: &Class) -> Decision {
    let Some(node) = &claim.selected_node else {
        return Decision::new(Step::Wait(Wait::OnChange), Stance::WaitingForConsumer);
    };
    let is_direct = observed.drivers.contains(&class.driver);
    let agents = &observed.agents;
    let is_there =
        agents.serves(node, &class.driver) && (!is_direct || agents.makes(node, &class.driver));
    if !is_there {
        let refusal = Refusal::NoAgentOnNode {
            node: node.clone(),
            driver: class.driver.clone(),
        };
        if agents.is_alive(node) {
            return Decision::refused(refusal);
        }
        return match observed.node {
            NodeSight::Unknown => Decision::new(Step::LookAtNode, None),
            NodeSight::Present => Decision::refused(refusal),
            // The scheduler keeps to its choice until it is taken back.
            NodeSight::Down | NodeSight::Absent => {
                Decision::new(Step::ClearNode, Stance::Refused(refusal))
            }
        };
    }
    match observed.full_nodes.get(node) {
        // The scheduler came back to a node that has just said that it has no room.
        Some(until) if observed.now < *until => {
            Decision::new(Step::Wait(Wait::Until(*until)), no_room(claim, class))
        }
        _ => create(observed, node),
    }
}

fn on_roomiest_node(
    observed: &Observed,
    claim: &Claim,
    class: &Class,
    pinned: &Pinned,
) -> Decision {
    let driver = &class.driver;
    if !observed.agents.any_serves(driver) {
        return Decision::refused(Refusal::NoAgent {
            driver: driver.clone(),
        });
    }
    let Some(cordoned) = &observed.cordoned else {
        return Decision::new(Step::LookAtCordoned, None);
    };
    let has_room = |node: &str| {
        observed
            .full_nodes
            .get(node)
            .is_none_or(|until| observed.now >= *until)
    };
    // The pod that will want the volume must be able to go there; one that takes no pods is better than none.
    let takes_pods = |node: &str| has_room(node) && !cordoned.contains(node);
    let node = best(observed, claim, class, pinned, &takes_pods)
        .or_else(|| best(observed, claim, class, pinned, &has_room));
    match node {
        Some(node) => create(observed, node),
        None => Decision::new(Step::Wait(Wait::Growing), no_room(claim, class)),
    }
}

/// Of the nodes that are allowed, the one that has the content already, or else the most room.
fn best<'a>(
    observed: &'a Observed,
    claim: &Claim,
    class: &Class,
    pinned: &Pinned,
    is_open: &dyn Fn(&str) -> bool,
) -> Option<&'a str> {
    let driver = &class.driver;
    // Of the room for what its own provisioner makes, a driver says nothing on the node.
    if observed.drivers.contains(driver) {
        let required = claim.required_bytes;
        let content = content::of(claim, class, pinned);
        let kept = content.as_ref().and_then(|content| {
            let kept = Kept {
                content: &content.key,
                required,
                now: observed.now,
            };
            observed.agents.keeping(driver, kept, is_open)
        });
        kept.or_else(|| observed.agents.roomiest(driver, required, is_open))
    } else {
        observed.agents.any_of(driver, &claim.uid, is_open)
    }
}

fn create(observed: &Observed, node: &str) -> Decision {
    let archive = observed.archive.as_ref().and_then(|it| it.as_ref().ok());
    let is_file = archive.is_some_and(|pinned| pinned.options.image_file.is_some());
    // An agent learned of these files and of sealed Secrets at once, and without would unpack an archive.
    if is_file && observed.agents.sealing_key(node).is_none() {
        return Decision::refused(Refusal::AgentOutdated {
            node: node.to_owned(),
            what: "make a file of the image of a disk",
        });
    }
    Decision::new(
        Step::CreateOrder {
            node: node.to_owned(),
        },
        None,
    )
}

fn no_room(claim: &Claim, class: &Class) -> Stance {
    Stance::Refused(Refusal::NoRoom {
        driver: class.driver.clone(),
        required: claim.required_bytes,
    })
}

/// Whether the scheduler has chosen another node than the order's since. A choice taken back says
/// nothing: the volume goes on where it is until there is another one.
pub(super) fn moved(observed: &Observed, claim: &Claim, order: &RestoreOrder) -> bool {
    let follows_scheduler = observed
        .class
        .known()
        .is_some_and(|class| class.waits_for_consumer);
    follows_scheduler
        && claim
            .selected_node
            .as_ref()
            .is_some_and(|node| *node != order.spec.node_name)
}
