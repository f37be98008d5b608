//! Reading through a signed URL, against a store that misbehaves.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

mod agent_fakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_fakes::store::{Answer, Store};
use agent_fakes::{access, archive, nearby};
use archive::{Source as _, SourceError, SourceErrorKind};
use crds::restore_order::SignedAccess;
use crds::volume_backup::ResolvedArchive;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use populator::agent::source::{Clients, Intake, Limits, SignedSource};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

const ETAG: &str = "\"pinned\"";
const SECRET: &str = "c0ffee";

struct Reading {
    store: Store,
    source: SignedSource,
    fetched: Arc<AtomicU64>,
    access: watch::Sender<SignedAccess>,
    counter: Counter,
}

fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        stall: Duration::from_millis(300),
        renewal: Duration::from_millis(500),
    }
}

async fn reading(seconds: i64) -> Reading {
    reading_at(seconds, None).await
}

async fn reading_at(seconds: i64, bandwidth: Option<u64>) -> Reading {
    reading_of(&archive(1000, ETAG), seconds, bandwidth).await
}

async fn reading_of(pinned: &ResolvedArchive, seconds: i64, bandwidth: Option<u64>) -> Reading {
    let object: Vec<u8> = (0..1000u32)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    let store = Store::start(object, ETAG).await;
    let (sender, receiver) = watch::channel(access(&store.url(SECRET), seconds));
    let counter = Counter::default();
    let clients = Arc::new(Clients::new(limits(), nearby(), bandwidth).unwrap());
    let intake = Intake::new(clients, "store", receiver, counter.clone());
    let fetched = intake.fetched();
    let source = SignedSource::new(pinned, intake).unwrap();
    Reading {
        store,
        source,
        fetched,
        access: sender,
        counter,
    }
}

async fn refused(answer: Answer) -> SourceError {
    let reading = reading(60).await;
    reading.store.script([answer]);
    let error = reading.source.read_at(100..200).await.unwrap_err();
    for text in [
        error.to_string(),
        format!("{error:?}"),
        format!("{:?}", error.kind),
    ] {
        assert!(
            !text.contains(SECRET) && !text.contains("http://"),
            "{text}"
        );
    }
    error
}

#[tokio::test]
async fn a_range_is_asked_for_by_etag() {
    let reading = reading(60).await;
    assert_eq!(reading.source.length(), 1000);
    let bytes = reading.source.read_at(250..260).await.unwrap();
    assert_eq!(&bytes[..], [250, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(reading.source.read_at(5..5).await.unwrap().is_empty());
    let asked = reading.store.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].range.as_str(), asked[0].if_match.as_str()),
        ("bytes=250-259", ETAG)
    );
    assert_eq!(asked[0].query, format!("sig={SECRET}"));
    assert_eq!(reading.fetched.load(Ordering::Relaxed), 10);
    assert_eq!(reading.counter.get(), 10);
}

#[tokio::test]
async fn each_refusal_has_its_kind() {
    let table = [
        (Answer::Refuse(412, ""), SourceErrorKind::Changed),
        (Answer::Refuse(416, ""), SourceErrorKind::Changed),
        (Answer::Etag("\"other\""), SourceErrorKind::Changed),
        (Answer::Size(999), SourceErrorKind::Changed),
        (
            Answer::Refuse(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>"),
            SourceErrorKind::Denied,
        ),
        (Answer::Refuse(401, ""), SourceErrorKind::Denied),
        (
            Answer::Refuse(404, "<Error><Code>NoSuchBucket</Code></Error>"),
            SourceErrorKind::NotFound,
        ),
        (
            Answer::Refuse(503, "<Error><Code>SlowDown</Code></Error>"),
            SourceErrorKind::Unavailable,
        ),
        (Answer::Refuse(500, ""), SourceErrorKind::Unavailable),
        (Answer::Refuse(429, ""), SourceErrorKind::Unavailable),
        (Answer::Whole, SourceErrorKind::Other),
        (Answer::Elsewhere, SourceErrorKind::Other),
        (Answer::Redirect, SourceErrorKind::Other),
        (Answer::Broken, SourceErrorKind::Unavailable),
    ];
    for (answer, kind) in table {
        let error = refused(answer.clone()).await;
        assert_eq!(error.kind, kind, "{answer:?}: {error}");
    }
    let missing = refused(Answer::Refuse(404, "<Error><Code>NoSuchKey</Code></Error>")).await;
    assert_eq!(missing.to_string(), "404 NoSuchKey");
}

#[tokio::test]
async fn a_store_that_falls_silent_is_not_waited_for() {
    let begun = Instant::now();
    let error = refused(Answer::Stall).await;
    assert_eq!(error.kind, SourceErrorKind::Unavailable, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn broken_answers_count_as_fetched() {
    let reading = reading(60).await;
    reading.store.script([Answer::Stall]);
    reading.source.read_at(0..100).await.unwrap_err();
    assert_eq!(reading.fetched.load(Ordering::Relaxed), 50);
    assert_eq!(reading.source.read_at(0..100).await.unwrap().len(), 100);
    assert_eq!(reading.fetched.load(Ordering::Relaxed), 150);
}

#[tokio::test]
async fn nobody_there_means_later() {
    let reading = reading(60).await;
    let url = format!("http://127.0.0.1:1/bucket/key?sig={SECRET}");
    reading.access.send_replace(access(&url, 60));
    let error = reading.source.read_at(0..10).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("refused") && !text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn an_expired_url_waits_for_a_new_one() {
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    // By our clock, and by the store's.
    for (seconds, answers) in [(-1, vec![]), (60, vec![Answer::Refuse(403, expired)])] {
        let reading = reading(seconds).await;
        reading.store.script(answers);
        let (url, sender) = (reading.store.url("renewed"), &reading.access);
        let renew = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.send_replace(access(&url, 60));
        };
        let (bytes, ()) = tokio::join!(reading.source.read_at(0..10), renew);
        assert_eq!(bytes.unwrap().len(), 10);
        assert_eq!(reading.store.asked().last().unwrap().query, "sig=renewed");
    }
}

#[tokio::test]
async fn an_expired_url_is_not_waited_for_forever() {
    let reading = reading(-1).await;
    let error = reading.source.read_at(0..10).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(
        reading.store.asked(),
        [],
        "an expired URL is not even tried"
    );
}

#[tokio::test]
async fn a_denied_url_is_tried_again_only_if_there_is_a_newer_one() {
    let reading = reading(60).await;
    reading.store.script([Answer::Refuse(403, "")]);
    let denied = reading.source.read_at(0..10).await.unwrap_err();
    assert_eq!(denied.kind, SourceErrorKind::Denied);
    assert_eq!(reading.store.asked().len(), 1);

    reading.store.script([Answer::Late(403)]);
    let (bytes, ()) = tokio::join!(reading.source.read_at(0..10), async {
        agent_fakes::until(|| reading.store.asked().len() == 2).await;
        let url = reading.store.url("renewed");
        reading.access.send_replace(access(&url, 60));
    });
    assert_eq!(bytes.unwrap().len(), 10);
    assert_eq!(reading.store.asked().last().unwrap().query, "sig=renewed");
}

#[tokio::test]
async fn no_more_is_read_than_a_node_or_a_store_may() {
    let begun = Instant::now();
    let free = reading(600).await;
    free.source.read_at(0..1000).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(400));

    let slow_node = reading_at(600, Some(2000)).await;
    let begun = Instant::now();
    slow_node.source.read_at(0..1000).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));

    let slow_store = reading(600).await;
    slow_store
        .access
        .send_modify(|access| access.bytes_per_second = Some(2000));
    let begun = Instant::now();
    let (one, two) = tokio::join!(
        slow_store.source.read_at(0..1000),
        slow_store.source.read_at(0..1000)
    );
    assert_eq!(one.unwrap(), two.unwrap());
    assert!(
        begun.elapsed() >= Duration::from_millis(1000),
        "they share it"
    );
}

