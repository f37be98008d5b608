//! The prime way, step by step.

use super::*;
use crate::controller::prime::{Attachment, PrimeClaim, Unfit};
use crds::restore_order::{Prime, Provisioned};

fn prime_claim(volume: Option<&str>) -> PrimeClaim {
    PrimeClaim {
        uid: "p1".to_owned(),
        order: String::new(),
        lost: false,
        created: Some(NOW.parse().unwrap()),
        deleting: false,
        volume: volume.map(ToOwned::to_owned),
        selected_node: Some("n1".to_owned()),
    }
}

fn attachment(attached: bool) -> Attachment {
    Attachment {
        name: "csi-1".to_owned(),
        uid: "a1".to_owned(),
        order: String::new(),
        volume: "pvc-p1".to_owned(),
        since: Some(NOW.parse().unwrap()),
        deleting: false,
        attached,
        error: None,
        publish_context: BTreeMap::new(),
    }
}

fn given() -> Provisioned {
    Provisioned {
        persistent_volume_name: "pvc-p1".to_owned(),
        claim_uid: "p1".to_owned(),
        volume: MadeVolume {
            handle: "h".to_owned(),
            ..MadeVolume::default()
        },
        attachment_uid: Some("a1".to_owned()),
        ..Provisioned::default()
    }
}

/// An order of the prime way, whose agent has said this.
fn with(
    goal: Goal,
    status: RestoreOrderStatus,
    provisioned: Option<Provisioned>,
    change: impl FnOnce(&mut Observed),
) -> Observed {
    observed(|observed| {
        observed.drivers = Vec::new().into();
        observed.order = Some(Arc::new(order(|order| {
            order.spec.goal = goal;
            order.spec.prime = Some(Prime {
                attach_required: true,
                pod_info_on_mount: false,
            });
            order.spec.provisioned = provisioned;
            order.status = Some(status);
        })));
        change(observed);
    })
}

fn waiting(change: impl FnOnce(&mut Observed)) -> Decision {
    let status = RestoreOrderStatus::default();
    next(&with(Goal::Filled, status, None, change))
}

#[test]
fn another_driver_is_asked_how_it_wants_its_volumes_used() {
    let foreign = |wishes| {
        next(&observed(|observed| {
            observed.drivers = vec!["other".to_owned()].into();
            observed.wishes = wishes;
        }))
    };
    assert_eq!(foreign(None).step, Step::LookAtDriver);
    let wishes = DriverWishes::read(None);
    let node = "n1".to_owned();
    assert_eq!(foreign(Some(wishes)).step, Step::CreateOrder { node });
    let unmet = DriverWishes {
        unmet: Some("tokens"),
        ..wishes
    };
    assert!(matches!(
        foreign(Some(unmet)).stance,
        Some(Stance::Refused(Refusal::DriverWishes { .. }))
    ));
}

#[test]
fn a_volume_is_provisioned_attached_and_given_to_the_agent() {
    assert_eq!(waiting(|_| ()).step, Step::CreatePrime);
    let unbound = waiting(|it| it.prime.claim = Some(prime_claim(None)));
    assert!(matches!(unbound.step, Step::Wait(Wait::Until(_))));
    let bound = |it: &mut Observed| it.prime.claim = Some(prime_claim(Some("pvc-p1")));
    assert_eq!(waiting(bound).step, Step::LookAtProvisioned);
    let made = |it: &mut Observed| {
        bound(it);
        it.prime.provisioned = Some(Ok(given()));
    };
    assert_eq!(waiting(made).step, Step::Attach);
    let on_its_way = waiting(|it| {
        made(it);
        it.prime.attachment = Some(attachment(false));
    });
    assert!(matches!(on_its_way.step, Step::Wait(Wait::Until(_))));
    let refused = waiting(|it| {
        made(it);
        it.prime.attachment = Some(Attachment {
            error: Some("no".to_owned()),
            ..attachment(false)
        });
    });
    assert!(matches!(
        refused.stance,
        Some(Stance::Hindered(Hindrance::Complaint { .. }))
    ));
    let of_another = waiting(|it| {
        made(it);
        it.prime.attachment = Some(Attachment {
            volume: "pvc-p0".to_owned(),
            ..attachment(true)
        });
    });
    assert_eq!(of_another.step, Step::Detach);
    let attached = waiting(|it| {
        made(it);
        it.prime.attachment = Some(attachment(true));
    });
    assert_eq!(attached.step, Step::Adopt);
    let unfit = waiting(|it| {
        bound(it);
        it.prime.provisioned = Some(Err(Unfit::Found));
    });
    assert_eq!(unfit.step, Step::Discard);
    assert!(matches!(unfit.stance, Some(Stance::Failed(_))));
}

