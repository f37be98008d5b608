//! What people see of a restore: a VolumeRestore's status and an event, made from a stance.

use std::time::Duration;

use crds::READY;
use crds::restore_order::{Failure, RestoreOrder};
use crds::volume_restore::{Phase, Progress, RestoreResult, VolumeRestoreStatus};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::claim::{Claim, RETRY};
use super::conditions::{self, Verdict};
use super::decision::{ClaimSight, Observed, Restore, Stance};
use super::ending::Hindrance;
use super::events::{Kind, Notice};
use super::resolution::{Pinned, PointInTime};
use crate::units;

/// Failures that only another PVC cures.
const OF_THE_CLAIM: [&str; 4] = [
    "DoesNotFit",
    "VolumeTooSmall",
    "VolumeTooLarge",
    "SizeRefused",
];

/// A status to write, and what to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The whole status.
    pub status: VolumeRestoreStatus,
    /// An event for the PVC.
    pub notice: Option<Notice>,
    /// Whether it must be seen at once, rather than with the next progress.
    pub urgent: bool,
}

/// What shall be seen of `restore` in this stance.
pub fn report(stance: &Stance, observed: &Observed, restore: &Restore) -> Report {
    let order = observed.order.as_deref();
    let telling = Telling::of(stance, observed, order);
    let mut status = restore.status.clone();
    status.observed_generation = restore.generation;
    status.phase = telling.phase;
    conditions::set(
        &mut status.conditions,
        READY,
        &telling.verdict,
        restore.generation,
        observed.now,
    );
    match (stance, order) {
        // The time that is allowed begins anew after it, and on another node.
        (Stance::Paused, _) => status.start_time = None,
        (stance, None) if !matches!(stance, Stance::Failed(_) | Stance::Completed) => {
            status.start_time = None;
        }
        (_, Some(_)) if status.start_time.is_none() => {
            let seconds = Timestamp::from_second(observed.now.as_second());
            status.start_time = seconds.ok().map(Time);
        }
        (_, _) => {}
    }
    if let Some(order) = order {
        follow(&mut status, order);
    } else if let Some(Ok(pinned)) = &observed.archive {
        status.archive = Some(pinned.archive.clone());
    }
    if *stance == Stance::Completed {
        status.result = result(order).cloned();
    }
    let notice = telling.kind.map(|kind| Notice {
        kind,
        reason: telling.verdict.reason,
        message: telling.verdict.message,
    });
    Report {
        urgent: notice.is_some(),
        status,
        notice,
    }
}

/// What a person should know in this stance, apart from any VolumeRestore.
pub fn warning(stance: &Stance, observed: &Observed) -> Option<Notice> {
    let telling = Telling::of(stance, observed, observed.order.as_deref());
    let kind = telling.kind.filter(|kind| *kind == Kind::Warning)?;
    Some(Notice {
        kind,
        reason: telling.verdict.reason,
        message: telling.verdict.message,
    })
}

/// Takes over what the order says.
fn follow(status: &mut VolumeRestoreStatus, order: &RestoreOrder) {
    let driver = &order.spec.volume.driver;
    let (way, why) = match &order.spec.prime {
        None => (
            "Direct",
            format!(
                "--direct-driver of the controller names the CSI driver {driver}: the node's agent has the volume \
                 made"
            ),
        ),
        Some(_) => (
            "Prime",
            format!(
                "--direct-driver of the controller does not name the CSI driver {driver}: its own provisioner \
                 makes the volume, for a PVC of the populator's"
            ),
        ),
    };
    status.way = Some(way.to_owned());
    status.way_reason = Some(why);
    status.node_name = Some(order.spec.node_name.clone());
    status.archive = Some(order.spec.archive.clone());
    status.attempts = Some(order.spec.attempt);
    if order.spec.basis.is_some() {
        status.basis.clone_from(&order.spec.basis);
    }
    if let Some(progress) = order
        .status
        .as_ref()
        .and_then(|answer| answer.progress.as_ref())
    {
        status.progress = Some(progress.clone());
    }
    // An agent that was restarted at the end has a result and no progress.
    if let Some(result) = result(Some(order)) {
        status.progress = Some(finished(result, order.spec.archive.size));
    }
}

