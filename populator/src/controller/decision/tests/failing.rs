//! Failed attempts.

use super::*;
use crds::restore_options::Retry;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[test]
fn what_failed_begins_anew_when_a_person_has_mended_it() {
    let basis = |generation, retry: Option<&str>| Basis {
        backup_uid: "b".to_owned(),
        backup_generation: generation,
        retry: retry.map(str::to_owned),
    };
    let over = |now: Option<Basis>, retry: Option<&str>, order: bool| {
        observed(|o| {
            o.basis = now;
            set_claim(|claim| claim.retry = retry.map(str::to_owned))(o);
            if let Some(restore) = &mut o.restore {
                restore.status.phase = Phase::Failed;
                restore.status.basis = Some(basis(2, Some("once")));
            }
            if order {
                with_order(Goal::Filled, failure(Cure::Person))(o);
            }
        })
    };
    let waits = |observed: &Observed| matches!(step(observed), Step::Wait(_));
    assert!(waits(&over(Some(basis(2, None)), Some("once"), false)));
    assert!(waits(&over(Some(basis(2, None)), None, false)));
    assert!(
        waits(&over(Some(basis(1, None)), None, false)),
        "a watch is late"
    );
    assert!(
        waits(&over(None, Some("once"), false)),
        "there is no VolumeBackup"
    );
    let asked = over(None, Some("twice"), false);
    assert_eq!(step(&asked), Step::ReplaceRestore);
    let unwritten = |retry| {
        let mut observed = over(Some(basis(2, None)), retry, false);
        if let Some(restore) = &mut observed.restore {
            restore.status.basis = None;
        }
        observed
    };
    assert!(waits(&unwritten(None)));
    assert_eq!(step(&unwritten(Some("once"))), Step::ReplaceRestore);
    let again = over(Some(basis(2, None)), Some("twice"), false);
    assert_eq!(step(&again), Step::ReplaceRestore);
    let changed = over(Some(basis(3, None)), Some("once"), false);
    assert_eq!(step(&changed), Step::ReplaceRestore);
    let not_yet = over(Some(basis(3, None)), None, true);
    assert_eq!(
        step(&not_yet),
        Step::Discard,
        "what is left of it goes first"
    );
    let mut begun = over(Some(basis(3, None)), None, true);
    let order = begun.order.as_mut().map(Arc::make_mut);
    if let Some(order) = order {
        order.spec.basis = Some(basis(3, None));
    }
    assert!(waits(&begun), "the failure is of the order before");
}

fn failed(cure: Cure) -> Observed {
    observed(with_order(Goal::Filled, failure(cure)))
}

#[test]
fn what_only_a_person_can_cure_is_told_and_its_traces_go() {
    let decision = next(&failed(Cure::Person));
    assert_eq!(decision.step, Step::Discard);
    assert!(matches!(decision.stance, Some(Stance::Failed(_))));
    let told = |goal, status| {
        observed(|o| {
            with_order(goal, status)(o);
            if let Some(restore) = &mut o.restore {
                restore.status.phase = Phase::Failed;
            }
        })
    };
    let deleting = told(Goal::Deleted, status(State::Restoring));
    assert!(matches!(step(&deleting), Step::Wait(_)));
    assert_eq!(
        step(&told(Goal::Deleted, status(State::Deleted))),
        Step::DropOrder
    );
    let over = observed(|o| {
        if let Some(restore) = &mut o.restore {
            restore.status.phase = Phase::Failed;
        }
    });
    assert_eq!(
        next(&over),
        Decision::settled(),
        "it is not begun again by itself"
    );
}

#[test]
fn a_deleted_restore_begins_anew_when_the_traces_are_gone() {
    let deleting = observed(with_order(Goal::Deleted, status(State::Restoring)));
    assert_eq!(next(&deleting).stance, Some(Stance::CleaningUp));
    let gone = observed(with_order(Goal::Deleted, status(State::Deleted)));
    assert_eq!(step(&gone), Step::DropOrder);
}

#[test]
fn time_is_given_and_then_it_is_tried_again() {
    let mut transient = failed(Cure::Time);
    let due = transient.now + SignedDuration::from_secs(5);
    transient.retry_at = Some(due);
    let waiting = next(&transient);
    assert_eq!(waiting.step, Step::Wait(Wait::Until(due)));
    assert!(matches!(waiting.stance, Some(Stance::Retrying(_))));
    transient.now = due;
    // What may keep it from that is told, and nothing else with it in turn.
    assert_eq!(next(&transient), Decision::new(Step::Retry, None));
}

