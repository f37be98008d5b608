mod beginning;
mod failing;
mod invariants;
mod permission;
mod prime;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::filling::budget;
use super::*;
use crate::controller::agents::Agents;
use crate::controller::agents::tests::{NOW, agents};
use crate::controller::claim::tests::example;
use crate::controller::class::Class;
use crate::controller::grants::GrantSight;
use crate::controller::prime::{DriverWishes, Sight};
use crate::controller::resolution::Pinned;
use crate::store::SignedUrl;
use crds::restore_order::{Cure, MadeVolume, RestoreOrderStatus, State};
use crds::volume_restore::VolumeRestoreStatus;
use serde_json::json;

pub(crate) fn order(change: impl FnOnce(&mut RestoreOrder)) -> RestoreOrder {
    let mut order: RestoreOrder = serde_json::from_value(json!({
        "apiVersion": "backup.example.com/v1", "kind": "RestoreOrder",
        "metadata": {"name": "pvc-u1", "namespace": "populator"},
        "spec": {
            "goal": "Filled", "attempt": 1, "nodeName": "n1",
            "claim": {"namespace": "default", "name": "restored-database", "uid": "u1"},
            "volume": {
                "driver": "d", "name": "pvc-u1", "requiredBytes": 1000,
                "accessModes": ["ReadWriteOnce"],
            },
            "archive": {"url": "s3://b/k", "etag": "\"e\"", "size": 10, "humanSize": "10 B"},
            "access": {
                "url": "http://s/b/k?sig",
                "signed": "2026-01-01T00:00:00Z", "expires": "2026-01-01T01:00:00Z",
            },
        },
    }))
    .unwrap();
    change(&mut order);
    order
}

pub(crate) fn pinned() -> Pinned {
    Pinned {
        archive: order(|_| ()).spec.archive,
        options: crds::RestoreOptions::default(),
        cache: None,
        basis: Basis::default(),
        point_in_time: crate::controller::resolution::PointInTime::Unknown,
        store: "store".to_owned(),
        signed: SignedUrl {
            ca_bundle: None,
            bytes_per_second: None,
            url: "http://s/b/k?sig".to_owned(),
            signed: "2026-01-01T00:00:00Z".parse().unwrap(),
            expires: "2026-01-01T01:00:00Z".parse().unwrap(),
        },
    }
}

pub(crate) fn claim(change: impl FnOnce(&mut Claim)) -> Claim {
    let mut claim = Claim::read(&serde_json::from_value(example()).unwrap()).unwrap();
    claim.selected_node = Some("n1".to_owned());
    claim.required_bytes = 100;
    change(&mut claim);
    claim
}

pub(crate) fn class() -> Class {
    Class {
        name: "fast-csi-storage".to_owned(),
        driver: "d".to_owned(),
        waits_for_consumer: true,
        allowed_topologies: false,
        reclaim_policy: "Delete".to_owned(),
        mount_options: Vec::new(),
        fs_type: String::new(),
        parameters: BTreeMap::new(),
        secrets: BTreeMap::new(),
    }
}

/// A PVC that is ready for an order on node n1.
pub(crate) fn observed(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = Observed {
        now: NOW.parse().unwrap(),
        claim: ClaimSight::Cached(claim(|_| ())),
        restore: Some(Restore {
            uid: "r1".to_owned(),
            generation: Some(1),
            created: None,
            claim_uid: "u1".to_owned(),
            deleting: None,
            paused: false,
            status: VolumeRestoreStatus::default(),
        }),
        order: None,
        class: ClassSight::Known(class()),
        grant: GrantSight::Own,
        basis: Some(Basis::default()),
        archive: Some(Ok(pinned())),
        wishes: None,
        prime: Sight::default(),
        volume: VolumeSight::Unknown,
        node: NodeSight::Unknown,
        cordoned: Some(Arc::default()),
        agents: agents(&[
            ("n1", "2026-01-01T00:00:50.000000Z", 500),
            ("n2", "2026-01-01T00:00:50.000000Z", 400),
        ]),
        retry_at: None,
        renewal_at: None,
        full_nodes: BTreeMap::new(),
        drivers: vec!["d".to_owned()].into(),
    };
    change(&mut observed);
    observed
}