/// The figures of a restore that is complete.
fn finished(result: &RestoreResult, stored: i64) -> Progress {
    let rate = result.bytes_written / result.seconds.max(1);
    Progress {
        percent: 100,
        bytes_read: stored,
        bytes_total: stored,
        bytes_written: result.bytes_written,
        entries: result.entries,
        bytes_per_second: rate,
        eta_seconds: Some(0),
        restored: units::bytes(result.bytes_written.unsigned_abs()),
        rate: units::rate(rate.unsigned_abs()),
        eta: Some(units::duration(Duration::ZERO)),
    }
}

fn result(order: Option<&RestoreOrder>) -> Option<&RestoreResult> {
    order?.status.as_ref()?.result.as_ref()
}

struct Telling {
    phase: Phase,
    verdict: Verdict,
    kind: Option<Kind>,
}

impl Telling {
    fn of(stance: &Stance, observed: &Observed, order: Option<&RestoreOrder>) -> Self {
        let node = order.map_or("its node", |order| order.spec.node_name.as_str());
        match stance {
            Stance::Refused(refusal) => {
                Self::warning(Phase::Pending, refusal.reason(), refusal.to_string())
            }
            Stance::Hindered(hindrance) => Self::hindered(hindrance),
            Stance::WaitingForConsumer => Self::waiting(
                Phase::Pending,
                "WaitingForFirstConsumer",
                "the archive was found; the restore begins when a pod that uses the PVC is \
                 scheduled"
                    .to_owned(),
            ),
            Stance::Paused => Self::waiting(
                Phase::Pending,
                "Paused",
                "spec.paused is set; what is restored already is kept as far as the last checkpoint, and \
                 it goes on when spec.paused is taken out"
                    .to_owned(),
            ),
            Stance::CleaningUp => Self::waiting(
                Phase::Pending,
                "CleaningUp",
                format!("what an earlier attempt left on node {node} is being deleted"),
            ),
            Stance::Waiting => Self::waiting(
                Phase::Pending,
                "WaitingForAgent",
                format!(
                    "the agent on node {node} has the order, and begins when it is its turn: after \
                     others, or once the restore of the same archive there is done"
                ),
            ),
            Stance::Provisioning => Self::waiting(
                Phase::Provisioning,
                "Provisioning",
                match order {
                    Some(order) if order.spec.prime.is_some() => format!(
                        "the provisioner of the CSI driver {} makes the volume, and it is mounted on \
                         node {node}",
                        order.spec.volume.driver
                    ),
                    _ => format!("the volume is being made and mounted on node {node}"),
                },
            ),
            Stance::Restoring => Self::waiting(
                Phase::Restoring,
                "Restoring",
                format!("the archive is being unpacked on node {node}"),
            ),
            Stance::Retrying(failure) => Self::warning(
                Phase::Pending,
                &failure.reason,
                with_retry(&failure.message),
            ),
            Stance::Moving(failure) => Self::warning(
                Phase::Pending,
                &failure.reason,
                format!("{}; another node is being sought", failure.message),
            ),
            Stance::AgentSilent => Self::hindered(&Hindrance::AgentSilent {
                node: node.to_owned(),
            }),
            Stance::Publishing => Self::waiting(
                Phase::Publishing,
                "Publishing",
                "the volume is complete and being handed to Kubernetes".to_owned(),
            ),
            Stance::Completed => Self {
                phase: Phase::Completed,
                verdict: Verdict {
                    status: "True",
                    reason: "Restored".to_owned(),
                    message: restored(order),
                },
                kind: Some(Kind::Normal),
            },
            Stance::Failed(failure) => {
                Self::warning(Phase::Failed, &failure.reason, for_good(failure, observed))
            }
        }
    }

    fn waiting(phase: Phase, reason: &str, message: String) -> Self {
        Self {
            phase,
            verdict: Verdict {
                status: "False",
                reason: reason.to_owned(),
                message,
            },
            kind: None,
        }
    }