#[test]
fn an_attempt_that_was_begun_again_is_not_failed_any_more() {
    let raised = observed(|o| {
        o.order = Some(Arc::new(order(|order| {
            order.spec.attempt = 2;
            order.status = Some(failure(Cure::Person));
        })));
    });
    assert_eq!(next(&raised).stance, Some(Stance::Waiting));
}

#[test]
fn the_budget_ends_attempts() {
    let spent = |fetched| {
        observed(|o| {
            let status = RestoreOrderStatus {
                bytes_fetched: fetched,
                ..failure(Cure::Time)
            };
            with_order(Goal::Filled, status)(o);
        })
    };
    let of = |size| budget(&order(|order| order.spec.archive.size = size));
    let most = budget(&order(|_| ()));
    assert_eq!(step(&spent(most)), Step::Retry);
    let over = next(&spent(most + 1));
    assert_eq!(over.step, Step::Discard);
    match over.stance {
        Some(Stance::Failed(failure)) => assert_eq!(failure.reason, "BudgetSpent"),
        other => panic!("{other:?}"),
    }
    assert_eq!(of(i64::MAX), i64::MAX);
    assert_eq!(of(10), 30 + (64 << 20));
    let given = order(|order| {
        order.spec.options.retry = Some(Retry {
            max_bytes_fetched: Some("1Ki".to_owned()),
            ..Retry::default()
        });
    });
    assert_eq!(budget(&given), 1024);
}

#[test]
fn the_budget_ends_an_attempt_that_is_under_way() {
    let with = |fetched| {
        observed(|o| {
            let status = RestoreOrderStatus {
                bytes_fetched: fetched,
                ..status(State::Restoring)
            };
            with_order(Goal::Filled, status)(o);
        })
    };
    let most = budget(&order(|_| ()));
    assert!(matches!(step(&with(most)), Step::Wait(_)));
    let over = with(most + 1);
    assert_eq!(step(&over), Step::Discard);
    assert_eq!(reason(&over), "BudgetSpent");
}

/// An order at work, and no agent alive on its node.
fn left_alone(node: NodeSight, goal: Goal) -> Observed {
    observed(|o| {
        with_order(goal, status(State::Restoring))(o);
        o.agents = Agents::default();
        o.node = node;
    })
}

#[test]
fn what_is_on_a_node_that_is_down_begins_anew_on_another() {
    for goal in [Goal::Filled, Goal::Deleted] {
        let stays = next(&left_alone(NodeSight::Present, goal));
        assert!(matches!(stays.step, Step::Wait(_)), "{stays:?}");
        assert_eq!(stays.stance, Some(Stance::AgentSilent));
    }
    for node in [NodeSight::Down, NodeSight::Absent] {
        assert_eq!(step(&left_alone(node, Goal::Filled)), Step::ClearNode);
        assert_eq!(step(&left_alone(node, Goal::Deleted)), Step::DropOrder);
    }
    // Who answers is no matter of the Node object.
    let mut answers = left_alone(NodeSight::Down, Goal::Filled);
    answers.agents = observed(|_| ()).agents;
    assert!(matches!(step(&answers), Step::Wait(_)));
}

#[test]
fn a_volume_that_does_not_go_is_told() {
    let said = |generation, state| {
        let mut of_order = order(|order| {
            order.metadata.generation = Some(2);
            order.spec.goal = Goal::Deleted;
        });
        of_order.status = Some(RestoreOrderStatus {
            observed_generation: generation,
            state,
            ..failure(Cure::Time)
        });
        next(&observed(|o| o.order = Some(Arc::new(of_order)))).stance
    };
    match said(Some(2), State::Failed) {
        Some(Stance::Hindered(Hindrance::VolumeKept { node, .. })) => assert_eq!(node, "n1"),
        other => panic!("{other:?}"),
    }
    // Said of filling it, or not at all.
    assert_eq!(said(Some(1), State::Failed), Some(Stance::CleaningUp));
    assert_eq!(said(Some(2), State::Restoring), Some(Stance::CleaningUp));
}

#[test]
fn a_volume_restore_that_is_kept_is_told() {
    let since = |seconds| {
        next(&observed(|o| {
            let since = o.now - SignedDuration::from_secs(seconds);
            if let Some(restore) = &mut o.restore {
                restore.deleting = Some(since);
            }
        }))
    };
    let soon = since(1);
    assert_eq!(soon.stance, None);
    assert!(matches!(soon.step, Step::Wait(Wait::Until(_))));
    let kept = Some(Stance::Hindered(Hindrance::RestoreKept));
    assert_eq!(since(60).stance, kept);
}

