//! `docs/troubleshooting.md` has every reason that a restore may be told to wait or to be over for, in the
//! words of the types that say it. `DOCS_WRITE=1` writes it anew.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use archive::source::{SourceError, SourceErrorKind};
use archive::{RestoreError, Verified};
use crds::restore_order::Cure;
use jiff::Timestamp;
use populator::agent::failure::{AttemptError, AttemptErrorDiscriminants};
use populator::agent::mount::MountError;
use populator::agent::plugin::{CallError, Rpc};
use populator::agent::record::RecordError;
use populator::agent::registry::DriverError;
use populator::agent::volume::Unfit;
use populator::choices::ChoiceError;
use populator::controller::ending::{
    Ending, EndingDiscriminants, Hindrance, HindranceDiscriminants, Sidecar,
};
use populator::controller::prime;
use populator::controller::refusal::{Again, Refusal, RefusalDiscriminants};
use populator::controller::report;
use populator::store::{Denied, StoreError, StoreErrorDiscriminants};
use rustix::io::Errno;
use tonic::Code;

/// One reason.
struct Row {
    reason: String,
    words: String,
    then: &'static str,
}

const MENDED: &str = "over; tried again when the VolumeBackup is changed or the PVC annotated";

/// What a PVC asks for cannot be changed.
const OF_THE_CLAIM: &str = "over; delete the PVC and make it again";
const BY_ITSELF: &str = "tried again by itself, after longer and longer pauses";
const ON_CHANGE: &str = "goes on when what it names is changed";
const LATER: &str = "goes on when what it names is changed; looked at again by itself too";

#[tokio::test]
async fn every_reason_is_on_its_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let page = page().await;
    if std::env::var_os("DOCS_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/troubleshooting.md is stale: run `make docs`"
    );
}

async fn page() -> String {
    let mut page = String::from(
        "# Why a restore waits, or is over\n\n\
         <!-- Made by `make docs` from the program's own types; do not edit. -->\n\n\
         `kubectl describe pvc NAME` shows it as a Warning, `kubectl describe volumerestore NAME` as the\n\
         condition `Ready`, both in the same words, of which one in CamelCase is the reason. No volume is\n\
         bound before it is complete, and what was written of one that is over is deleted. In capitals stands\n\
         what differs from case to case.\n\n\
         To have one that is over tried again, change the VolumeBackup, or annotate the PVC:\n\
         `kubectl annotate --overwrite pvc NAME backup.example.com/retry=$(date +%s)`\n",
    );
    let sections = [
        (
            "Before there is a volume",
            "Found by the controller.",
            refusals(),
        ),
        (
            "The store",
            "Found by the controller when it looks at the archive.",
            stores(),
        ),
        (
            "The archive and the volume",
            "Found by the agent on the node while it restores; `populator restore` and `verify` say the \
             same.",
            restores(),
        ),
        (
            "The node and its CSI driver",
            "Found by the agent.",
            attempts().await,
        ),
        ("In the end", "Found by the controller.", endings()),
        ("On the way", "Found by the controller.", hindrances()),
    ];
    for (title, who, rows) in sections {
        write!(page, "\n## {title}\n\n{who}\n\n").unwrap();
        page.push_str("| reason | what is said, and what to do | then |\n|---|---|---|\n");
        for row in rows {
            let words = row.words.replace('|', "\\|").replace(['<', '>'], "");
            writeln!(page, "| `{}` | {words} | {} |", row.reason, row.then).unwrap();
        }
    }
    page
}

