//! The table, row by row.

use super::*;
use archive::{SourceError, SourceErrorKind};
use std::path::PathBuf;

fn call(rpc: Rpc, code: Code) -> AttemptError {
    CallError::Answer {
        driver: "driver.example.com".into(),
        rpc,
        code,
        message: "so it is".into(),
    }
    .into()
}

fn source(kind: SourceErrorKind) -> AttemptError {
    RestoreError::from(SourceError::new(kind, "503 SlowDown")).into()
}

fn table() -> Vec<(AttemptError, &'static str, Cure)> {
    vec![
        (
            call(Rpc::CreateVolume, Code::ResourceExhausted),
            "NodeFull",
            Cure::OtherNode,
        ),
        (
            call(Rpc::CreateVolume, Code::OutOfRange),
            "SizeRefused",
            Cure::Person,
        ),
        (
            call(Rpc::CreateVolume, Code::InvalidArgument),
            "ParametersRefused",
            Cure::Person,
        ),
        (
            call(Rpc::CreateVolume, Code::AlreadyExists),
            "VolumeExists",
            Cure::Person,
        ),
        (
            call(Rpc::CreateVolume, Code::Unavailable),
            "DriverUnavailable",
            Cure::Time,
        ),
        (
            call(Rpc::CreateVolume, Code::Aborted),
            "DriverUnavailable",
            Cure::Time,
        ),
        (
            call(Rpc::CreateVolume, Code::DeadlineExceeded),
            "DriverUnavailable",
            Cure::Time,
        ),
        (
            call(Rpc::NodeStageVolume, Code::ResourceExhausted),
            "DriverUnavailable",
            Cure::Time,
        ),
        (
            call(Rpc::NodeStageVolume, Code::Internal),
            "DriverFailed",
            Cure::Time,
        ),
        (
            call(Rpc::NodePublishVolume, Code::InvalidArgument),
            "DriverRefused",
            Cure::Person,
        ),
        (
            call(Rpc::NodeStageVolume, Code::FailedPrecondition),
            "DriverRefused",
            Cure::Time,
        ),
        (
            call(Rpc::CreateVolume, Code::FailedPrecondition),
            "DriverRefused",
            Cure::Person,
        ),
        (
            MountError::NotAMount(PathBuf::from("/t")).into(),
            "MountNotVisible",
            Cure::Person,
        ),
        (
            source(SourceErrorKind::Unavailable),
            "StoreUnavailable",
            Cure::Time,
        ),
        (
            source(SourceErrorKind::Changed),
            "ArchiveChanged",
            Cure::Person,
        ),
        (source(SourceErrorKind::Denied), "ArchiveDenied", Cure::Time),
        (
            RestoreError::ArchiveTruncated {
                what: "no end".into(),
            }
            .into(),
            "ArchiveTruncated",
            Cure::Person,
        ),
        (
            AttemptError::Unfit {
                driver: "d".into(),
                unfit: Unfit::Small {
                    made: 1,
                    required: 2,
                },
            },
            "VolumeTooSmall",
            Cure::Person,
        ),
    ]
}

#[test]
fn every_failure_has_its_word_and_its_cure() {
    for (error, reason, cure) in table() {
        let failure = error.failure();
        assert_eq!(
            (failure.reason.as_str(), failure.cure),
            (reason, cure),
            "{error}"
        );
        let message = failure.message;
        assert!(
            message.contains("; ") && !message.ends_with('.'),
            "{message}"
        );
    }
}

#[test]
fn a_volume_is_kept_unless_it_is_what_failed() {
    let stage = |code| call(Rpc::NodeStageVolume, code).worth();
    for code in [Code::Unavailable, Code::Aborted, Code::DeadlineExceeded] {
        assert_eq!(stage(code), Worth::Same, "{code}");
    }
    assert_eq!(stage(Code::Internal), Worth::Doubtful);
    assert_eq!(stage(Code::NotFound), Worth::Nothing);
    assert_eq!(
        source(SourceErrorKind::Unavailable).worth(),
        Worth::Same,
        "it is the store that failed"
    );
    let truncated = RestoreError::ArchiveTruncated {
        what: "no end".into(),
    };
    assert_eq!(AttemptError::from(truncated).worth(), Worth::Same);
}

#[test]
fn cancelling_is_no_failure() {
    assert!(AttemptError::Cancelled.is_cancelled());
    assert!(AttemptError::from(RestoreError::Cancelled).is_cancelled());
    assert!(!call(Rpc::CreateVolume, Code::Cancelled).is_cancelled());
}

#[test]
fn a_volume_may_be_left_behind_unless_the_answer_is_final() {
    let left = |code| match call(Rpc::CreateVolume, code) {
        AttemptError::Call(error) => !made_nothing(&error),
        _ => unreachable!(),
    };
    assert!(left(Code::DeadlineExceeded) && left(Code::Unavailable) && left(Code::Aborted));
    assert!(left(Code::Internal) && left(Code::Unknown));
    assert!(!left(Code::ResourceExhausted) && !left(Code::InvalidArgument));
}