#[test]
fn a_url_that_was_not_signed_is_not_asked_for_at_every_report() {
    let at = |due: i64| {
        observed(|o| {
            with_order(Goal::Filled, status(State::Restoring))(o);
            o.now = "2026-01-01T00:40:00Z".parse().unwrap();
            o.agents = agents(&[("n1", "2026-01-01T00:39:59Z", 1)]);
            o.renewal_at = Some(o.now + SignedDuration::from_secs(due));
        })
    };
    let (waits, asks) = (next(&at(7)), next(&at(0)));
    assert_eq!(
        waits.step,
        Step::Wait(Wait::Until(at(7).renewal_at.unwrap()))
    );
    assert_eq!(waits.stance, Some(Stance::Restoring));
    assert_eq!(asks.step, Step::RenewAccess);
}

/// The order's attempt, what of those is allowed, and how many seconds of which have gone by.
fn bounded(attempt: i64, retry: Retry, gone: i64, answer: RestoreOrderStatus) -> Observed {
    observed(|o| {
        o.order = Some(Arc::new(order(|order| {
            order.spec.attempt = attempt;
            order.spec.options.retry = Some(retry);
            order.status = Some(RestoreOrderStatus { attempt, ..answer });
        })));
        let start = o.now - SignedDuration::from_secs(gone);
        if let Some(restore) = &mut o.restore {
            restore.status.start_time = Some(Time(start));
        }
    })
}

fn reason(observed: &Observed) -> String {
    match next(observed).stance {
        Some(Stance::Failed(failure)) => failure.reason,
        other => format!("{other:?}"),
    }
}

#[test]
fn attempts_end_where_the_backup_says() {
    let twice = || Retry {
        attempts: Some(2),
        ..Retry::default()
    };
    let first = bounded(1, twice(), 0, failure(Cure::Time));
    assert_eq!(step(&first), Step::Retry);
    let second = bounded(2, twice(), 0, failure(Cure::Time));
    assert_eq!(step(&second), Step::Discard);
    assert_eq!(reason(&second), "AttemptsSpent");
}

#[test]
fn time_ends_where_the_backup_says() {
    let ten = || Retry {
        active_deadline_seconds: Some(10),
        ..Retry::default()
    };
    let at_work = bounded(1, ten(), 9, status(State::Restoring));
    let due = at_work.now + SignedDuration::from_secs(1);
    assert_eq!(step(&at_work), Step::Wait(Wait::Until(due)));
    let late = bounded(1, ten(), 10, status(State::Restoring));
    assert_eq!(step(&late), Step::Discard);
    assert_eq!(reason(&late), "DeadlinePassed");
    let complete = bounded(1, ten(), 10, status(State::Filled));
    assert_eq!(step(&complete), Step::RecordPublishing);
    let unlimited = bounded(1, Retry::default(), 1 << 20, status(State::Restoring));
    assert!(matches!(step(&unlimited), Step::Wait(_)));
}

#[test]
fn a_pause_is_kept_until_it_ends() {
    let paused = |wanted, told, state| {
        observed(|o| {
            o.order = Some(Arc::new(order(|order| {
                order.spec.paused = told;
                order.status = Some(status(state));
            })));
            if let Some(restore) = &mut o.restore {
                restore.paused = wanted;
            }
        })
    };
    let begin = paused(true, false, State::Restoring);
    assert_eq!(step(&begin), Step::Pause(true));
    assert_eq!(next(&begin).stance, Some(Stance::Paused));
    let kept = paused(true, true, State::Restoring);
    assert_eq!(step(&kept), Step::Wait(Wait::OnChange));
    assert_eq!(
        step(&paused(false, true, State::Restoring)),
        Step::Pause(false)
    );
    let mut long = paused(false, true, State::Restoring);
    long.now = order(|_| ()).spec.access.expires.0;
    assert_eq!(step(&long), Step::RenewAccess, "it needs a URL that works");
    assert_eq!(
        step(&paused(true, false, State::Filled)),
        Step::RecordPublishing,
        "what is complete is handed over"
    );
    let before = observed(|o| {
        if let Some(restore) = &mut o.restore {
            restore.paused = true;
        }
    });
    assert_eq!(step(&before), Step::Wait(Wait::OnChange));
    assert_eq!(next(&before).stance, Some(Stance::Paused));
}

#[test]
fn without_room_the_scheduler_is_asked_first_and_then_the_traces_go() {
    assert_eq!(step(&failed(Cure::OtherNode)), Step::ClearNode);
    let cleared = observed(|o| {
        with_order(Goal::Filled, failure(Cure::OtherNode))(o);
        set_claim(|claim| claim.selected_node = None)(o);
    });
    assert_eq!(step(&cleared), Step::Discard);
}
