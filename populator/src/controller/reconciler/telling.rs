//! Writing what people see, no more often than they can read it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::volume_restore::{Phase, VolumeRestoreStatus};
use crds::{READY, RestoreOrder, VolumeRestore};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::controller::conditions;
use crate::controller::context::{ClaimKey, Context};
use crate::controller::decision::{ClaimSight, Observed, Stance};
use crate::controller::events::{self, Kind};
use crate::controller::memory::Reported;
use crate::controller::metrics::Subject;
use crate::controller::milestone::{self, PROGRESS};
use crate::controller::report;
use crate::failpoint;

/// Progress is written at most this often.
const INTERVAL: Duration = Duration::from_secs(2);

/// Makes the VolumeRestore and the PVC's events say what `stance` means. Returns when to come back
/// where it was too early to write.
pub(super) async fn tell(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
    stance: &Stance,
) -> Result<Option<Duration>, kube::Error> {
    let Some(restore) = observed
        .restore
        .as_ref()
        .filter(|restore| restore.claim_uid == key.uid && restore.deleting.is_none())
    else {
        warn(context, key, observed, stance).await;
        return Ok(None);
    };
    let report = report::report(stance, observed, restore);
    if report.status == restore.status {
        stand(context, key, observed, report.status.phase);
        return Ok(None);
    }
    let news = verdict(&report.status) != verdict(&restore.status);
    let reported = context.memory.recall(&key.uid).reported;
    if !(news && report.urgent)
        && let Some(reported) = reported.filter(|reported| reported.restore == restore.uid)
        && let Some(left) = INTERVAL.checked_sub(reported.at.elapsed())
    {
        return Ok(Some(left));
    }
    let uid = restore.uid.clone();
    // Before what ends the restore is told: after a crash in between it is told once more.
    mark(context, key, observed, &report.status).await;
    // The event first: after a crash in between it is told once more, under the same name.
    if let (true, Some(notice), ClaimSight::Cached(claim) | ClaimSight::Live(claim)) =
        (news, &report.notice, &observed.claim)
    {
        let about = events::about_claim(key, claim.resource_version.clone());
        events::publish(&context.client, about, notice).await;
    }
    failpoint::reached("controller.write-restore-status.before");
    let _: VolumeRestore = context
        .apply_status(&key.namespace, &key.name, &uid, &report.status)
        .await?;
    failpoint::reached("controller.write-restore-status.after");
    if news {
        count(context, key, observed, &report);
    }
    stand(context, key, observed, report.status.phase);
    context.memory.update(&key.uid, |remembered| {
        remembered.reported = Some(Reported {
            restore: uid,
            status: report.status.clone(),
            at: Instant::now(),
        });
    });
    if let Some(restore) = &mut observed.restore {
        restore.status = report.status;
    }
    Ok(None)
}

/// Where there is no VolumeRestore that could say it, the PVC's events do.
async fn warn(context: &Context, key: &ClaimKey, observed: &Observed, stance: &Stance) {
    let warning = report::warning(stance, observed);
    if let (Some(notice), ClaimSight::Cached(claim) | ClaimSight::Live(claim)) =
        (warning, &observed.claim)
        && context.memory.recall(&key.uid).warned.as_ref() != Some(&notice)
    {
        let about = events::about_claim(key, claim.resource_version.clone());
        events::publish(&context.client, about, &notice).await;
        context
            .memory
            .update(&key.uid, |remembered| remembered.warned = Some(notice));
    }
}

/// Counts a restore of which there is nothing new to tell.
pub(super) fn stands(context: &Context, key: &ClaimKey, observed: &Observed) {
    let told = observed
        .restore
        .as_ref()
        .filter(|restore| restore.claim_uid == key.uid && restore.deleting.is_none());
    if let Some(restore) = told {
        stand(context, key, observed, restore.status.phase);
    }
}

/// Puts the progress onto the PVC. That it cannot be told there holds nothing up.
async fn mark(
    context: &Context,
    key: &ClaimKey,
    observed: &Observed,
    status: &VolumeRestoreStatus,
) {
    let (ClaimSight::Cached(claim) | ClaimSight::Live(claim)) = &observed.claim else {
        return;
    };
    let told = context.memory.recall(&key.uid).milestone;
    let told = told.as_deref().or(claim.progress.as_deref());
    let Some(milestone) = milestone::next(status, told) else {
        return;
    };
    let change = json!({ "metadata": {
        "uid": key.uid,
        "annotations": { PROGRESS: milestone.annotation },
    }});
    failpoint::reached("controller.milestone.before");
    let patched = context
        .of::<PersistentVolumeClaim>(&key.namespace)
        .patch_metadata(&key.name, &PatchParams::default(), &Patch::Merge(&change))
        .await;
    failpoint::reached("controller.milestone.after");
    if patched.is_ok() {
        context.memory.update(&key.uid, |remembered| {
            remembered.milestone = Some(milestone.annotation.clone());
        });
    }
    match (patched, &milestone.notice) {
        (Ok(_), Some(notice)) => {
            let about = events::about_claim(key, claim.resource_version.clone());
            events::publish(&context.client, about, notice).await;
        }
        (Ok(_), None) => {}
        (Err(error), _) => {
            tracing::debug!(uid = %key.uid, %error, "the PVC's progress could not be written");
        }
    }
}

/// What the `Ready` condition says.
fn verdict(status: &VolumeRestoreStatus) -> Option<(&str, &str, &str)> {
    conditions::get(&status.conditions, READY).map(|ready| {
        (
            ready.status.as_str(),
            ready.reason.as_str(),
            ready.message.as_str(),
        )
    })
}

fn stand(context: &Context, key: &ClaimKey, observed: &Observed, phase: Phase) {
    let since = observed.restore.as_ref().and_then(|it| it.created);
    let since = since.unwrap_or(observed.now).as_second();
    let (uid, namespace) = (&key.uid, &key.namespace);
    context.metrics.phase(uid, namespace, phase, since);
}

fn count(context: &Context, key: &ClaimKey, observed: &Observed, report: &report::Report) {
    let metrics = &context.metrics;
    let warning = report.notice.as_ref();
    if let Some(warning) = warning.filter(|notice| notice.kind == Kind::Warning) {
        metrics.failed(&key.namespace, &warning.reason);
        if report.status.phase == Phase::Failed {
            metrics.finished(&subject(key, observed), &warning.reason);
        }
    }
    if report.status.phase == Phase::Completed
        && let Some(result) = &report.status.result
    {
        let subject = subject(key, observed);
        metrics.completed(&subject, result.bytes_written, result.seconds);
    }
}

fn subject(key: &ClaimKey, observed: &Observed) -> Subject {
    let order = observed.order.as_ref();
    // One of another namespace must not be taken for one of the same name in the PVC's.
    let store = |order: &Arc<RestoreOrder>| match order.store() {
        (namespace, name) if namespace == key.namespace => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    Subject {
        namespace: key.namespace.clone(),
        store: order.map_or_else(String::new, store),
        driver: order.map_or_else(String::new, |order| order.spec.volume.driver.clone()),
    }
}