fn with_order(goal: Goal, status: RestoreOrderStatus) -> impl FnOnce(&mut Observed) {
    move |observed| {
        observed.order = Some(Arc::new(order(|order| {
            order.spec.goal = goal;
            order.status = Some(status);
        })));
    }
}

fn status(state: State) -> RestoreOrderStatus {
    RestoreOrderStatus {
        state,
        attempt: 1,
        volume: Some(MadeVolume {
            handle: "h".to_owned(),
            capacity_bytes: 1000,
            ..MadeVolume::default()
        }),
        ..RestoreOrderStatus::default()
    }
}

fn failure(cure: Cure) -> RestoreOrderStatus {
    RestoreOrderStatus {
        failure: Some(Failure {
            reason: "Why".to_owned(),
            message: "it failed; do something".to_owned(),
            cure,
        }),
        ..status(State::Failed)
    }
}

fn set_claim(change: impl FnOnce(&mut Claim)) -> impl FnOnce(&mut Observed) {
    |observed| observed.claim = ClaimSight::Cached(claim(change))
}

fn step(observed: &Observed) -> Step {
    next(observed).step
}

fn refusal(observed: &Observed) -> &'static str {
    match next(observed).stance {
        Some(Stance::Refused(refusal)) => refusal.reason(),
        other => panic!("{other:?} is no refusal"),
    }
}

mod working {
    use super::*;

    #[test]
    fn the_agents_state_is_shown() {
        for (state, stance) in [
            (State::Waiting, Stance::Waiting),
            (State::Provisioning, Stance::Provisioning),
            (State::Restoring, Stance::Restoring),
        ] {
            let decision = next(&observed(with_order(Goal::Filled, status(state))));
            assert_eq!(decision.stance, Some(stance));
            assert!(matches!(decision.step, Step::Wait(Wait::Until(_))));
        }
    }

    #[test]
    fn urls_are_renewed_at_half_of_their_life() {
        let at = |time: &str| {
            observed(|o| {
                with_order(Goal::Filled, status(State::Restoring))(o);
                o.agents = agents(&[("n1", time, 1)]);
                o.now = time.parse().unwrap();
                // The lease is as fresh as the clock of this test allows.
                if o.now > NOW.parse().unwrap() {
                    o.agents = agents(&[("n1", "2026-01-01T00:00:59Z", 1)]);
                }
            })
        };
        assert!(matches!(step(&at("2026-01-01T00:29:59Z")), Step::Wait(_)));
        assert_eq!(step(&at("2026-01-01T00:30:00Z")), Step::RenewAccess);
    }

    #[test]
    fn a_silent_agent_is_told_and_a_missing_node_given_up() {
        let silent = |node| {
            observed(|o| {
                with_order(Goal::Filled, status(State::Restoring))(o);
                o.agents = Agents::default();
                o.node = node;
            })
        };
        assert_eq!(step(&silent(NodeSight::Unknown)), Step::LookAtNode);
        let present = next(&silent(NodeSight::Present));
        assert_eq!(present.stance, Some(Stance::AgentSilent));
        assert!(matches!(present.step, Step::Wait(_)));
        assert_eq!(step(&silent(NodeSight::Absent)), Step::ClearNode);
    }

    #[test]
    fn the_scheduler_is_followed_to_another_node() {
        let moved = observed(|o| {
            with_order(Goal::Filled, status(State::Restoring))(o);
            set_claim(|claim| claim.selected_node = Some("n2".to_owned()))(o);
        });
        assert_eq!(step(&moved), Step::Discard);
        let undecided = observed(|o| {
            with_order(Goal::Filled, status(State::Restoring))(o);
            set_claim(|claim| claim.selected_node = None)(o);
        });
        assert!(matches!(step(&undecided), Step::Wait(_)));
    }
}

mod publishing {
    use super::*;

