//! An order whose volume is being filled: the agent's answers and failures.

use crds::restore_order::{Cure, Failure, MadeVolume, RestoreOrder, RestoreOrderStatus, State};
use jiff::{SignedDuration, Timestamp};

use super::{
    ALIVE_CHECK, Decision, NodeSight, Observed, Stance, Step, Wait, is_paused, permission,
    placement, prime,
};
use crate::controller::claim::Claim;
use crate::controller::ending::Ending;
use crate::units;

/// Bytes that may be fetched for one restore: this many times the archive, and a little more so
/// that small archives are not given up after a few broken connections.
const BUDGET_TIMES: i64 = 3;
const BUDGET_EXTRA: i64 = 64 << 20;

/// The order's volume shall be filled.
pub(super) fn fill(observed: &Observed, claim: &Claim, order: &RestoreOrder) -> Decision {
    if order.metadata.deletion_timestamp.is_some() || placement::moved(observed, claim, order) {
        return Decision::new(Step::Discard, Stance::CleaningUp);
    }
    let status = order.status.clone().unwrap_or_default();
    // What is complete is handed over, whatever else is wished.
    if status.state != State::Filled
        && let Some(decision) = permission::taken_away(observed, claim)
    {
        return decision;
    }
    if status.state != State::Filled && is_paused(observed) {
        let step = if order.spec.paused {
            Step::Wait(Wait::OnChange)
        } else {
            Step::Pause(true)
        };
        return Decision::new(step, Stance::Paused);
    }
    let deadline = deadline(observed, order);
    if let Some((due, seconds)) = deadline
        && status.state != State::Filled
        && observed.now >= due
    {
        let last = status.failure.map(|failure| failure.message);
        return over(&Ending::DeadlinePassed { seconds, last });
    }
    let decision = if status.state != State::Filled && order.spec.paused {
        match prime::provided(observed, claim, order) {
            Some(decision) => decision,
            None => go_on(observed, order),
        }
    } else {
        by_state(observed, claim, order, status)
    };
    let decision = permission::before_signing(observed, decision);
    match (deadline, decision.step) {
        // One that is past is nothing to wait for: what is complete is handed over all the same.
        (Some((due, _)), Step::Wait(wait)) if observed.now < due => Decision {
            step: Step::Wait(wait.no_later_than(due)),
            ..decision
        },
        (_, step) => Decision { step, ..decision },
    }
}

/// After a pause: first a URL that works.
fn go_on(observed: &Observed, order: &RestoreOrder) -> Decision {
    let step = if observed.now >= renew_at(order) {
        Step::RenewAccess
    } else {
        Step::Pause(false)
    };
    Decision::new(step, Stance::Waiting)
}

/// When the restore must be complete, and how many seconds it has in all.
fn deadline(observed: &Observed, order: &RestoreOrder) -> Option<(Timestamp, i64)> {
    let seconds = order.spec.options.retry.as_ref()?.active_deadline_seconds?;
    let start = observed.restore.as_ref()?.status.start_time.as_ref()?;
    let due = start.0.checked_add(SignedDuration::from_secs(seconds));
    Some((due.unwrap_or(Timestamp::MAX), seconds))
}

fn by_state(
    observed: &Observed,
    claim: &Claim,
    order: &RestoreOrder,
    status: RestoreOrderStatus,
) -> Decision {
    if status.state != State::Deleted
        && let Some(decision) = prime::provided(observed, claim, order)
    {
        return decision;
    }
    // What an agent said of an earlier attempt says nothing of this one, except that it is done.
    let current = status.attempt >= order.spec.attempt;
    match status.state {
        State::Filled => filled(order, status.volume.as_ref()),
        State::Deleted => Decision::new(Step::Discard, Stance::CleaningUp),
        State::Failed if current => {
            let failure = status.failure.unwrap_or_default();
            failed(observed, claim, order, failure, status.bytes_fetched)
        }
        State::Failed | State::Waiting => at_work(observed, claim, order, Stance::Waiting),
        State::Provisioning => at_work(observed, claim, order, Stance::Provisioning),
        State::Restoring if status.bytes_fetched > budget(order) => over(&Ending::BudgetSpent {
            attempts: order.spec.attempt,
            fetched: status.bytes_fetched,
            size: order.spec.archive.size,
            last: None,
        }),
        State::Restoring => at_work(observed, claim, order, Stance::Restoring),
    }
}

