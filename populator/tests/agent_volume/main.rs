//! From an order to a filled volume and back, with a CSI driver that really mounts. As root.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

#[path = "../agent_fakes/mod.rs"]
mod agent_fakes;
mod later_attempts;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_fakes::bench::{Bench, ETAG, MIB};
use agent_fakes::driver::{self, Driver, Fault};
use agent_fakes::store::Answer;
use crds::restore_order::{Cure, State};
use csi::v1::volume_capability::access_mode::Mode;
use populator::agent::record::{Made, Record};
use populator::agent::registry::Drivers;
use populator::agent::teardown;
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
