use super::*;

use crds::restore_order::{
    MadeVolume, OrderClaim, OrderVolume, Prime, Provisioned, RestoreOrderSpec, SignedAccess,
    VolumeMode,
};
use crds::volume_backup::ResolvedArchive;
use crds::volume_restore::RestoreResult;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::agent::record::Made;

fn order(goal: Goal, attempt: i64) -> RestoreOrder {
    let mut order = RestoreOrder::new(
        "order",
        RestoreOrderSpec {
            goal,
            attempt,
            paused: false,
            priority: 0,
            prime: None,
            provisioned: None,
            node_name: "node".into(),
            claim: OrderClaim {
                namespace: "default".into(),
                name: "claim".into(),
                uid: "1".into(),
            },
            volume: OrderVolume {
                driver: "driver.example.com".into(),
                name: "pvc-1".into(),
                required_bytes: 1,
                limit_bytes: 0,
                volume_mode: VolumeMode::Filesystem,
                fs_type: String::new(),
                mount_options: Vec::new(),
                access_modes: vec!["ReadWriteOnce".into()],
                parameters: [].into(),
            },
            archive: ResolvedArchive::default(),
            options: crds::RestoreOptions::default(),
            content: None,
            basis: None,
            access: SignedAccess {
                url: "https://example.com".into(),
                signed: Time(jiff::Timestamp::UNIX_EPOCH),
                expires: Time(jiff::Timestamp::UNIX_EPOCH),
                ca_bundle: None,
                bytes_per_second: None,
            },
        },
    );
    order.metadata.uid = Some("uid".into());
    order
}

fn status(state: State, attempt: i64) -> RestoreOrderStatus {
    RestoreOrderStatus {
        state,
        attempt,
        ..RestoreOrderStatus::default()
    }
}

fn record(mounted: bool, filled: bool) -> Record {
    let mut record = Record::new(&order(Goal::Filled, 1));
    record.made = Made::Yes(MadeVolume::default());
    record.mounted = mounted;
    record.filled = filled.then(|| Filled {
        volume: MadeVolume::default(),
        result: RestoreResult::default(),
    });
    record
}

/// A step without what it carries.
fn word(step: &Step<'_>) -> &'static str {
    match step {
        Step::Rest => "rest",
        Step::End => "end",
        Step::Fill(_) => "fill",
        Step::ReportFilled(..) => "report",
        Step::ReportWaiting(_) => "say that it waits",
        Step::Release => "release",
        Step::LetGo => "let go",
        Step::Delete(_) => "delete",
        Step::Abandon { delete: true } => "abandon and delete",
        Step::Abandon { delete: false } => "abandon and keep",
    }
}

fn decide(
    order: Option<&RestoreOrder>,
    status: &RestoreOrderStatus,
    record: Option<&Record>,
) -> &'static str {
    word(&next(&Observed {
        order,
        status,
        record,
        fenced: false,
        stopping: false,
    }))
}

#[test]
fn toward_a_filled_volume() {
    let order = order(Goal::Filled, 2);
    let (unmounted, mounted, filled) = (
        record(false, false),
        record(true, false),
        record(false, true),
    );
    let table: [(State, i64, Option<&Record>, &str); 15] = [
        (State::Waiting, 0, None, "fill"),
        (State::Provisioning, 2, None, "fill"),
        (State::Provisioning, 2, Some(&mounted), "fill"),
        (State::Restoring, 2, Some(&mounted), "fill"),
        (State::Restoring, 1, Some(&mounted), "fill"),
        // Another attempt is asked for.
        (State::Failed, 1, Some(&unmounted), "fill"),
        (State::Failed, 1, Some(&mounted), "fill"),
        (State::Failed, 2, Some(&unmounted), "rest"),
        (State::Failed, 2, None, "rest"),
        (State::Failed, 2, Some(&mounted), "release"),
        // Complete, and the report was lost with the process.
        (State::Restoring, 2, Some(&filled), "report"),
        (State::Filled, 1, Some(&filled), "report"),
        (State::Filled, 2, Some(&filled), "rest"),
        (State::Filled, 2, None, "rest"),
        (State::Deleted, 2, None, "rest"),
    ];
    for (state, attempt, record, step) in table {
        let status = status(state, attempt);
        let known = record.map(|record| (record.mounted, record.filled.is_some()));
        assert_eq!(
            decide(Some(&order), &status, record),
            step,
            "{state:?} of attempt {attempt}, (mounted, filled): {known:?}"
        );
    }
}

