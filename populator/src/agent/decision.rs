//! What to do next for one order: a pure function of what is known.

use crds::restore_order::{Goal, RestoreOrder, RestoreOrderStatus, State};

use super::record::{Filled, Record};

/// All that the decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The order as last seen, `None` once it is gone from the API.
    pub order: Option<&'a RestoreOrder>,
    /// Its status as this agent last wished it. The copy in `order` may be older.
    pub status: &'a RestoreOrderStatus,
    /// What this node remembers of it.
    pub record: Option<&'a Record>,
    /// Whether the Lease is not certainly held: nothing may be written or deleted then.
    pub fenced: bool,
    /// Whether this process is to end.
    pub stopping: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step<'a> {
    /// Nothing until something changes.
    Rest,
    /// Nothing ever again.
    End,
    /// Make and fill the volume, from nothing.
    Fill(&'a RestoreOrder),
    /// Say that the volume is filled, as the record has it.
    ReportFilled(&'a RestoreOrder, &'a Filled),
    /// Say that the volume is mounted nowhere, until it may be filled again.
    ReportWaiting(&'a RestoreOrder),
    /// Unmount what a failed attempt left mounted.
    Release,
    /// The volume is Kubernetes' own: unmount, forget, delete nothing.
    LetGo,
    /// Unmount and delete the volume, say so.
    Delete(&'a RestoreOrder),
    /// Nobody asks for the volume any more: unmount it, and delete it where `delete` says that it
    /// was never offered to anybody.
    Abandon {
        /// Whether the volume goes too.
        delete: bool,
    },
}

/// What to do for an order on which no work is running.
pub fn next<'a>(observed: &Observed<'a>) -> Step<'a> {
    if observed.stopping {
        return Step::End;
    }
    if observed.fenced {
        return Step::Rest;
    }
    let Some(order) = observed.order else {
        return match observed.record {
            None => Step::End,
            // From the moment that it is reported, the controller may have made a PV of it: whether
            // it did cannot be seen from here, so a filled volume is only ever deleted by an order.
            Some(record) => Step::Abandon {
                delete: record.filled.is_none(),
            },
        };
    };
    match order.spec.goal {
        Goal::Published if observed.record.is_some() => Step::LetGo,
        Goal::Published => Step::Rest,
        Goal::Deleted if observed.record.is_none() && observed.status.state == State::Deleted => {
            Step::Rest
        }
        Goal::Deleted => Step::Delete(order),
        Goal::Filled => toward_filled(order, observed),
    }
}

fn toward_filled<'a>(order: &'a RestoreOrder, observed: &Observed<'a>) -> Step<'a> {
    let status = observed.status;
    let reported = status.attempt == order.spec.attempt;
    let filled = observed.record.and_then(|record| record.filled.as_ref());
    let given = order.spec.provisioned.as_ref();
    let is_wanted = |filled: &&Filled| given.is_none_or(|given| given.volume == filled.volume);
    if let Some(filled) = filled.filter(is_wanted) {
        // A complete volume serves any attempt, since the archive is pinned.
        return if reported && status.state == State::Filled {
            Step::Rest
        } else {
            Step::ReportFilled(order, filled)
        };
    }
    let mounted = observed.record.is_some_and(|record| record.mounted);
    match status.state {
        _ if must_wait(order) && mounted => Step::Release,
        State::Provisioning | State::Restoring if must_wait(order) => Step::ReportWaiting(order),
        // It is attached anew only once that is said.
        State::Failed if order.spec.prime.is_some() && given.is_none() => {
            Step::ReportWaiting(order)
        }
        _ if must_wait(order) => Step::Rest,
        State::Failed if reported && mounted => Step::Release,
        State::Filled | State::Failed if reported => Step::Rest,
        // Goals never go back, so the volume of this order is gone for good.
        State::Deleted => Step::Rest,
        State::Waiting | State::Provisioning | State::Restoring | State::Filled | State::Failed => {
            Step::Fill(order)
        }
    }
}

/// Whether nobody may use the volume for now: a person wants so, or it is not made, or not attached.
fn must_wait(order: &RestoreOrder) -> bool {
    let spec = &order.spec;
    spec.paused || (spec.prime.is_some() && spec.provisioned.is_none())
}

/// Whether filling the volume for `attempt` is still wanted.
pub fn wanted(attempt: i64, order: Option<&RestoreOrder>, fenced: bool, stopping: bool) -> bool {
    let same = |order: &RestoreOrder| {
        let spec = &order.spec;
        spec.goal == Goal::Filled && spec.attempt == attempt && !must_wait(order)
    };
    !stopping && !fenced && order.is_some_and(same)
}

#[cfg(test)]
mod tests;