#[test]
fn what_the_provisioner_says_is_told() {
    let late = |it: &mut Observed| {
        it.prime.claim = Some(prime_claim(None));
        it.now += SignedDuration::from_secs(11);
    };
    assert_eq!(waiting(late).step, Step::LookAtPrime);
    let silent = waiting(|it| {
        late(it);
        it.prime.live = true;
    });
    assert_eq!(silent.stance, Some(Stance::Provisioning));
    let told = waiting(|it| {
        late(it);
        it.prime.live = true;
        it.prime.complaint = Some("no pool".to_owned());
    });
    assert!(matches!(
        told.stance,
        Some(Stance::Hindered(Hindrance::Complaint { said, .. })) if said == "no pool"
    ));
    assert!(matches!(told.step, Step::Wait(Wait::Until(_))));
}

#[test]
fn a_node_without_room_is_left() {
    let full = |it: &mut Observed| {
        it.prime.claim = Some(PrimeClaim {
            selected_node: None,
            ..prime_claim(None)
        });
    };
    let chosen = waiting(full);
    assert_eq!(chosen.step, Step::ClearNode);
    assert!(matches!(chosen.stance, Some(Stance::Moving(_))));
    let cleared = waiting(|it| {
        full(it);
        it.claim = ClaimSight::Cached(claim(|claim| claim.selected_node = None));
    });
    assert_eq!(cleared.step, Step::Discard);
}

#[test]
fn a_volume_that_others_detach_is_attached_anew() {
    let at_work = |change: fn(&mut Observed)| {
        let status = status(State::Restoring);
        next(&with(Goal::Filled, status, Some(given()), |it| {
            it.prime.claim = Some(prime_claim(Some("pvc-p1")));
            change(it);
        }))
    };
    let fine = at_work(|it| it.prime.attachment = Some(attachment(true)));
    assert_eq!(fine.stance, Some(Stance::Restoring));
    assert_eq!(at_work(|_| ()).step, Step::LookAtPrime);
    assert_eq!(at_work(|it| it.prime.live = true).step, Step::Reprovide);
    let another = at_work(|it| {
        it.prime.attachment = Some(Attachment {
            uid: "a2".to_owned(),
            ..attachment(true)
        });
    });
    assert_eq!(another.step, Step::Reprovide);
}

#[test]
fn a_complete_volume_is_detached_and_pointed_to_the_claim() {
    let filled = next(&with(
        Goal::Filled,
        status(State::Filled),
        Some(given()),
        |_| (),
    ));
    assert_eq!(filled.step, Step::RecordPublishing);
    let publishing = |change: fn(&mut Observed)| {
        next(&with(
            Goal::Published,
            status(State::Filled),
            Some(given()),
            change,
        ))
    };
    let attached = publishing(|it| it.prime.attachment = Some(attachment(true)));
    assert_eq!(attached.step, Step::Detach);
    let leaving = publishing(|it| {
        it.prime.attachment = Some(Attachment {
            deleting: true,
            ..attachment(true)
        });
    });
    assert!(matches!(leaving.step, Step::Wait(Wait::Until(_))));
    assert_eq!(publishing(|_| ()).step, Step::LookAtPrime);
    assert_eq!(
        publishing(|it| it.prime.live = true).step,
        Step::LookAtClaim
    );
    let live = publishing(|it| {
        it.prime.live = true;
        it.claim = ClaimSight::Live(claim(|_| ()));
    });
    assert_eq!(live.step, Step::Rebind);
    let lost = publishing(|it| it.volume = VolumeSight::Foreign);
    assert_eq!(lost.step, Step::LookAtPrime);
    let lost = publishing(|it| {
        it.prime.live = true;
        it.volume = VolumeSight::Foreign;
    });
    assert_eq!(lost.step, Step::Discard);
    let pointed = publishing(|it| it.volume = VolumeSight::Made);
    assert_eq!(pointed.step, Step::Wait(Wait::OnChange));

    let bound = |it: &mut Observed| {
        it.claim = ClaimSight::Cached(claim(|claim| {
            claim.volume = Some("pvc-p1".to_owned());
            claim.bound = true;
        }));
    };
    let with_prime = with(
        Goal::Published,
        status(State::Filled),
        Some(given()),
        |it| {
            bound(it);
            it.prime.claim = Some(prime_claim(Some("pvc-p1")));
        },
    );
    let kept = Step::DropPrime { volume_too: false };
    assert_eq!(next(&with_prime).step, kept);
    let mut used = with_prime;
    used.prime.attachment = Some(attachment(true));
    assert_eq!(next(&used).step, kept, "it is attached for a user's pod");
    let without = |live| {
        let observed = with(
            Goal::Published,
            status(State::Filled),
            Some(given()),
            |it| {
                bound(it);
                it.prime.live = live;
            },
        );
        next(&observed)
    };
    assert_eq!(without(false).step, Step::LookAtPrime);
    assert_eq!(without(true).step, Step::DropOrder);
    assert_eq!(without(true).stance, Some(Stance::Completed));
}