#[test]
fn while_it_is_paused_nothing_is_written_or_mounted() {
    let mut order = order(Goal::Filled, 2);
    order.spec.paused = true;
    assert!(!wanted(2, Some(&order), false, false));
    let (unmounted, mounted) = (record(false, false), record(true, false));
    for (state, word) in [
        (State::Waiting, "rest"),
        (State::Provisioning, "say that it waits"),
        (State::Restoring, "say that it waits"),
        (State::Failed, "rest"),
    ] {
        let at = status(state, 2);
        assert_eq!(decide(Some(&order), &at, None), word);
        assert_eq!(decide(Some(&order), &at, Some(&unmounted)), word);
        assert_eq!(decide(Some(&order), &at, Some(&mounted)), "release");
    }
    let complete = record(false, true);
    let at = status(State::Restoring, 2);
    assert_eq!(decide(Some(&order), &at, Some(&complete)), "report");
    order.spec.goal = Goal::Deleted;
    assert_eq!(decide(Some(&order), &at, Some(&unmounted)), "delete");
}

#[test]
fn what_others_provision_is_waited_for() {
    let mut order = order(Goal::Filled, 1);
    order.spec.prime = Some(Prime::default());
    let at = status(State::Waiting, 0);
    assert_eq!(decide(Some(&order), &at, None), "rest");
    assert!(!wanted(1, Some(&order), false, false));
    order.spec.provisioned = Some(Provisioned::default());
    assert_eq!(decide(Some(&order), &at, None), "fill");
    let complete = record(false, true);
    assert_eq!(decide(Some(&order), &at, Some(&complete)), "report");
    let mut another = order.clone();
    another.spec.provisioned = Some(Provisioned {
        volume: MadeVolume {
            handle: "another".into(),
            ..MadeVolume::default()
        },
        ..Provisioned::default()
    });
    assert_eq!(decide(Some(&another), &at, Some(&complete)), "fill");
    order.spec.provisioned = None;
    let at = status(State::Restoring, 1);
    assert_eq!(
        decide(Some(&order), &at, Some(&record(true, false))),
        "release"
    );
}

#[test]
fn a_published_volume_is_never_deleted() {
    let order = order(Goal::Published, 1);
    for state in [
        State::Filled,
        State::Restoring,
        State::Failed,
        State::Waiting,
    ] {
        for record in [record(true, true), record(false, true), record(true, false)] {
            assert_eq!(
                decide(Some(&order), &status(state, 1), Some(&record)),
                "let go"
            );
        }
        assert_eq!(decide(Some(&order), &status(state, 1), None), "rest");
    }
}

#[test]
fn deletion_is_for_every_state_and_once() {
    let order = order(Goal::Deleted, 1);
    for state in [
        State::Waiting,
        State::Restoring,
        State::Filled,
        State::Failed,
    ] {
        assert_eq!(decide(Some(&order), &status(state, 1), None), "delete");
        let record = record(true, true);
        assert_eq!(
            decide(Some(&order), &status(state, 1), Some(&record)),
            "delete"
        );
    }
    let record = record(false, false);
    let deleted = status(State::Deleted, 1);
    assert_eq!(decide(Some(&order), &deleted, Some(&record)), "delete");
    assert_eq!(decide(Some(&order), &deleted, None), "rest");
}

#[test]
fn of_an_order_that_is_gone_only_what_nobody_was_offered_is_deleted() {
    let known = status(State::Filled, 1);
    assert_eq!(decide(None, &known, None), "end");
    assert_eq!(
        decide(None, &known, Some(&record(true, true))),
        "abandon and keep"
    );
    assert_eq!(
        decide(None, &known, Some(&record(false, true))),
        "abandon and keep"
    );
    assert_eq!(
        decide(None, &known, Some(&record(true, false))),
        "abandon and delete"
    );
}

#[test]
fn nothing_is_touched_without_the_lease() {
    let known = status(State::Waiting, 0);
    let record = record(true, false);
    for goal in [Goal::Filled, Goal::Published, Goal::Deleted] {
        let order = order(goal, 1);
        let mut observed = Observed {
            order: Some(&order),
            status: &known,
            record: Some(&record),
            fenced: true,
            stopping: false,
        };
        assert_eq!(next(&observed), Step::Rest);
        observed.stopping = true;
        assert_eq!(next(&observed), Step::End);
        observed.fenced = false;
        assert_eq!(next(&observed), Step::End);
    }
}

#[test]
fn running_work_is_given_up_when_it_is_not_wanted_any_more() {
    let same = order(Goal::Filled, 1);
    assert!(wanted(1, Some(&same), false, false));
    assert!(!wanted(2, Some(&same), false, false), "another attempt");
    assert!(!wanted(1, Some(&order(Goal::Deleted, 1)), false, false));
    assert!(!wanted(1, Some(&order(Goal::Published, 1)), false, false));
    assert!(!wanted(1, None, false, false), "the order is gone");
    assert!(!wanted(1, Some(&same), true, false), "fenced");
    assert!(!wanted(1, Some(&same), false, true), "stopping");
}
