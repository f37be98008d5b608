//! Writing what people see, no more often than they can read it.

use std::time::{Duration, Instant};

use crds::volume_restore::{Phase, VolumeRestoreStatus};
use crds::{READY, VolumeRestore};

use crate::controller::conditions;
use crate::controller::context::{ClaimKey, Context};
use crate::controller::decision::{ClaimSight, Observed, Stance};
use crate::controller::events::{self, Kind};
use crate::controller::memory::Reported;
use crate::controller::report;
use crate::failpoint;

/// Progress is written at most this often.
const INTERVAL: Duration = Duration::from_secs(1);

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
        .filter(|restore| restore.claim_uid == key.uid && !restore.deleting)
    else {
        return Ok(None);
    };
    let report = report::report(stance, observed, restore);
    if report.status == restore.status {
        context.metrics.phase(&key.uid, report.status.phase);
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
        count(context, &report);
    }
    context.metrics.phase(&key.uid, report.status.phase);
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

fn count(context: &Context, report: &report::Report) {
    if let Some(notice) = &report.notice
        && notice.kind == Kind::Warning
    {
        context.metrics.failed(&notice.reason);
    }
    if report.status.phase == Phase::Completed
        && let Some(result) = &report.status.result
    {
        context
            .metrics
            .completed(result.bytes_written, result.seconds);
    }
}