    fn filled(capacity: i64) -> RestoreOrderStatus {
        let mut status = status(State::Filled);
        if let Some(made) = &mut status.volume {
            made.capacity_bytes = capacity;
        }
        status
    }

    #[test]
    fn it_is_recorded_before_the_volume_is_shown() {
        for capacity in [0, 1000, 2000] {
            let complete = observed(with_order(Goal::Filled, filled(capacity)));
            assert_eq!(step(&complete), Step::RecordPublishing);
        }
        let recorded = observed(with_order(Goal::Published, filled(1000)));
        assert_eq!(step(&recorded), Step::LookAtClaim);
        let seen = observed(|o| {
            with_order(Goal::Published, filled(1000))(o);
            o.claim = ClaimSight::Live(claim(|_| ()));
        });
        assert_eq!(step(&seen), Step::CreateVolume);
    }

    #[test]
    fn less_than_was_asked_for_is_a_failure() {
        let small = next(&observed(with_order(Goal::Filled, filled(999))));
        assert_eq!(small.step, Step::Discard);
        assert!(matches!(small.stance, Some(Stance::Failed(_))));
    }

    #[test]
    fn a_bound_claim_is_complete() {
        let bound = |bound| {
            observed(|o| {
                with_order(Goal::Published, filled(1000))(o);
                set_claim(|claim| {
                    claim.volume = Some("pvc-u1".to_owned());
                    claim.bound = bound;
                })(o);
            })
        };
        assert!(matches!(step(&bound(false)), Step::Wait(_)));
        let complete = next(&bound(true));
        assert_eq!(complete.step, Step::DropOrder);
        assert_eq!(complete.stance, Some(Stance::Completed));
    }

    #[test]
    fn a_claim_bound_elsewhere_is_told_and_cleaned_up() {
        let bound = |change: fn(&mut Observed)| {
            observed(|o| {
                set_claim(|claim| claim.volume = Some("other".to_owned()))(o);
                change(o);
            })
        };
        assert_eq!(step(&bound(|_| ())), Step::LookAtVolume);
        let without = next(&bound(|o| o.volume = VolumeSight::Foreign));
        assert!(matches!(without.stance, Some(Stance::Failed(_))));
        assert!(matches!(without.step, Step::Wait(_)));
        let with = bound(|o| with_order(Goal::Filled, status(State::Restoring))(o));
        assert_eq!(step(&with), Step::Discard);
    }
}

mod disposing {
    use super::*;

    #[test]
    fn a_claim_that_is_no_more_is_looked_for_before_anything_is_deleted() {
        let unseen = observed(|o| {
            with_order(Goal::Filled, status(State::Restoring))(o);
            o.claim = ClaimSight::NotCached;
        });
        assert_eq!(step(&unseen), Step::LookAtClaim);
        let gone = observed(|o| {
            with_order(Goal::Filled, status(State::Restoring))(o);
            o.claim = ClaimSight::Gone;
            // Nothing else needs to be there for cleaning up.
            o.restore = None;
            o.class = ClassSight::NotCached;
            o.archive = None;
        });
        assert_eq!(step(&gone), Step::Discard);
    }

    #[test]
    fn deletion_is_handled_before_any_look_up() {
        let deleting = observed(|o| {
            set_claim(|claim| claim.deleting = true)(o);
            o.restore = None;
            o.class = ClassSight::NotCached;
            o.archive = None;
        });
        assert_eq!(
            next(&deleting),
            Decision::new(Step::Wait(Wait::OnChange), None)
        );
    }

    #[test]
    fn an_order_on_a_node_that_is_no_more_is_dropped() {
        let on = |node| {
            observed(|o| {
                with_order(Goal::Deleted, status(State::Restoring))(o);
                o.claim = ClaimSight::Gone;
                o.agents = Agents::default();
                o.node = node;
            })
        };
        assert_eq!(step(&on(NodeSight::Unknown)), Step::LookAtNode);
        assert!(matches!(step(&on(NodeSight::Present)), Step::Wait(_)));
        assert_eq!(step(&on(NodeSight::Absent)), Step::DropOrder);
    }
}