    fn hindered(by: &Hindrance) -> Self {
        Self::warning(Phase::Pending, by.reason(), by.to_string())
    }

    fn warning(phase: Phase, reason: &str, message: String) -> Self {
        Self {
            kind: Some(Kind::Warning),
            ..Self::waiting(phase, reason, message)
        }
    }
}

fn with_retry(message: &str) -> String {
    if message.contains("tried again") {
        message.to_owned()
    } else {
        format!(
            "{message}; it is tried again after 5 seconds, then after longer and longer pauses up to 5 minutes"
        )
    }
}

/// Whether only another PVC cures it.
pub fn is_of_the_claim(reason: &str) -> bool {
    OF_THE_CLAIM.contains(&reason)
}

/// What to do last. A PVC that is bound elsewhere is at its end, and what a PVC asks for cannot be
/// changed while it is Pending.
fn for_good(failure: &Failure, observed: &Observed) -> String {
    let message = &failure.message;
    let claim = match &observed.claim {
        ClaimSight::Cached(claim) | ClaimSight::Live(claim) if claim.volume.is_none() => claim,
        _ => return message.clone(),
    };
    if is_of_the_claim(&failure.reason) {
        return format!("{message}; for that, delete the PVC and make it again");
    }
    format!(
        "{message}; it is tried again when the VolumeBackup is changed, or by kubectl annotate \
         --overwrite pvc -n {} {} {RETRY}=$(date +%s)",
        claim.namespace, claim.name
    )
}

fn restored(order: Option<&RestoreOrder>) -> String {
    let (Some(order), Some(result)) = (order, result(order)) else {
        return "the PVC is bound to the restored volume".to_owned();
    };
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let written = number(result.bytes_written);
    let seconds = number(result.seconds).max(1);
    let verified = match result.verified.as_str() {
        "" | "None" => "the format has no checksum to verify".to_owned(),
        how => format!("verified by {how}"),
    };
    let lost = match result.not_restored.as_slice() {
        [] => String::new(),
        lost => format!("; not restored: {}", lost.join(", ")),
    };
    let entries = if order.spec.is_of_a_disk() {
        String::new()
    } else {
        format!(" in {} entries", result.entries)
    };
    let (size, url) = (units::bytes(written), &order.spec.archive.url);
    if result.snapshot_handle.is_some() {
        return format!(
            "{size}{entries} of {url} are in a copy of a volume that was restored before on the same \
             node; nothing was fetched, {verified} then{lost}"
        );
    }
    format!(
        "{size}{entries} restored from {url} in {} ({}), {verified}{lost}",
        units::duration(Duration::from_secs(number(result.seconds))),
        units::rate(written / seconds),
    )
}