/// That each kind is there once at least.
fn complete<E, D: From<E> + Eq + std::hash::Hash + std::fmt::Debug + strum::IntoEnumIterator>(
    given: impl IntoIterator<Item = E>,
) {
    let given: HashSet<D> = given.into_iter().map(D::from).collect();
    let missing: Vec<D> = D::iter().filter(|kind| !given.contains(kind)).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

fn text(word: &str) -> String {
    word.to_owned()
}

fn refusals() -> Vec<Row> {
    let all = [refused_claims(), refused_backups(), refused_nodes()].concat();
    complete::<_, RefusalDiscriminants>(&all);
    let rows = all.iter().filter(|it| !matches!(it, Refusal::Store(_)));
    rows.map(of_refusal).collect()
}

fn refused_claims() -> Vec<Refusal> {
    let class = || text("CLASS");
    vec![
        Refusal::CrossNamespaceOff {
            namespace: text("NAMESPACE"),
        },
        Refusal::NoGrants {
            namespace: text("NAMESPACE"),
        },
        Refusal::NotGranted {
            backup: text("BACKUP"),
            namespace: text("NAMESPACE"),
            from: text("PVC'S NAMESPACE"),
        },
        Refusal::Selector,
        Refusal::AttributesClass,
        Refusal::Priority {
            value: text("VALUE"),
        },
        Refusal::Size,
        Refusal::NoClass,
        Refusal::ClassNotFound { class: class() },
        Refusal::NotCsi {
            class: class(),
            provisioner: text("PROVISIONER"),
        },
        Refusal::DriverWishes {
            driver: text("DRIVER"),
            wish: "WISH",
        },
        Refusal::ClassTemplates {
            class: class(),
            parameter: text("PARAMETER"),
        },
        Refusal::ClassSecrets {
            class: class(),
            parameter: text("PARAMETER"),
        },
        Refusal::ClassTopologies { class: class() },
    ]
}

fn refused_backups() -> Vec<Refusal> {
    let (backup, namespace) = (|| text("BACKUP"), || text("NAMESPACE"));
    let (store, secret, url) = (|| text("STORE"), || text("SECRET"), || text("URL"));
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    vec![
        Refusal::BackupNotFound {
            backup: backup(),
            namespace: namespace(),
        },
        Refusal::BackupInvalid {
            backup: backup(),
            why: text("WHY"),
        },
        Refusal::StoreNotMatched {
            url: url(),
            namespace: namespace(),
        },
        Refusal::StoreNotFound {
            store: store(),
            namespace: namespace(),
        },
        Refusal::StoreElsewhere {
            store: store(),
            prefix: text("PREFIX"),
            url: url(),
        },
        Refusal::SecretNotFound {
            secret: secret(),
            store: store(),
            namespace: namespace(),
            keys: "KEYS",
        },
        Refusal::AmbientDenied {
            store: store(),
            namespace: namespace(),
        },
        Refusal::AmbientElsewhere { store: store() },
        Refusal::SecretIncomplete {
            secret: secret(),
            store: store(),
            key: "KEY",
        },
        Refusal::SecretUnreadable {
            secret: secret(),
            store: store(),
            why: text("WHY"),
        },
        // Has a section of its own.
        Refusal::Store(StoreError::Url { url: url() }),
        Refusal::TooNew {
            what: text("the oldest version of URL"),
            time: time("2025-02-01T00:00:00Z"),
            restore_point: time("2025-01-01T10:00:00Z"),
        },
        Refusal::DeletedThen {
            url: url(),
            deleted: time("2024-12-01T00:00:00Z"),
            restore_point: time("2025-01-01T10:00:00Z"),
        },
        Refusal::ListingBusy { url: url() },
        Refusal::NoArchive {
            url: url(),
            others: 7,
        },
        Refusal::AboutFiles {
            backup: backup(),
            field: "FIELD",
        },
    ]
}

fn refused_nodes() -> Vec<Refusal> {
    let driver = || text("DRIVER");
    vec![
        Refusal::DoesNotFit {
            size: 3 << 30,
            required: 1 << 30,
        },
        Refusal::NoAgentOnNode {
            node: text("NODE"),
            driver: driver(),
        },
        Refusal::NoAgent { driver: driver() },
        Refusal::NoRoom {
            driver: driver(),
            required: 1 << 30,
        },
    ]
}

fn of_refusal(refusal: &Refusal) -> Row {
    Row {
        reason: refusal.reason().to_owned(),
        words: refusal.to_string(),
        then: match refusal.again() {
            Again::OnChange => ON_CHANGE,
            Again::Later => LATER,
        },
    }
}

fn stores() -> Vec<Row> {
    let (url, server, code) = (|| text("URL"), || text("SERVER"), || text("CODE"));
    let bucket = || text("BUCKET");
    let all = vec![
        StoreError::Url { url: url() },
        StoreError::NoListing { url: url() },
        StoreError::FilesDisabled { url: url() },
        StoreError::FileDenied { url: url() },
        StoreError::NotAFile { url: url() },
        StoreError::AmbientMissing { url: url() },
        StoreError::UrlDenied {
            url: url(),
            server: server(),
            code: code(),
        },
        StoreError::Redirected {
            url: url(),
            server: server(),
        },
        StoreError::ListingDenied {
            url: url(),
            code: code(),
            permission: "s3:ListBucket",
        },
        StoreError::CaBundle,
        StoreError::AddressDenied {
            server: server(),
            denied: Denied([169, 254, 169, 254].into()),
        },
        StoreError::TooMany {
            url: url(),
            most: 1_000_000,
        },
        StoreError::Endpoint {
            endpoint: text("ENDPOINT"),
        },
        StoreError::Signing {
            url: url(),
            why: text("WHY"),
        },
        StoreError::Unreachable {
            server: server(),
            why: "WHY",
        },
        StoreError::Tls { server: server() },
        StoreError::Unavailable {
            server: server(),
            code: code(),
        },
        StoreError::NoBucket {
            bucket: bucket(),
            server: server(),
        },
        StoreError::NoObject {
            url: url(),
            server: server(),
        },
        StoreError::Credentials {
            server: server(),
            code: code(),
        },
        StoreError::Denied {
            url: url(),
            code: code(),
            permission: "PERMISSION",
        },
        StoreError::Region {
            bucket: bucket(),
            server: server(),
            code: code(),
        },
        StoreError::Clock { server: server() },
        StoreError::NoRanges { server: server() },
        StoreError::NoEtag {
            url: url(),
            server: server(),
        },
        StoreError::Answer {
            server: server(),
            code: code(),
        },
        StoreError::Empty { url: url() },
    ];
    complete::<_, StoreErrorDiscriminants>(&all);
    let refusals = all.into_iter().map(Refusal::from);
    refusals.map(|it| of_refusal(&it)).collect()
}

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

fn restores() -> Vec<Row> {
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

async fn attempts() -> Vec<Row> {
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
    // Whatever a driver may answer, one of each reason.
    let mut reasons = HashSet::new();
    for rpc in [Rpc::CreateVolume, Rpc::NodeStageVolume] {
        for code in (1..=16).map(Code::from_i32) {
            let error = AttemptError::from(CallError::Answer {
                driver: driver(),
                rpc,
                code,
                message: text("WHAT THE DRIVER SAID"),
            });
            if reasons.insert(error.failure().reason) {
                all.push(error);
            }
        }
    }
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

fn endings() -> Vec<Row> {
    let all = vec![
        Ending::BoundElsewhere {
            volume: text("VOLUME"),
            backup: text("BACKUP"),
        },
        Ending::VolumeNameTaken,
        Ending::VolumeLost {
            volume: text("VOLUME"),
        },
        unfillable(prime::Unfit::Found),
        unfillable(prime::Unfit::OtherDriver),
        unfillable(prime::Unfit::Secrets),
        Ending::VolumeTooSmall {
            driver: text("DRIVER"),
            made: 1 << 20,
            required: 1 << 30,
        },
        Ending::AnswerInvalid,
        Ending::AttemptsSpent {
            attempts: 5,
            last: text("WHY"),
        },
        Ending::DeadlinePassed {
            seconds: 3600,
            last: None,
        },
        Ending::BudgetSpent {
            attempts: 9,
            fetched: 4 << 30,
            size: 1 << 30,
            last: text("WHY"),
        },
    ];
    complete::<_, EndingDiscriminants>(&all);
    let row = |it: &Ending| Row {
        reason: it.reason().to_owned(),
        words: it.to_string(),
        then: match it {
            Ending::BoundElsewhere { .. } => "over",
            _ if report::is_of_the_claim(it.reason()) => OF_THE_CLAIM,
            _ => MENDED,
        },
    };
    all.iter().map(row).collect()
}

fn unfillable(unfit: prime::Unfit) -> Ending {
    Ending::Unfillable {
        volume: text("VOLUME"),
        unfit,
    }
}

fn hindrances() -> Vec<Row> {
    let driver = || text("DRIVER");
    let said = || text("WHAT IT SAYS");
    let all = vec![
        Hindrance::Refused { why: text("WHY") },
        Hindrance::Complaint {
            sidecar: Sidecar::Provisioner,
            driver: driver(),
            said: said(),
        },
        Hindrance::Complaint {
            sidecar: Sidecar::Attacher,
            driver: driver(),
            said: said(),
        },
        Hindrance::Silent {
            sidecar: Sidecar::Provisioner,
            driver: driver(),
            seconds: 60,
        },
        Hindrance::Detached,
        Hindrance::NodeFull {
            driver: driver(),
            node: text("NODE"),
        },
        Hindrance::AgentSilent { node: text("NODE") },
    ];
    complete::<_, HindranceDiscriminants>(&all);
    let row = |it: &Hindrance| Row {
        reason: it.reason().to_owned(),
        words: it.to_string(),
        then: BY_ITSELF,
    };
    all.iter().map(row).collect()
}