fn filled(order: &RestoreOrder, made: Option<&MadeVolume>) -> Decision {
    let asked = &order.spec.volume;
    let Some(made) = made.filter(|made| made.volume_mode == asked.volume_mode) else {
        return over(&Ending::AnswerInvalid);
    };
    // A capacity of 0 means what was asked for (CSI, CreateVolume).
    if made.capacity_bytes != 0 && made.capacity_bytes < asked.required_bytes {
        return over(&Ending::VolumeTooSmall {
            driver: asked.driver.clone(),
            made: made.capacity_bytes,
            required: asked.required_bytes,
        });
    }
    Decision::new(Step::RecordPublishing, Stance::Publishing)
}

pub(super) fn over(ending: &Ending) -> Decision {
    Decision::new(Step::Discard, Stance::Failed(ending.failure()))
}

/// The agent is to be at it.
fn at_work(observed: &Observed, claim: &Claim, order: &RestoreOrder, stance: Stance) -> Decision {
    if let Some(decision) = silent(observed, claim, order) {
        return decision;
    }
    if observed.now < renew_at(order) {
        return Decision::new(Step::Wait(Wait::Until(observed.now + ALIVE_CHECK)), stance);
    }
    match observed.renewal_at {
        Some(due) if observed.now < due => Decision::new(
            Step::Wait(Wait::Until(due.min(observed.now + ALIVE_CHECK))),
            stance,
        ),
        Some(_) | None => Decision::new(Step::RenewAccess, stance),
    }
}

/// What there is to do while the order's agent does not answer.
pub(super) fn silent(observed: &Observed, claim: &Claim, order: &RestoreOrder) -> Option<Decision> {
    if observed.agents.is_alive(&order.spec.node_name) {
        return None;
    }
    Some(match observed.node {
        NodeSight::Unknown => Decision::new(Step::LookAtNode, None),
        NodeSight::Absent | NodeSight::Down => {
            leave_node(observed, claim, order, Stance::AgentSilent)
        }
        NodeSight::Present => Decision::new(
            Step::Wait(Wait::Until(observed.now + ALIVE_CHECK)),
            Stance::AgentSilent,
        ),
    })
}

/// A URL is renewed when half of its life is over.
fn renew_at(order: &RestoreOrder) -> Timestamp {
    let access = &order.spec.access;
    access.signed.0 + access.expires.0.duration_since(access.signed.0) / 2
}

fn failed(
    observed: &Observed,
    claim: &Claim,
    order: &RestoreOrder,
    failure: Failure,
    fetched: i64,
) -> Decision {
    match failure.cure {
        Cure::Person => Decision::new(Step::Discard, Stance::Failed(failure)),
        Cure::OtherNode => leave_node(observed, claim, order, Stance::Moving(failure)),
        Cure::Time if fetched > budget(order) => over(&Ending::BudgetSpent {
            attempts: order.spec.attempt,
            fetched,
            size: order.spec.archive.size,
            last: Some(failure.message),
        }),
        Cure::Time if attempts(order).is_some_and(|most| order.spec.attempt >= most) => {
            over(&Ending::AttemptsSpent {
                attempts: order.spec.attempt,
                last: failure.message,
            })
        }
        Cure::Time => {
            match observed.retry_at {
                Some(due) if observed.now < due => {
                    Decision::new(Step::Wait(Wait::Until(due)), Stance::Retrying(failure))
                }
                // That was told during the pause; should something keep it from being tried again, such
                // as a missing Secret, then that is told until it is cured.
                _ => Decision::new(Step::Retry, None),
            }
        }
    }
}

/// How many bytes may be fetched.
pub(super) fn budget(order: &RestoreOrder) -> i64 {
    let retry = order.spec.options.retry.as_ref();
    let given = retry.and_then(|retry| units::quantity(retry.max_bytes_fetched.as_deref()?));
    match given {
        Some(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        None => order
            .spec
            .archive
            .size
            .saturating_mul(BUDGET_TIMES)
            .saturating_add(BUDGET_EXTRA),
    }
}

/// How often it may be tried.
fn attempts(order: &RestoreOrder) -> Option<i64> {
    order.spec.options.retry.as_ref()?.attempts
}

/// Gives up the order's node: first the scheduler's choice, then the volume, so that after a crash
/// in between the failed order still tells that the choice is to be cleared.
pub(super) fn leave_node(
    observed: &Observed,
    claim: &Claim,
    order: &RestoreOrder,
    stance: Stance,
) -> Decision {
    let chosen_by_scheduler = observed
        .class
        .known()
        .is_some_and(|class| class.waits_for_consumer)
        && claim.selected_node.as_ref() == Some(&order.spec.node_name);
    let step = if chosen_by_scheduler {
        Step::ClearNode
    } else {
        Step::Discard
    };
    Decision::new(step, stance)
}
