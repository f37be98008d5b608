//! What holds in every situation: all combinations of what may be observed are tried.

use super::*;

const GOALS: [Goal; 3] = [Goal::Filled, Goal::Published, Goal::Deleted];
const STATES: [State; 6] = [
    State::Waiting,
    State::Provisioning,
    State::Restoring,
    State::Filled,
    State::Failed,
    State::Deleted,
];
const VOLUMES: [VolumeSight; 5] = [
    VolumeSight::Unknown,
    VolumeSight::Made,
    VolumeSight::Ours,
    VolumeSight::Foreign,
    VolumeSight::Absent,
];
const NODES: [NodeSight; 4] = [
    NodeSight::Unknown,
    NodeSight::Present,
    NodeSight::Down,
    NodeSight::Absent,
];
const PHASES: [Phase; 3] = [Phase::Pending, Phase::Completed, Phase::Failed];

fn claims() -> Vec<ClaimSight> {
    let mut sights = vec![ClaimSight::NotCached, ClaimSight::Gone];
    for deleting in [false, true] {
        for volume in [None, Some("pvc-u1"), Some("other")] {
            for bound in [false, true] {
                for node in [None, Some("n1"), Some("n2")] {
                    let seen = claim(|claim| {
                        claim.deleting = deleting;
                        claim.volume = volume.map(ToOwned::to_owned);
                        claim.bound = bound;
                        claim.selected_node = node.map(ToOwned::to_owned);
                    });
                    sights.push(ClaimSight::Cached(seen.clone()));
                    sights.push(ClaimSight::Live(seen));
                }
            }
        }
    }
    sights
}

/// Every combination of what may be observed of an order.
fn each(check: impl Fn(&Observed)) {
    for claim in claims() {
        for goal in GOALS {
            for state in STATES {
                for cure in [Cure::Person, Cure::Time, Cure::OtherNode] {
                    let status = RestoreOrderStatus {
                        state,
                        ..failure(cure)
                    };
                    let mut observed = observed(with_order(goal, status));
                    observed.claim = claim.clone();
                    for volume in VOLUMES {
                        for node in NODES {
                            for phase in PHASES {
                                for alive in [true, false] {
                                    let mut observed = observed.clone();
                                    observed.volume = volume;
                                    observed.node = node;
                                    if let Some(restore) = &mut observed.restore {
                                        restore.status.phase = phase;
                                    }
                                    if !alive {
                                        observed.agents = Agents::default();
                                    }
                                    check(&observed);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn goal(observed: &Observed) -> Goal {
    observed.order.as_ref().unwrap().spec.goal
}

#[test]
fn nothing_published_is_deleted_without_a_live_look() {
    each(|observed| {
        if goal(observed) == Goal::Published && step(observed) == Step::Discard {
            assert!(
                matches!(observed.volume, VolumeSight::Absent | VolumeSight::Foreign),
                "{observed:?}"
            );
        }
    });
}

#[test]
fn a_volume_is_shown_only_when_recorded_and_to_a_claim_just_seen() {
    each(|observed| {
        if step(observed) == Step::CreateVolume {
            assert_eq!(goal(observed), Goal::Published);
            let ClaimSight::Live(claim) = &observed.claim else {
                panic!("{observed:?}");
            };
            assert!(claim.volume.is_none() && !claim.deleting);
        }
    });
}

#[test]
fn only_a_filled_volume_is_published() {
    each(|observed| {
        if step(observed) == Step::RecordPublishing {
            let order = observed.order.as_ref().unwrap();
            assert_eq!(order.spec.goal, Goal::Filled);
            assert_eq!(order.status.as_ref().unwrap().state, State::Filled);
        }
    });
}

#[test]
fn an_order_is_dropped_only_when_nothing_or_kubernetes_is_left() {
    each(|observed| {
        if step(observed) == Step::DropOrder {
            let order = observed.order.as_ref().unwrap();
            let state = order.status.as_ref().unwrap().state;
            let bound = matches!(&observed.claim, ClaimSight::Cached(claim) | ClaimSight::Live(claim)
                if claim.bound && claim.volume.as_deref() == Some("pvc-u1"));
            let fine = match order.spec.goal {
                Goal::Filled => false,
                Goal::Published => observed.volume == VolumeSight::Ours || bound,
                Goal::Deleted => {
                    let is_gone = [NodeSight::Absent, NodeSight::Down].contains(&observed.node);
                    state == State::Deleted || is_gone
                }
            };
            assert!(fine, "{observed:?}");
        }
    });
}

#[test]
fn a_goal_never_goes_back() {
    each(|observed| {
        let backwards = match goal(observed) {
            Goal::Filled => false,
            Goal::Published => step(observed) == Step::Retry,
            Goal::Deleted => matches!(
                step(observed),
                Step::Discard | Step::RecordPublishing | Step::Retry | Step::RenewAccess
            ),
        };
        assert!(!backwards, "{observed:?}");
    });
}

#[test]
fn what_cannot_be_seen_in_the_cache_alone_is_never_the_end_of_a_volume() {
    each(|observed| {
        if observed.claim == ClaimSight::NotCached {
            assert_eq!(step(observed), Step::LookAtClaim);
        }
    });
}