#[test]
fn what_is_given_up_goes_with_its_volume() {
    let gone = |state, change: fn(&mut Observed)| {
        let status = RestoreOrderStatus {
            state,
            ..RestoreOrderStatus::default()
        };
        next(&with(Goal::Deleted, status, Some(given()), |it| {
            it.claim = ClaimSight::Gone;
            change(it);
        }))
    };
    let held = gone(State::Restoring, |it| {
        it.prime.attachment = Some(attachment(true));
    });
    assert!(matches!(held.step, Step::Wait(_)), "the agent has it yet");
    let released = gone(State::Deleted, |it| {
        it.prime.attachment = Some(attachment(true));
        it.prime.claim = Some(prime_claim(Some("pvc-p1")));
    });
    assert_eq!(released.step, Step::Detach);
    let detached = gone(State::Deleted, |it| {
        it.prime.claim = Some(prime_claim(Some("pvc-p1")));
    });
    assert_eq!(detached.step, Step::DropPrime { volume_too: true });
    assert_eq!(gone(State::Deleted, |_| ()).step, Step::LookAtPrime);
    let nothing = gone(State::Deleted, |it| it.prime.live = true);
    assert_eq!(nothing.step, Step::DropOrder);
}

#[test]
fn a_volume_of_another_name_may_be_ours() {
    let after = |volume| {
        next(&observed(|it| {
            it.claim = ClaimSight::Cached(claim(|claim| {
                claim.volume = Some("pvc-p1".to_owned());
                claim.bound = true;
            }));
            it.volume = volume;
        }))
    };
    assert_eq!(after(VolumeSight::Unknown).step, Step::LookAtVolume);
    assert_eq!(after(VolumeSight::Ours), Decision::settled());
    assert!(matches!(
        after(VolumeSight::Foreign).stance,
        Some(Stance::Failed(_))
    ));
}

#[test]
fn a_volume_without_its_prime_claim_is_given_up() {
    let at_work = |change: fn(&mut Observed)| {
        let status = status(State::Restoring);
        next(&with(Goal::Filled, status, Some(given()), |it| {
            it.prime.attachment = Some(attachment(true));
            change(it);
        }))
    };
    assert_eq!(at_work(|_| ()).step, Step::LookAtPrime);
    assert_eq!(at_work(|it| it.prime.live = true).step, Step::Discard);
    let stranger = waiting(|it| {
        it.prime.claim = Some(PrimeClaim {
            order: "of-an-earlier-one".to_owned(),
            ..prime_claim(Some("pvc-p1"))
        });
    });
    assert_eq!(stranger.step, Step::DropPrime { volume_too: true });
}

#[test]
fn what_was_filled_must_be_what_was_given() {
    let of_another = RestoreOrderStatus {
        volume: Some(MadeVolume::default()),
        ..status(State::Filled)
    };
    let decision = next(&with(Goal::Filled, of_another, Some(given()), |_| ()));
    assert_eq!(decision.step, Step::Discard);
}

#[test]
fn nothing_is_attached_before_what_was_is_unmounted() {
    let made = |it: &mut Observed| {
        it.prime.claim = Some(prime_claim(Some("pvc-p1")));
        it.prime.provisioned = Some(Ok(given()));
    };
    let mounted = next(&with(Goal::Filled, status(State::Restoring), None, made));
    assert!(matches!(mounted.step, Step::Wait(_)));
    let released = next(&with(Goal::Filled, status(State::Waiting), None, made));
    assert_eq!(released.step, Step::Attach);
}

#[test]
fn a_silent_sidecar_and_a_missing_node_are_told() {
    let silent = waiting(|it| {
        it.prime.claim = Some(prime_claim(None));
        it.prime.live = true;
        it.now += SignedDuration::from_secs(61);
        // The agents answer.
        it.agents =
            crate::controller::agents::tests::agents(&[("n1", "2026-01-01T00:02:00.000000Z", 500)]);
    });
    assert!(matches!(
        silent.stance,
        Some(Stance::Hindered(Hindrance::Silent { .. }))
    ));
    let without_agent = |node| {
        waiting(|it| {
            it.prime.claim = Some(prime_claim(None));
            it.agents = Agents::default();
            it.node = node;
        })
    };
    assert_eq!(without_agent(NodeSight::Unknown).step, Step::LookAtNode);
    assert_eq!(without_agent(NodeSight::Absent).step, Step::ClearNode);
}

#[test]
fn what_the_next_order_has_made_is_left_alone() {
    let status = RestoreOrderStatus {
        state: State::Deleted,
        ..RestoreOrderStatus::default()
    };
    let observed = with(Goal::Deleted, status, Some(given()), |it| {
        it.claim = ClaimSight::Gone;
        it.prime.live = true;
        it.prime.claim = Some(PrimeClaim {
            order: "next".to_owned(),
            ..prime_claim(Some("pvc-p1"))
        });
        it.prime.attachment = Some(Attachment {
            order: "next".to_owned(),
            ..attachment(true)
        });
    });
    assert_eq!(next(&observed).step, Step::DropOrder);
}

#[test]
fn a_volume_out_of_reach_is_given_up() {
    let out_of_reach = waiting(|it| {
        it.prime.claim = Some(prime_claim(Some("pvc-p1")));
        it.prime.provisioned = Some(Ok(given()));
        it.prime.elsewhere = true;
    });
    assert_eq!(out_of_reach.step, Step::ClearNode);
}
