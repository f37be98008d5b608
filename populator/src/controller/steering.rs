//! PVCs that are made from a snapshot or from another PVC go where that lies.
//!
//! A volume that lies on one node is copied there or nowhere. The scheduler does not know that, nor
//! do the provisioners of the nodes: left to themselves, they choose some node, whose driver
//! refuses, and choose again. Scheduler and provisioners both honour the annotation
//! `volume.kubernetes.io/selected-node`, so it is set to the one node that will do; under
//! WaitForFirstConsumer too, where there is nothing left to wait for.
//!
//! This serves StorageClasses of the drivers that the administrator named (`--direct-driver`).
//!
//! | module | what it holds |
//! |---|---|
//! | [`decision`] | what to do next: a pure function |
//! | [`source`] | what a PVC is made from, and where that lies |
//! | [`telling`] | what people see of it |

pub mod decision;
pub mod source;
pub mod telling;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::api::{self, Meaning};
use super::claim::SELECTED_NODE;
use super::context::{ClaimKey, Context, Key};
use super::events;
use super::memory::{Given, Remembered};
use crate::failpoint;
use decision::{Candidate, Observed, Step, Wait};

/// More steps than any PVC takes at a stretch.
const STEPS_MAX: usize = 8;

/// Does what there is to do for one PVC now, and puts it into the queue again where time matters.
pub async fn reconcile(context: &Context, key: &ClaimKey) {
    if let Some(pause) = drive(context, key).await {
        context.queue.add_after(Key::Steering(key.clone()), pause);
    }
}

/// Steps until nothing is to be done; returns when to look again at the latest.
async fn drive(context: &Context, key: &ClaimKey) -> Option<Duration> {
    let mut observed = observe(context, key);
    for _ in 0..STEPS_MAX {
        let step = decision::next(&observed);
        tracing::debug!(claim = %key.uid, ?step, "next step");
        let done = match step {
            Step::Forget => {
                context.memory.forget(&key.uid);
                return None;
            }
            Step::Wait(wait) => return pause(context, key, wait),
            Step::LookAtSource => look_at_source(context, key, &mut observed).await,
            Step::GiveWay => {
                give_way(context, key, &mut observed).await;
                Ok(())
            }
            Step::Steer { node } => steer(context, key, &mut observed, &node).await,
        };
        if let Err(error) = done {
            return Some(after(context, key, &error));
        }
    }
    pause(context, key, Wait::Growing)
}

fn observe(context: &Context, key: &ClaimKey) -> Observed {
    let candidate = context
        .stores
        .claim(&key.namespace, &key.name)
        .and_then(|claim| Candidate::read(&claim))
        .filter(|candidate| candidate.uid == key.uid);
    let driver = candidate
        .as_ref()
        .and_then(|candidate| context.stores.class(candidate.class.as_deref()?))
        .map(|class| class.provisioner.clone())
        .filter(|driver| context.drivers.contains(driver));
    Observed {
        now: Timestamp::now(),
        candidate,
        driver,
        place: None,
        steered: context.memory.recall(&key.uid).steered,
    }
}

async fn look_at_source(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), kube::Error> {
    let (Some(candidate), Some(driver)) = (&observed.candidate, &observed.driver) else {
        return Ok(());
    };
    let place = source::place(context, &key.namespace, &candidate.source, driver).await?;
    observed.place = Some(place);
    Ok(())
}

/// The provisioner took the choice back: it is repeated after a pause.
async fn give_way(context: &Context, key: &ClaimKey, observed: &mut Observed) {
    let (Some(candidate), Some(given)) = (&observed.candidate, &observed.steered.given) else {
        return;
    };
    let notice = telling::taken_back(candidate, &given.node);
    let times = context.memory.update(&key.uid, |remembered| {
        let times = remembered.steered.taken_back(observed.now);
        observed.steered = remembered.steered.clone();
        times
    });
    // Once: people see that it goes on by the provisioner's own events.
    if times == 1 {
        let about = events::about_claim(key, candidate.resource_version.clone());
        events::publish(&context.client, about, &notice).await;
    }
}

/// Chooses the node, if the PVC is still as it was seen.
async fn steer(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
    node: &str,
) -> Result<(), kube::Error> {
    let Some(candidate) = &observed.candidate else {
        return Ok(());
    };
    let change = json!({ "metadata": {
        "uid": key.uid,
        "resourceVersion": candidate.resource_version,
        "annotations": { SELECTED_NODE: node },
    }});
    failpoint::reached("controller.steer.before");
    context
        .of::<PersistentVolumeClaim>(&key.namespace)
        .patch(&key.name, &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    failpoint::reached("controller.steer.after");
    observed.steered = context.memory.update(&key.uid, |remembered| {
        remembered.looked();
        remembered.steered.given = Some(Given {
            node: node.to_owned(),
            upon: candidate.resource_version.clone(),
        });
        remembered.steered.clone()
    });
    context.metrics.steered.inc();
    let about = events::about_claim(key, candidate.resource_version.clone());
    events::publish(&context.client, about, &telling::steered(candidate, node)).await;
    Ok(())
}

fn pause(context: &Context, key: &ClaimKey, wait: Wait) -> Option<Duration> {
    match wait {
        Wait::OnChange => None,
        Wait::Until(due) => {
            let left = due.duration_since(Timestamp::now());
            Some(Duration::try_from(left).unwrap_or_default())
        }
        Wait::Growing => Some(
            context
                .memory
                .update(&key.uid, Remembered::next_source_look),
        ),
    }
}

/// When to try again after the API server did not do something.
fn after(context: &Context, key: &ClaimKey, error: &kube::Error) -> Duration {
    match api::meaning(error) {
        Meaning::Stale => api::CATCH_UP,
        Meaning::NamespaceEnds => context.memory.update(&key.uid, Remembered::next_look),
        Meaning::Refused(_) | Meaning::Transient => {
            tracing::warn!(claim = %key.uid, %error, "a PVC could not be sent to the node of its source");
            context.memory.update(&key.uid, Remembered::next_look)
        }
    }
}
