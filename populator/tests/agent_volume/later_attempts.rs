//! Attempts that find what earlier ones have left.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::restore_order::{Cure, NodeSecrets, Prime, Provisioned};
use populator::agent::node::Resumption;
use populator::agent::record::Record;
use populator::agent::teardown;
use populator::seal::{self, Contents, Key};
use tonic::Status;

use super::agent_fakes::bench::{Bench, MIB};
use super::agent_fakes::driver::{self, Fault};
use super::agent_fakes::store::{Answer, Asked};
use super::content;

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
async fn an_agent_that_ends_in_the_middle_time_and_again_has_failed() {
    let mut bench = interrupted().await;
    let attempt = bench.order.spec.attempt;
    let records = &bench.node.records;
    let ended = |attempt| records.ended_in("order-uid", attempt);
    assert_eq!(ended(attempt), 0, "its end was seen");
    // Three processes that were killed.
    for times in 1..=3 {
        records.begin_writing("order-uid", attempt).unwrap();
        assert_eq!((ended(attempt), ended(attempt + 1)), (times, 0));
    }
    let before = bench.driver.calls();
    assert_eq!(
        bench.failure().await,
        ("AgentInterrupted".to_owned(), Cure::Time)
    );
    let mounts = driver::mounts(bench.work.path());
    assert_eq!(mounts, Vec::<String>::new());
    assert_eq!(bench.driver.calls(), before, "nothing was tried");

    // The next attempt goes on from the checkpoint.
    bench.order.spec.attempt += 1;
    let asked = bench.store.asked().len();
    bench.fill().await.unwrap();
    assert!(begin(&bench.store.asked()[asked]) > 0);
    assert_eq!(bench.driver.handles(), ["handle-1"]);
    teardown::forget(&bench.node, &mut bench.record).unwrap();
    assert!(!bench.node.records.folder("order-uid").exists());
}