/// What to tell when an archive is pinned and the order made.
pub fn pinned(pinned: &Pinned, claim: &Claim, node: &str) -> Notice {
    let archive = &pinned.archive;
    let written = archive.last_modified.as_ref().map_or_else(
        || "at an unknown time".to_owned(),
        |time| time.0.to_string(),
    );
    let point = match pinned.point_in_time {
        PointInTime::Version => {
            let version = archive.version.as_deref().unwrap_or_default();
            format!("version {version}, the one that was current at restorePoint")
        }
        PointInTime::Name => "the newest by restorePoint, by the time in its name".to_owned(),
        PointInTime::Written => "the newest by restorePoint".to_owned(),
        PointInTime::Unknown => "as it stands, since the bucket keeps no versions".to_owned(),
    };
    Notice {
        kind: Kind::Normal,
        reason: "Restoring".to_owned(),
        message: format!(
            "restoring VolumeBackup {} on node {node} from {} of {}, last written {written}, {point}",
            claim.backup_told(),
            archive.url,
            archive.human_size
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::decision::tests::{observed, order, pinned as example};
    use crate::controller::refusal::Refusal;
    use crate::store::StoreError;
    use crds::restore_order::{Cure, RestoreOrderStatus};
    use std::sync::Arc;

    fn failure(reason: &str) -> Failure {
        Failure {
            reason: reason.to_owned(),
            message: "it failed; do this".to_owned(),
            cure: Cure::Person,
        }
    }

    fn reported(stance: &Stance, observed: &Observed) -> Report {
        report(stance, observed, observed.restore.as_ref().unwrap())
    }

    fn ready(report: &Report) -> (&str, &str, &str) {
        let ready = conditions::get(&report.status.conditions, READY).unwrap();
        (&ready.status, &ready.reason, &ready.message)
    }

    #[test]
    fn condition_and_event_say_the_same() {
        let refusal = Refusal::Store(StoreError::NoObject {
            url: "s3://b/k".to_owned(),
            server: "s".to_owned(),
        });
        for stance in [
            Stance::Refused(refusal),
            Stance::Hindered(Hindrance::Refused {
                why: "quota".to_owned(),
            }),
            Stance::Retrying(failure("Why")),
            Stance::Moving(failure("NodeFull")),
            Stance::AgentSilent,
            Stance::Failed(failure("Why")),
        ] {
            let report = reported(&stance, &observed(|_| ()));
            let notice = report.notice.clone().unwrap();
            assert_eq!(notice.kind, Kind::Warning);
            assert_eq!(
                ready(&report),
                ("False", notice.reason.as_str(), notice.message.as_str())
            );
            assert!(notice.message.contains("; "), "{}", notice.message);
        }
    }

    #[test]
    fn waiting_and_working_are_no_events() {
        for stance in [
            Stance::WaitingForConsumer,
            Stance::CleaningUp,
            Stance::Waiting,
            Stance::Provisioning,
            Stance::Restoring,
            Stance::Publishing,
        ] {
            assert_eq!(reported(&stance, &observed(|_| ())).notice, None);
        }
    }

    #[test]
    fn a_failure_for_good_says_how_to_begin_anew() {
        let told = |reason| {
            let report = reported(&Stance::Failed(failure(reason)), &observed(|_| ()));
            assert_eq!(report.status.phase, Phase::Failed);
            report.notice.unwrap().message
        };
        let command = "kubectl annotate --overwrite pvc -n default restored-database \
                       backup.example.com/retry=";
        assert!(told("Why").contains(command));
        assert!(told("DoesNotFit").ends_with("delete the PVC and make it again"));
    }

    #[test]
    fn a_complete_restore_tells_size_time_rate_and_verification() {
        let complete = observed(|o| {
            o.order = Some(Arc::new(order(|order| {
                order.status = Some(RestoreOrderStatus {
                    result: Some(RestoreResult {
                        format: "tar.gz".to_owned(),
                        entries: 3,
                        bytes_written: 2 << 30,
                        seconds: 80,
                        verified: "Stream".to_owned(),
                        not_restored: vec!["2 sockets".to_owned()],
                        ..RestoreResult::default()
                    }),
                    ..RestoreOrderStatus::default()
                });
            })));
        });
        let report = reported(&Stance::Completed, &complete);
        let (status, reason, message) = ready(&report);
        assert_eq!((status, reason), ("True", "Restored"));
        assert_eq!(
            message,
            "2 GiB in 3 entries restored from s3://b/k in 1m20s (25.6 MiB/s), verified by Stream; \
             not restored: 2 sockets"
        );
        let progress = report.status.progress.clone().unwrap();
        assert_eq!(
            (progress.percent, progress.restored.as_str()),
            (100, "2 GiB")
        );
        assert_eq!(report.status.node_name.as_deref(), Some("n1"));
        assert_eq!(report.status.way.as_deref(), Some("Direct"));
        assert!(report.status.progress.is_some() && report.status.result.is_some());
        assert_eq!(report.notice.unwrap().kind, Kind::Normal);
    }

    #[test]
    fn an_archive_without_versions_is_told_with_its_time() {
        let observed = observed(|_| ());
        let ClaimSight::Cached(claim) = &observed.claim else {
            unreachable!()
        };
        let message = pinned(&example(), claim, "n1").message;
        assert!(
            message.contains("as it stands") && message.contains("last written"),
            "{message}"
        );
    }
}
