//! Failed attempts.

use super::*;

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
    assert_eq!(step(&transient), Step::Wait(Wait::Until(due)));
    transient.now = due;
    let decision = next(&transient);
    assert_eq!(decision.step, Step::Retry);
    assert!(matches!(decision.stance, Some(Stance::Retrying(_))));
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
    assert_eq!(step(&spent(budget(10))), Step::Retry);
    let over = next(&spent(budget(10) + 1));
    assert_eq!(over.step, Step::Discard);
    match over.stance {
        Some(Stance::Failed(failure)) => assert_eq!(failure.reason, "BudgetSpent"),
        other => panic!("{other:?}"),
    }
    assert_eq!(budget(i64::MAX), i64::MAX);
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
