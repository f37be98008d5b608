//! From an order to a filled volume and back, with a CSI driver that really mounts. As root.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

mod agent_fakes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_fakes::bench::{Bench, ETAG, MIB};
use agent_fakes::driver::{self, Driver, Fault};
use agent_fakes::store::{Answer, Asked};
use crds::restore_order::{Cure, NodeSecrets, Prime, Provisioned, State};
use csi::v1::volume_capability::access_mode::Mode;
use populator::agent::node::Resumption;
use populator::agent::record::{Made, Record};
use populator::agent::registry::Drivers;
use populator::agent::teardown;
use populator::seal::{self, Contents, Key};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The calls of an attempt that goes as it should.
const GOOD: [&str; 5] = [
    "CreateVolume",
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
];

fn content(volume: &Path) -> (String, u64) {
    let hello = std::fs::read_to_string(volume.join("folder/hello")).unwrap();
    (
        hello,
        std::fs::metadata(volume.join("folder/large"))
            .unwrap()
            .len(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_filled_and_left() {
    let mut bench = Bench::new(Fault::None).await;
    bench.fill().await.unwrap();
    bench.assert_clean();
    assert_eq!(bench.driver.calls(), GOOD);
    assert_eq!(bench.driver.handles(), ["handle-1"]);
    let volume = bench.driver.volume("handle-1");
    assert_eq!(content(&volume), ("hello\n".to_owned(), 300_000));

    let request = &bench.driver.created()[0];
    assert_eq!(request.name, "pvc-claim-uid");
    assert_eq!(request.parameters["pool"], "fast");
    assert!(request.accessibility_requirements.is_some());

    let record = bench.record.unwrap();
    assert!(!record.mounted);
    let filled = record.filled.unwrap();
    assert_eq!(record.made, Made::Yes(filled.volume.clone()));
    assert_eq!(filled.volume.handle, "handle-1");
    assert_eq!(filled.volume.capacity_bytes, 1 << 20);
    assert_eq!(filled.volume.context["key"], "value");
    assert_eq!(filled.volume.topology[0]["node"], "node");
    let size = bench.order.spec.archive.size;
    let result = filled.result;
    assert_eq!((result.format.as_str(), result.entries), ("tar", 3));
    assert_eq!(
        (result.bytes_written, result.bytes_fetched),
        (300_006, size + 7)
    );
    assert_eq!(result.verified, "None");
    let status = bench.status.borrow().clone();
    assert_eq!(status.state, State::Restoring);
    let progress = status.progress.unwrap();
    assert_eq!((progress.percent, progress.bytes_total), (100, size));
    assert_eq!(status.volume.unwrap().handle, "handle-1");
    assert!(
        bench
            .store
            .asked()
            .iter()
            .all(|asked| asked.if_match == ETAG)
    );
    assert_eq!(bench.node.metrics.written.get(), 300_006);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_node_are_told_apart_where_the_driver_can() {
    for (fault, mode) in [
        (Fault::None, Mode::SingleNodeMultiWriter),
        (Fault::Old, Mode::SingleNodeWriter),
    ] {
        let mut bench = Bench::new(fault).await;
        bench.fill().await.unwrap();
        let asked = bench.driver.created()[0].volume_capabilities.clone();
        let uses = [asked, bench.driver.uses()].concat();
        let modes: Vec<_> = uses
            .into_iter()
            .map(|capability| capability.access_mode.unwrap().mode())
            .collect();
        assert_eq!(modes, [mode; 3], "CreateVolume, stage, publish");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_where_nothing_is_mounted() {
    let mut bench = Bench::new(Fault::Lies).await;
    let (reason, cure) = bench.failure().await;
    assert_eq!((reason.as_str(), cure), ("MountNotVisible", Cure::Person));
    bench.assert_clean();
    assert_eq!(bench.driver.calls(), GOOD, "it is unpublished all the same");
    assert_eq!(bench.store.asked(), [], "not a byte was fetched");
    let record = bench.record.as_mut().unwrap();
    teardown::delete(&bench.node, record, None).await.unwrap();
    assert_eq!(bench.driver.handles(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_volume_of_ours_is_refused() {
    for (fault, expected) in [
        (Fault::Small, "VolumeTooSmall"),
        (Fault::Elsewhere, "VolumeElsewhere"),
        (Fault::NodeOnly, "DriverUnsupported"),
    ] {
        let mut bench = Bench::new(fault).await;
        let (reason, cure) = bench.failure().await;
        assert_eq!((reason.as_str(), cure), (expected, Cure::Person));
        assert!(!bench.driver.calls().contains(&"NodeStageVolume"));
        assert_eq!(driver::mounts(bench.work.path()), Vec::<String>::new());
        let made = usize::from(fault != Fault::NodeOnly);
        assert_eq!(bench.driver.handles().len(), made);
        assert_eq!(bench.record.is_some(), made == 1, "it can be deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_leaves_nothing_to_delete() {
    let mut bench = Bench::new(Fault::None).await;
    bench
        .driver
        .fail("CreateVolume", [Status::resource_exhausted("full")]);
    let (reason, cure) = bench.failure().await;
    assert_eq!((reason.as_str(), cure), ("NodeFull", Cure::OtherNode));
    let record = bench.record.as_mut().unwrap();
    assert_eq!(record.made, Made::No);
    teardown::release(&bench.node, record).await.unwrap();
    teardown::delete(&bench.node, record, None).await.unwrap();
    assert_eq!(bench.driver.calls(), ["CreateVolume"]);
    teardown::forget(&bench.node, &mut bench.record).unwrap();
    assert_eq!(std::fs::read_dir(bench.work.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_restarts_is_waited_for() {
    let mut bench = Bench::new(Fault::None).await;
    let away = || Status::unavailable("away");
    bench
        .driver
        .fail("CreateVolume", [away(), Status::aborted("busy"), away()]);
    bench.driver.fail(
        "NodeUnstageVolume",
        [away(), Status::internal("busy"), away()],
    );
    bench.fill().await.unwrap();
    bench.assert_clean();
    let calls = bench.driver.calls();
    assert_eq!(
        calls.iter().filter(|call| **call == "CreateVolume").count(),
        4
    );
    assert_eq!(bench.driver.handles(), ["handle-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_stays_away_is_a_matter_of_time() {
    let mut bench = Bench::new(Fault::None).await;
    bench
        .driver
        .fail("CreateVolume", vec![Status::unavailable("away"); 1000]);
    let begun = Instant::now();
    let (reason, cure) = bench.failure().await;
    assert_eq!((reason.as_str(), cure), ("DriverUnavailable", Cure::Time));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.record.as_ref().unwrap().made, Made::Perhaps);

    let mut absent = Bench::new(Fault::None).await;
    absent.order.spec.volume.driver = "absent.example.com".into();
    let (reason, cure) = absent.failure().await;
    assert_eq!((reason.as_str(), cure), ("DriverAway", Cure::Time));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_unknown_handle_is_found_and_deleted() {
    let mut bench = Bench::new(Fault::None).await;
    // The answer was lost with the process.
    let mut record = Record::new(&bench.order);
    bench.node.records.save(&record).unwrap();
    teardown::delete(&bench.node, &mut record, None)
        .await
        .unwrap();
    assert_eq!(bench.driver.calls(), ["CreateVolume", "DeleteVolume"]);
    assert_eq!(bench.driver.handles(), Vec::<String>::new());
    assert_eq!(record.made, Made::No);

    // A new attempt takes the same volume, which nobody has written to.
    bench.record = Some(Record::new(&bench.order));
    bench.fill().await.unwrap();
    assert_eq!(bench.driver.calls()[2..], GOOD);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_begins_with_what_the_last_one_left() {
    let mut bench = Bench::sized(Fault::None, MIB, 4 << 20).await;
    let failure = bench.fill().await.unwrap_err().failure();
    assert_eq!(
        (failure.reason.as_str(), failure.cure),
        ("DoesNotFit", Cure::Person)
    );
    assert!(
        failure.message.contains("larger volume"),
        "{}",
        failure.message
    );
    bench.assert_clean();
    assert_eq!(
        bench.driver.handles(),
        ["handle-1"],
        "it stays until the next attempt"
    );

    // A process that died in the middle leaves it mounted; the next one has only the record.
    let record = bench.record.as_mut().unwrap();
    record.mounted = true;
    bench.node.records.save(record).unwrap();
    let (stage, target) = (
        bench.node.records.stage("order-uid"),
        bench.node.records.target("order-uid"),
    );
    for path in [&stage, &target] {
        std::fs::create_dir(path).unwrap();
        rustix::mount::mount_bind(bench.driver.volume("handle-1"), path).unwrap();
    }
    bench.record = bench.node.records.load().unwrap().pop();
    bench.fill().await.unwrap_err();
    bench.assert_clean();
    let again = [
        "NodeUnpublishVolume",
        "NodeUnstageVolume",
        "DeleteVolume",
        "CreateVolume",
    ];
    assert_eq!(bench.driver.calls()[5..9], again);
    assert_eq!(bench.driver.handles(), ["handle-2"]);
}

/// An archive of 24 MiB, of which a checkpoint is taken every MiB, and an attempt that lost the store after
/// the first 16 MiB.
async fn interrupted() -> Bench {
    let mut bench = Bench::sized(Fault::None, 64 * MIB, 24 << 20).await;
    bench.node.resumption = Resumption {
        from: MIB,
        bytes: MIB,
        ..Resumption::default()
    };
    bench.node.options.fetching.attempts = 2;
    bench.node.options.fetching.pause = Duration::from_millis(10);
    bench.store.script([Answer::Range]);
    bench.store.always(Answer::Refuse(503, ""));
    let (reason, cure) = bench.failure().await;
    assert_eq!((reason.as_str(), cure), ("StoreUnavailable", Cure::Time));
    assert_eq!(driver::mounts(bench.work.path()), Vec::<String>::new());
    assert!(bench.node.records.state("order-uid").is_dir());
    bench.store.always(Answer::Range);
    bench
}

/// Where the request begins.
fn begin(asked: &Asked) -> u64 {
    let range = asked.range.strip_prefix("bytes=").unwrap();
    range.split_once('-').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_goes_on_from_the_checkpoint_of_the_last_one() {
    let mut bench = interrupted().await;
    let before = bench.store.asked().len();
    bench.fill().await.unwrap();
    bench.assert_clean();
    assert_eq!(
        bench.driver.handles(),
        ["handle-1"],
        "it is the same volume"
    );
    assert!(!bench.driver.calls().contains(&"DeleteVolume"));
    let asked = bench.store.asked();
    let begin = asked[before..].iter().map(begin).min().unwrap();
    assert!(begin > 8 * MIB, "fetched from {begin} again");
    let large = bench.driver.volume("handle-1").join("folder/large");
    let expected = (0..24 << 20).map(|index| u8::try_from(index % 251).unwrap());
    assert!(std::fs::read(large).unwrap().into_iter().eq(expected));
    let result = bench.record.unwrap().filled.unwrap().result;
    assert_eq!(result.bytes_written, (24 << 20) + 6);
    assert!(
        (0..8 << 20).contains(&result.bytes_fetched_again),
        "{result:?}"
    );
    let written = bench.node.metrics.written.get();
    let once = (24 << 20) + 6;
    assert!((once..once + (9 << 20)).contains(&written), "{written}");
}

/// A volume that others have made for the order, and an earlier attempt has written to.
async fn given() -> Bench {
    let mut bench = interrupted().await;
    let made = bench.status.borrow().volume.clone().unwrap();
    bench.order.spec.prime = Some(Prime::default());
    bench.order.spec.provisioned = Some(Provisioned {
        volume: made.clone(),
        ..Provisioned::default()
    });
    bench.record = Some(Record::recovered(&bench.order, Some(&made)));
    bench.node.records.remove_state("order-uid").unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_were_sealed_for_this_agent_reach_the_driver() {
    let mut bench = given().await;
    let text = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let contents = Contents {
        stage: text("userKey", "s"),
        publish: text("token", "p"),
    };
    let seal_for = |bench: &mut Bench, key: &Key| {
        let sealed = seal::seal(&key.public(), &contents).unwrap();
        bench.order.spec.provisioned.as_mut().unwrap().secrets = Some(NodeSecrets {
            sealed,
            ..NodeSecrets::default()
        });
    };
    seal_for(&mut bench, &Key::generate());
    let before = bench.driver.calls().len();
    let failed = bench.failure().await;
    assert_eq!(failed, ("SecretsUnreadable".to_owned(), Cure::Time));
    let calls = bench.driver.calls().split_off(before);
    assert!(!calls.contains(&"NodeStageVolume"), "{calls:?}");

    let key = bench.node.key.clone();
    seal_for(&mut bench, &key);
    bench.fill().await.unwrap();
    let [.., stage, publish] = &bench.driver.secrets()[..] else {
        panic!("it was not called");
    };
    assert_eq!((&stage["userKey"][..], stage.len()), ("s", 1));
    assert_eq!((&publish["token"][..], publish.len()), ("p", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_volume_is_emptied_and_neither_made_nor_deleted() {
    let mut bench = given().await;
    let volume = bench.driver.volume("handle-1");
    std::fs::write(volume.join("left"), "by an earlier attempt").unwrap();
    let before = bench.driver.calls().len();
    bench.fill().await.unwrap();
    bench.assert_clean();
    assert_eq!(bench.driver.handles(), ["handle-1"]);
    let calls = bench.driver.calls().split_off(before);
    for call in ["CreateVolume", "DeleteVolume"] {
        assert!(!calls.contains(&call), "{calls:?}");
    }
    assert_eq!(content(&volume), ("hello\n".to_owned(), 24 << 20));
    assert!(!volume.join("left").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_nothing_that_is_there_means_another_volume() {
    let mut bench = interrupted().await;
    let record = bench.node.records.state("order-uid").join("record");
    std::fs::write(record, "rubbish").unwrap();
    bench.fill().await.unwrap();
    bench.assert_clean();
    assert_eq!(bench.driver.handles(), ["handle-2"]);
    let volume = bench.driver.volume("handle-2");
    assert_eq!(content(&volume), ("hello\n".to_owned(), 24 << 20));

    // With the volume goes what is known of it.
    let mut deleted = interrupted().await;
    let record = deleted.record.as_mut().unwrap();
    teardown::delete(&deleted.node, record, None).await.unwrap();
    deleted.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_mounted_any_more_is_not_gone_on_with_for_ever() {
    let mut lost = interrupted().await;
    lost.driver
        .fail("NodeStageVolume", [Status::not_found("gone")]);
    lost.fill().await.unwrap();
    lost.assert_clean();
    assert_eq!(lost.driver.handles(), ["handle-2"], "begun anew at once");

    let mut broken = interrupted().await;
    for attempt in 1..=3 {
        let needs = Status::internal("the file system needs repair");
        broken.driver.fail("NodeStageVolume", [needs]);
        let (reason, cure) = broken.failure().await;
        assert_eq!((reason.as_str(), cure), ("DriverFailed", Cure::Time));
        assert_eq!(broken.driver.handles(), ["handle-1"], "{attempt}");
        // A new process knows it too.
        broken.record = broken.node.records.load().unwrap().pop();
    }
    broken.fill().await.unwrap();
    broken.assert_clean();
    assert_eq!(broken.driver.handles(), ["handle-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_records_goes_by_the_status() {
    let mut bench = Bench::new(Fault::None).await;
    bench.fill().await.unwrap();
    teardown::forget(&bench.node, &mut bench.record).unwrap();
    bench.fill().await.unwrap();
    assert_eq!(
        bench.driver.handles(),
        ["handle-2"],
        "not the one that was filled before"
    );
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_takes_a_moment_and_leaves_nothing_mounted() {
    let mut bench = Bench::new(Fault::None).await;
    bench.store.always(Answer::Stall);
    let cancel = CancellationToken::new();
    let (store, token) = (bench.store.clone(), cancel.clone());
    let cancelled = tokio::spawn(async move {
        agent_fakes::until(|| !store.asked().is_empty()).await;
        token.cancel();
        Instant::now()
    });
    let error = bench.fill_until(cancel).await.unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert!(cancelled.await.unwrap().elapsed() < Duration::from_secs(1));
    bench.assert_clean();
    assert_eq!(bench.driver.calls(), GOOD);

    let before = CancellationToken::new();
    before.cancel();
    assert!(bench.fill_until(before).await.unwrap_err().is_cancelled());
    assert_eq!(bench.driver.calls(), GOOD, "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_are_found_by_their_registration() {
    let driver = Driver::start(Fault::None, MIB);
    let registry = driver.registry();
    drop(std::os::unix::net::UnixListener::bind(registry.join("stale-reg.sock")).unwrap());
    std::fs::write(registry.join("file"), "").unwrap();
    let given = [("given.example.com".to_owned(), "/absent.sock".into())].into();
    let drivers = Drivers::new(given, registry.clone(), Duration::from_secs(1));
    assert_eq!(drivers.names().await, [driver::NAME, "given.example.com"]);
    drivers.channel(driver::NAME).await.unwrap();
    let absent = drivers
        .channel("absent.example.com")
        .await
        .unwrap_err()
        .to_string();
    assert!(absent.contains(registry.to_str().unwrap()), "{absent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_are_told_with_the_room_of_those_that_make_volumes() {
    for (fault, expected) in [
        (
            Fault::None,
            r#"{"driver.example.com":{"availableBytes":12345,"maximumVolumeBytes":99}}"#,
        ),
        (
            Fault::NodeOnly,
            r#"{"driver.example.com":{"makesVolumes":false,"availableBytes":0}}"#,
        ),
    ] {
        let bench = Bench::new(fault).await;
        let (sender, mut told) = watch::channel(populator::lease::Drivers::new());
        let stop = CancellationToken::new();
        let watching = tokio::spawn(populator::agent::capacity::watch(
            Arc::new(bench.node),
            sender,
            stop.clone(),
        ));
        let _ = tokio::time::timeout(Duration::from_secs(1), told.changed()).await;
        assert_eq!(serde_json::to_string(&*told.borrow()).unwrap(), expected);
        stop.cancel();
        watching.await.unwrap();
    }
}
