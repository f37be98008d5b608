//! What attempts of an agent end with.

use std::collections::HashSet;
use std::path::PathBuf;

use archive::source::{SourceError, SourceErrorKind};
use archive::{RestoreError, Verified};
use crds::restore_order::Cure;
use populator::agent::failure::{AttemptError, AttemptErrorDiscriminants};
use populator::agent::mount::MountError;
use populator::agent::plugin::{CallError, Rpc};
use populator::agent::record::RecordError;
use populator::agent::registry::DriverError;
use populator::agent::volume::Unfit;
use populator::choices::ChoiceError;
use populator::controller::report;
use populator::seal::SealError;
use rustix::io::Errno;
use tonic::Code;

use super::{BY_ITSELF, MENDED, OF_THE_CLAIM, Row, complete, text};

fn of_attempt(error: &AttemptError) -> Row {
    let failure = error.failure();
    let words = match error {
        // It has the number of a task.
        AttemptError::Died(why) => failure.message.replace(&why.to_string(), "WHY"),
        _ => failure.message,
    };
    let reason = failure.reason;
    Row {
        reason: reason.clone(),
        words,
        then: match failure.cure {
            Cure::Person if report::is_of_the_claim(&reason) => OF_THE_CLAIM,
            Cure::Person => MENDED,
            Cure::Time => BY_ITSELF,
            Cure::OtherNode => {
                "the restore moves to another node, where the class waits for a consumer"
            }
        },
    }
}

pub fn restores() -> Vec<Row> {
    let source = |kind| SourceError::new(kind, "WHAT THE STORE SAID");
    let lost = serde_json::json!({"KIND": {"count": 3, "examples": ["NAME"]}});
    let all = vec![
        RestoreError::NotAnArchive {
            found: text("WHAT IT LOOKS LIKE"),
        },
        RestoreError::NotAnImage {
            found: text("WHAT IT LOOKS LIKE"),
        },
        RestoreError::IdentityMissing {
            needed: "an identity of one of its recipients",
        },
        RestoreError::IdentityWrong,
        RestoreError::WorkFactorTooHigh {
            factor: 22,
            limit: 18,
        },
        RestoreError::ArchiveEmpty { found: "WHAT" },
        RestoreError::ArchiveTruncated {
            what: text("WHERE"),
        },
        RestoreError::ArchiveCorrupt {
            what: text("WHERE"),
        },
        RestoreError::ChecksumMismatch {
            found: text("DIGEST"),
            expected: text("DIGEST"),
        },
        RestoreError::Unverified {
            found: Verified::None,
            required: Verified::Stream,
        },
        RestoreError::WindowTooLarge {
            window: 1 << 31,
            limit: archive::WINDOW_MAX,
        },
        RestoreError::DoesNotFit {
            what: text("WHAT"),
            source: Errno::NOSPC,
        },
        RestoreError::ArchiveChanged(source(SourceErrorKind::Changed)),
        RestoreError::ArchiveDenied(source(SourceErrorKind::Denied)),
        RestoreError::ArchiveMissing(source(SourceErrorKind::NotFound)),
        RestoreError::StoreUnavailable(source(SourceErrorKind::Unavailable)),
        RestoreError::StoreRefused(source(SourceErrorKind::Other)),
        RestoreError::EntryRefused {
            entry: text("ENTRY"),
            why: text("WHY, AND WHAT TO DO"),
        },
        RestoreError::LimitExceeded {
            what: "entries",
            limit: 1_000_000,
        },
        RestoreError::NothingSelected { entries: 1000 },
        RestoreError::MetadataLost {
            lost: serde_json::from_value(lost).unwrap(),
        },
        RestoreError::VolumeNotEmpty { name: text("NAME") },
        RestoreError::VolumeError {
            what: text("WHAT"),
            source: Errno::IO,
        },
        RestoreError::NodeError { what: text("WHAT") },
        RestoreError::Cancelled,
    ];
    complete::<_, archive::RestoreErrorDiscriminants>(&all);
    let rows = all.into_iter().map(AttemptError::from);
    let told = rows.filter(|it| !it.is_cancelled());
    told.map(|it| of_attempt(&it)).collect()
}

pub async fn attempts() -> Vec<Row> {
    let driver = || text("DRIVER");
    let path = || PathBuf::from("PATH");
    let died = tokio::spawn(std::future::pending::<()>());
    died.abort();
    let mut all = vec![
        AttemptError::Cancelled,
        CallError::from(DriverError::NotRegistered {
            name: driver(),
            registry: path(),
        })
        .into(),
    ];
    // Whatever a driver may answer, one of each reason and cure.
    let mut reasons = HashSet::new();
    for rpc in [Rpc::CreateVolume, Rpc::NodeStageVolume] {
        for code in (1..=16).map(Code::from_i32) {
            let error = AttemptError::from(CallError::Answer {
                driver: driver(),
                rpc,
                code,
                message: text("WHAT THE DRIVER SAID"),
            });
            let failure = error.failure();
            if reasons.insert((failure.reason, format!("{:?}", failure.cure))) {
                all.push(error);
            }
        }
    }
    all.push(AttemptError::Interrupted { times: 3 });
    all.push(AttemptError::NoController { driver: driver() });
    let unfit = [
        Unfit::Nameless,
        Unfit::Small {
            made: 1 << 20,
            required: 1 << 30,
        },
        Unfit::Large {
            made: 1 << 30,
            limit: 1 << 20,
        },
        Unfit::Elsewhere,
    ];
    all.extend(unfit.map(|unfit| AttemptError::Unfit {
        driver: driver(),
        unfit,
    }));
    let mounts = [
        MountError::NotAMount(path()),
        MountError::NotADevice(path()),
        MountError::KernelTooOld,
        MountError::Look {
            path: path(),
            source: Errno::IO,
        },
    ];
    all.extend(mounts.map(AttemptError::from));
    all.push(AttemptError::Emptying(
        std::io::ErrorKind::ReadOnlyFilesystem.into(),
    ));
    all.push(
        RecordError {
            what: "writing",
            path: path(),
            source: std::io::ErrorKind::StorageFull.into(),
        }
        .into(),
    );
    all.push(AttemptError::Order("WHAT IS WRONG WITH IT"));
    all.push(AttemptError::NoFiles);
    all.push(AttemptError::Sealed(SealError::Closed));
    all.push(AttemptError::Keys(CallError::Answer {
        driver: driver(),
        rpc: Rpc::NodeStageVolume,
        code: Code::Unauthenticated,
        message: text("WHAT THE DRIVER SAID"),
    }));
    all.push(
        ChoiceError::Value {
            field: "FIELD",
            value: text("VALUE"),
            example: "EXAMPLE",
        }
        .into(),
    );
    // Has a section of its own.
    all.push(RestoreError::Cancelled.into());
    all.push(died.await.unwrap_err().into());
    complete::<_, AttemptErrorDiscriminants>(&all);
    let told = all.iter().filter(|it| !it.is_cancelled());
    told.map(of_attempt).collect()
}
