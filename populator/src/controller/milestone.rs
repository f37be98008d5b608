//! Progress on the PVC itself: an annotation and an event at each quarter. No more often, since every change
//! of a PVC wakes every provisioner of the cluster.

use crds::volume_restore::{Phase, Progress, VolumeRestoreStatus};

use super::events::{Kind, Notice};

/// How far the restore into the PVC is, for people: `53%, 1.2 GiB at 212 MiB/s, 20s left`.
pub const PROGRESS: &str = "backup.example.com/progress";

const FAILED: &str = "failed";

/// A share of the archive after which it is told, in percent.
const STEP: i64 = 25;

/// What the PVC does not say yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// What the annotation shall say.
    pub annotation: String,
    /// An event, if the restore came forward.
    pub notice: Option<Notice>,
}

/// What is to be told on a PVC with the annotation `annotation` of a restore with this status. The annotation
/// is the only memory that lasts, so that another leader repeats nothing.
pub fn next(status: &VolumeRestoreStatus, annotation: Option<&str>) -> Option<Milestone> {
    let told = annotation.map(quarter_told);
    let progress = status.progress.as_ref()?;
    match status.phase {
        Phase::Restoring => {
            // All may be unpacked and not durable yet.
            let quarter = (progress.percent / STEP * STEP).min(100 - STEP);
            let anew = annotation.is_some_and(|it| it.starts_with(FAILED));
            (anew || quarter != told.unwrap_or(0)).then(|| Milestone {
                annotation: words(progress),
                notice: (quarter > told.unwrap_or(0)).then(|| Notice {
                    kind: Kind::Normal,
                    reason: "Progress".to_owned(),
                    message: format!("restoring: {}", words(progress)),
                }),
            })
        }
        // One that was too quick for a quarter to be told needs no end of it either.
        Phase::Completed => told.filter(|told| *told < 100).map(|_| Milestone {
            annotation: words(progress),
            notice: None,
        }),
        // Nobody shall wait for the rest of it.
        Phase::Failed => annotation
            .filter(|it| !it.starts_with(FAILED))
            .map(|_| Milestone {
                annotation: format!("{FAILED} at {}%", progress.percent),
                notice: None,
            }),
        Phase::Pending | Phase::Provisioning | Phase::Publishing => None,
    }
}

fn words(progress: &Progress) -> String {
    let (percent, restored, rate) = (progress.percent, &progress.restored, &progress.rate);
    let left = match &progress.eta {
        Some(eta) if percent < 100 => format!(", {eta} left"),
        _ => String::new(),
    };
    format!("{percent}%, {restored} at {rate}{left}")
}

/// The quarter that an annotation speaks of; 0 for what nobody here wrote.
fn quarter_told(annotation: &str) -> i64 {
    let percent = annotation.split_once('%').map(|(percent, _)| percent);
    let percent = percent.and_then(|it| it.parse::<i64>().ok()).unwrap_or(0);
    percent / STEP * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(percent: i64, phase: Phase, annotation: Option<&str>) -> Option<Milestone> {
        let progress = Progress {
            percent,
            restored: "1.2 GiB".to_owned(),
            rate: "212 MiB/s".to_owned(),
            eta: Some("20s".to_owned()),
            ..Progress::default()
        };
        let status = VolumeRestoreStatus {
            phase,
            progress: Some(progress),
            ..VolumeRestoreStatus::default()
        };
        next(&status, annotation)
    }

    #[test]
    fn each_quarter_is_told_once() {
        let restoring = |percent, told| at(percent, Phase::Restoring, told);
        assert_eq!(restoring(24, None), None);
        let first = restoring(26, None).unwrap();
        assert_eq!(first.annotation, "26%, 1.2 GiB at 212 MiB/s, 20s left");
        let notice = first.notice.unwrap();
        assert_eq!(
            (notice.kind, notice.reason.as_str()),
            (Kind::Normal, "Progress")
        );
        assert_eq!(restoring(49, Some(&first.annotation)), None);
        assert!(restoring(80, Some(&first.annotation)).is_some());
        assert_eq!(restoring(100, Some("80%, x")), None);
        assert!(restoring(99, Some("rubbish")).is_some());
    }

    #[test]
    fn one_that_begins_anew_does_not_keep_what_it_had() {
        let anew = at(3, Phase::Restoring, Some("80%, x")).unwrap();
        assert_eq!(anew.notice, None);
        assert!(anew.annotation.starts_with("3%"));
    }

    #[test]
    fn the_end_is_told_where_the_way_was() {
        let end = at(100, Phase::Completed, Some("80%, x")).unwrap();
        assert_eq!(
            (end.annotation.as_str(), end.notice),
            ("100%, 1.2 GiB at 212 MiB/s", None)
        );
        assert_eq!(at(100, Phase::Completed, Some("100%, x")), None);
        assert_eq!(at(100, Phase::Completed, None), None);
    }

    #[test]
    fn a_failure_takes_the_time_left_away() {
        assert_eq!(at(53, Phase::Failed, None), None);
        let failed = at(53, Phase::Failed, Some("50%, x")).unwrap();
        assert_eq!(
            (failed.annotation.as_str(), failed.notice),
            ("failed at 53%", None)
        );
        assert_eq!(at(53, Phase::Failed, Some("failed at 53%")), None);
        let anew = at(3, Phase::Restoring, Some("failed at 53%")).unwrap();
        assert!(anew.notice.is_none() && anew.annotation.starts_with("3%"));
    }
}
