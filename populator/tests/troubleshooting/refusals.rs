//! What the controller refuses, and what it is told by stores.

use jiff::Timestamp;
use populator::controller::node_secrets::{NodeSecretError, NodeSecretErrorDiscriminants};
use populator::controller::refusal::{Again, Refusal, RefusalDiscriminants};
use populator::store::{Denied, StoreError, StoreErrorDiscriminants};

use super::{LATER, ON_CHANGE, Row, complete, text};

pub fn refusals() -> Vec<Row> {
    let all = [
        refused_claims(),
        refused_secrets(),
        refused_backups(),
        refused_nodes(),
    ]
    .concat();
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
        Refusal::AgentOutdated {
            node: text("NODE"),
            what: "WHAT IS ASKED FOR",
        },
        Refusal::FileOnDevice {
            backup: text("BACKUP"),
        },
    ]
}

fn refused_secrets() -> Vec<Refusal> {
    let (secret, driver) = (|| text("NAMESPACE/SECRET"), || text("DRIVER"));
    let all = vec![
        NodeSecretError::NotFound {
            secret: secret(),
            driver: driver(),
        },
        NodeSecretError::Unreadable {
            secret: secret(),
            driver: driver(),
            why: text("WHY"),
        },
        NodeSecretError::NotText {
            secret: secret(),
            driver: driver(),
            key: text("KEY"),
        },
        NodeSecretError::TooLarge {
            driver: driver(),
            bytes: 600 << 10,
        },
    ];
    complete::<_, NodeSecretErrorDiscriminants>(&all);
    all.into_iter().map(Refusal::from).collect()
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

pub fn stores() -> Vec<Row> {
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
