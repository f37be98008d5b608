//! One PVC from what is observed through a decision to its execution, again and again.

mod execution;
mod looks;
mod observation;
mod prime;
mod telling;

use std::time::Duration;

use jiff::Timestamp;
use tracing::Instrument as _;

use super::api::{self, Meaning};
use super::context::{ClaimKey, Context, Key};
use super::decision::{self, Stance, Step, Wait};
use super::ending::Hindrance;
use super::memory::Remembered;
use super::refusal::Trouble;
use crate::failpoint;

/// More steps than any restore takes at a stretch.
const STEPS_MAX: usize = 32;

/// Does what there is to do for one PVC now, and puts it into the queue again where time matters.
pub async fn reconcile(context: &Context, key: &ClaimKey) {
    // The VolumeRestore has the PVC's name.
    let span = tracing::info_span!(
        "restore",
        namespace = key.namespace,
        claim = key.name,
        node = tracing::field::Empty
    );
    let work = failpoint::working_for(&key.namespace, &key.name, drive(context, key));
    if let Some(pause) = work.instrument(span).await {
        context.queue.add_after(Key::Claim(key.clone()), pause);
    }
}

/// Steps until nothing is to be done; returns when to look again at the latest.
async fn drive(context: &Context, key: &ClaimKey) -> Option<Duration> {
    let mut observed = observation::observe(context, key);
    if let Some(order) = &observed.order {
        tracing::Span::current().record("node", &order.spec.node_name);
    }
    for _ in 0..STEPS_MAX {
        observed.now = Timestamp::now();
        let decision = decision::next(&observed);
        tracing::debug!(uid = %key.uid, step = ?decision.step, "next step");
        let told = if let Some(stance) = &decision.stance {
            telling::tell(context, key, &mut observed, stance).await
        } else {
            telling::stands(context, key, &observed);
            Ok(None)
        };
        let tell_again = match told {
            Ok(pause) => pause,
            // What is over is told before its traces go, or nobody would ever hear of it, or it would
            // begin anew.
            Err(error)
                if matches!(decision.stance, Some(Stance::Failed(_) | Stance::Completed)) =>
            {
                return Some(after(context, key, &error));
            }
            Err(error) => {
                tracing::debug!(uid = %key.uid, %error, "a status could not be written");
                Some(api::CATCH_UP)
            }
        };
        if execution::is_over(&observed) {
            context.memory.forget(&key.uid);
            context.metrics.gone(&key.uid);
            return None;
        }
        if let Step::Wait(wait) = decision.step {
            return earlier(pause(context, key, wait), tell_again);
        }
        let executed = execution::execute(
            context,
            key,
            &mut observed,
            &decision.step,
            decision.stance.as_ref(),
        )
        .await;
        match executed {
            Ok(()) => {}
            Err(Trouble::Api(error)) => {
                if let Meaning::Refused(why) = api::meaning(&error) {
                    tracing::warn!(uid = %key.uid, why, step = ?decision.step, "refused");
                    let stance = Stance::Hindered(Hindrance::Refused { why });
                    hinder(context, key, &mut observed, stance).await;
                }
                return Some(after(context, key, &error));
            }
            Err(Trouble::Refused(refusal)) => {
                hinder(context, key, &mut observed, Stance::Refused(refusal)).await;
                let pause = context.memory.update(&key.uid, Remembered::next_look);
                if decision.step == Step::RenewAccess {
                    // The agent goes on meanwhile, and whatever it reports brings us here again.
                    context.memory.update(&key.uid, |remembered| {
                        remembered.renewal = Some(Timestamp::now() + pause);
                    });
                }
                return Some(pause);
            }
        }
    }
    tracing::warn!(uid = %key.uid, "more steps than expected; going on later");
    pause(context, key, Wait::Growing)
}

async fn hinder(
    context: &Context,
    key: &ClaimKey,
    observed: &mut decision::Observed,
    stance: Stance,
) {
    if let Err(error) = telling::tell(context, key, observed, &stance).await {
        tracing::debug!(uid = %key.uid, %error, "a status could not be written");
    }
}

/// When to try again after the API server did not do something.
fn after(context: &Context, key: &ClaimKey, error: &kube::Error) -> Duration {
    match api::meaning(error) {
        Meaning::Stale => {
            // Whatever was written last, the watch knows better by then.
            context
                .memory
                .update(&key.uid, |remembered| remembered.order = None);
            api::CATCH_UP
        }
        Meaning::Refused(_) | Meaning::NamespaceEnds => {
            context.memory.update(&key.uid, Remembered::next_look)
        }
        Meaning::Transient => {
            tracing::warn!(uid = %key.uid, %error, "the API server did not answer as expected");
            context.memory.update(&key.uid, Remembered::next_look)
        }
    }
}

fn pause(context: &Context, key: &ClaimKey, wait: Wait) -> Option<Duration> {
    match wait {
        Wait::OnChange => None,
        Wait::Until(due) => {
            let left = due.duration_since(Timestamp::now());
            Some(Duration::try_from(left).unwrap_or_default())
        }
        Wait::Growing => Some(context.memory.update(&key.uid, Remembered::next_look)),
    }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