/// What was written then, on a server that has no ETags.
fn dated() -> ResolvedArchive {
    let written: Timestamp = "2025-01-01T10:00:00Z".parse().unwrap();
    ResolvedArchive {
        url: "https://web.example.com/k.tar".into(),
        size: 1000,
        last_modified: Some(Time(written)),
        ..ResolvedArchive::default()
    }
}

#[tokio::test]
async fn what_has_no_etag_is_told_by_when_it_was_written() {
    let reading = reading_of(&dated(), 60, None).await;
    let written = "Wed, 01 Jan 2025 10:00:00 GMT";
    reading.store.script([Answer::Written(written)]);
    assert_eq!(reading.source.read_at(0..10).await.unwrap().len(), 10);
    let asked = reading.store.asked();
    assert_eq!(asked[0].if_unmodified_since, written);
    assert_eq!(asked[0].if_match, "");
    let later = "Wed, 01 Jan 2025 10:00:01 GMT";
    for (answer, kind) in [
        (Answer::Written(later), SourceErrorKind::Changed),
        (Answer::Refuse(412, ""), SourceErrorKind::Changed),
        // It does not say.
        (Answer::Range, SourceErrorKind::Other),
    ] {
        reading.store.script([answer.clone()]);
        let error = reading.source.read_at(0..10).await.unwrap_err();
        assert_eq!(error.kind, kind, "{answer:?}: {error}");
    }
    let mut another = dated();
    another.last_modified = Some(Time(later_by_a_second(&another)));
    let other = reading_of(&another, 60, None).await;
    assert!(reading.source.identity().is_some());
    assert_ne!(reading.source.identity(), other.source.identity());
}

fn later_by_a_second(archive: &ResolvedArchive) -> Timestamp {
    let written = archive.last_modified.as_ref().unwrap().0;
    written + jiff::SignedDuration::from_secs(1)
}

#[tokio::test]
async fn what_somebody_else_signed_is_not_waited_for() {
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    for body in [
        expired,
        "",
        "<Error><Code>SignatureDoesNotMatch</Code></Error>",
    ] {
        let mut given = archive(1000, ETAG);
        given.url = "https://web.example.com/k.tar".into();
        let reading = reading_of(&given, 60, None).await;
        reading.store.script([Answer::Refuse(403, body)]);
        let begun = Instant::now();
        let error = reading.source.read_at(0..10).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Other, "{error}");
        assert!(error.message.contains("the signed URL"), "{error}");
        assert!(begun.elapsed() < limits().renewal);
    }
}

#[tokio::test]
async fn what_nothing_tells_from_others_is_not_read() {
    let mut nameless = dated();
    nameless.last_modified = None;
    let store = Store::start(Vec::new(), ETAG).await;
    let (_sender, receiver) = watch::channel(access(&store.url(SECRET), 60));
    let clients = Arc::new(Clients::new(limits(), nearby(), None).unwrap());
    let intake = Intake::new(clients, "store", receiver, Counter::default());
    assert!(SignedSource::new(&nameless, intake).is_none());
}
