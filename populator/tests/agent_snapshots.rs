//! Volumes made from snapshots that are kept of others, with a CSI driver that really mounts. As root.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

mod agent_fakes;

use std::sync::Arc;

use agent_fakes::bench::Bench;
use agent_fakes::driver::{Fault, NAME};
use crds::cache::{Cache, Content};
use crds::restore_order::RestoreOrderStatus;
use populator::agent::node::Node;
use populator::agent::record::Made;
use populator::agent::snapshots::{self, Share};
use tokio_util::sync::CancellationToken;
use tonic::Status;

fn content() -> Content {
    Content {
        key: "k".to_owned(),
        backup: "default/backup".to_owned(),
        cache: Some(Cache {
            time_to_live_seconds: 600,
            count: 1,
        }),
    }
}

/// A volume that was filled, a snapshot of which is kept; and the order for the next.
async fn kept() -> Bench {
    kept_by(Fault::None).await
}

async fn kept_by(fault: Fault) -> Bench {
    let mut bench = Bench::new(fault).await;
    bench.order.spec.content = Some(content());
    bench.fill().await.unwrap();
    let filled = bench.record.take().unwrap().filled.unwrap();
    snapshots::keep(&bench.node, NAME, &content(), &filled).await;
    bench.order.metadata.uid = Some("another-uid".to_owned());
    "pvc-another".clone_into(&mut bench.order.spec.volume.name);
    bench.copy = copy(&bench.node, &bench).await;
    assert!(bench.copy.is_some());
    bench
        .status
        .send_modify(|status| *status = RestoreOrderStatus::default());
    bench
}

async fn copy(node: &Node, bench: &Bench) -> Option<snapshots::Kept> {
    let (content, volume) = (content(), &bench.order.spec.volume);
    let line = node.snapshots.line("k");
    match node.snapshots.share(&content, volume, line).await {
        Share::Copy(kept) => Some(*kept),
        Share::Alone | Share::First(_) => None,
    }
}

/// The calls since there were so many.
fn since(bench: &Bench, calls: usize) -> Vec<&'static str> {
    bench.driver.calls().split_off(calls)
}

fn hello(bench: &Bench) -> String {
    let made = bench.record.as_ref().unwrap().made.volume().unwrap();
    let volume = bench.driver.volume(&made.handle);
    std::fs::read_to_string(volume.join("folder/hello")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_volume_is_a_copy_and_nothing_is_fetched() {
    let mut bench = kept().await;
    let (asked, calls) = (bench.store.asked().len(), bench.driver.calls().len());
    bench.fill().await.unwrap();
    assert_eq!(since(&bench, calls), ["CreateVolume"], "complete as it is");
    assert_eq!(bench.store.asked().len(), asked);
    assert_eq!(hello(&bench), "hello\n");
    let result = bench.record.as_ref().unwrap().filled.as_ref().unwrap();
    let result = &result.result;
    assert_eq!(
        result.snapshot_handle.as_ref(),
        bench.driver.snapshots().first()
    );
    assert_eq!(
        (result.entries, result.bytes_fetched),
        (3, 7),
        "7 were in vain before"
    );
    assert!(!bench.record.as_ref().unwrap().mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_lost_costs_a_download() {
    let mut bench = kept().await;
    bench.driver.lose_snapshots();
    let asked = bench.store.asked().len();
    bench.fill().await.unwrap();
    assert!(bench.store.asked().len() > asked);
    assert_eq!(hello(&bench), "hello\n");
    let filled = bench.record.as_ref().unwrap().filled.as_ref().unwrap();
    assert_eq!(filled.result.snapshot_handle, None);
    assert!(
        copy(&bench.node, &bench).await.is_none(),
        "it is not offered again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_which_nothing_fits_costs_a_download() {
    let mut bench = kept_by(Fault::SmallCopy).await;
    bench.fill().await.unwrap();
    assert_eq!(hello(&bench), "hello\n");
    let filled = bench.record.as_ref().unwrap().filled.as_ref().unwrap();
    assert_eq!(filled.result.snapshot_handle, None);
    assert_eq!(bench.driver.handles().len(), 2, "the copy is deleted");
    assert!(copy(&bench.node, &bench).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_makes_room() {
    let mut bench = kept().await;
    bench.copy = None;
    let full = Status::resource_exhausted("no room");
    bench.driver.fail("CreateVolume", [full]);
    bench.fill().await.unwrap();
    assert_eq!(hello(&bench), "hello\n");
    assert!(bench.driver.snapshots().is_empty());
    assert!(copy(&bench.node, &bench).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_which_nothing_was_heard_is_not_taken_for_an_empty_volume() {
    let mut bench = kept().await;
    let away = || Status::internal("it fell over");
    bench.driver.fail("CreateVolume", [away()]);
    assert_eq!(bench.failure().await.0, "DriverFailed");
    assert!(
        copy(&bench.node, &bench).await.is_none(),
        "the next attempt does without"
    );
    let record = bench.record.as_ref().unwrap();
    assert!(record.source.is_some() && record.made == Made::Perhaps);
    let calls = bench.driver.calls().len();
    bench.copy = None;
    bench.fill().await.unwrap();
    let begun = &since(&bench, calls)[..4];
    let expected = [
        "CreateVolume",
        "DeleteVolume",
        "CreateVolume",
        "NodeStageVolume",
    ];
    assert_eq!(begun, expected, "found, deleted, and made to be filled");
    let last = bench.driver.created().pop().unwrap();
    assert_eq!(last.volume_content_source, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_which_nothing_was_heard_is_deleted() {
    let mut bench = Bench::new(Fault::None).await;
    bench.fill().await.unwrap();
    let filled = bench.record.take().unwrap().filled.unwrap();
    let lost = Status::internal("it fell over");
    bench.driver.fail("CreateSnapshot", [lost]);
    snapshots::keep(&bench.node, NAME, &content(), &filled).await;
    assert!(copy(&bench.node, &bench).await.is_none());
    let Bench {
        node, driver, work, ..
    } = bench;
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(snapshots::maintain(Arc::new(node), stop.clone()));
    agent_fakes::until(|| driver.calls().ends_with(&["DeleteSnapshot"])).await;
    stop.cancel();
    upkeep.await.unwrap();
    assert!(driver.snapshots().is_empty());
    let left = std::fs::read_dir(work.path().join("snapshots")).unwrap();
    assert_eq!(left.count(), 0);
}
