//! The driver ends and comes back while volumes are in use.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::{Bench, Driver};

#[tokio::test]
async fn volumes_stay_in_use_when_the_driver_is_asked_to_end() {
    stay_in_use(|driver| assert!(driver.terminate().success())).await;
}

#[tokio::test]
async fn volumes_stay_in_use_when_the_driver_is_killed() {
    stay_in_use(Driver::kill).await;
}

async fn stay_in_use(end: impl FnOnce(Driver)) {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "xfs", 300).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    driver.stage(&id, "xfs", &staging).await.unwrap();
    driver.publish(&id, &staging, &target, false).await.unwrap();
    let mut file = File::create(Path::new(&target).join("file")).unwrap();
    file.write_all(b"before ").unwrap();
    let (mounts, loops, room) = (bench.mounts(), bench.loops(), driver.available().await);

    end(driver);
    file.write_all(b"between ").unwrap();
    file.sync_all().unwrap();
    let mut driver = bench.start().await;
    file.write_all(b"after").unwrap();
    assert_eq!(bench.mounts(), mounts, "nothing is mounted twice");
    assert_eq!(bench.loops(), loops, "nothing is attached twice");
    assert_eq!(driver.available().await, room, "the books say the same");

    driver.stage(&id, "xfs", &staging).await.unwrap();
    driver.publish(&id, &staging, &target, false).await.unwrap();
    assert_eq!(bench.mounts(), mounts);
    drop(file);
    assert_eq!(
        std::fs::read(Path::new(&target).join("file")).unwrap(),
        b"before between after"
    );
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    driver.delete(&id).await.unwrap();
}

#[tokio::test]
async fn a_reboot_costs_nothing_but_the_mounts() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let staging = bench.staging("a");
    driver.stage(&id, "ext4", &staging).await.unwrap();
    std::fs::write(Path::new(&staging).join("file"), b"words").unwrap();
    driver.kill();
    bench.reboot();
    assert!(bench.mounts().is_empty() && bench.loops().is_empty());

    let mut driver = bench.start().await;
    driver.unstage(&id, &staging).await.unwrap();
    driver.stage(&id, "ext4", &staging).await.unwrap();
    assert_eq!(
        std::fs::read(Path::new(&staging).join("file")).unwrap(),
        b"words"
    );
}

#[tokio::test]
async fn a_pool_is_fully_allocated_unless_it_may_be_sparse() {
    let bench = Bench::new();
    let allocated = || bench.path("pool/pool.img").metadata().unwrap().blocks() * 512;
    let sparse = bench
        .start_with(&["--pool-size=600Mi", "--pool-sparse", "--no-http"])
        .await;
    assert!(allocated() < 200 << 20, "{}", allocated());
    let log = std::fs::read_to_string(bench.path("log")).unwrap();
    assert!(
        log.contains("WARN") && log.contains("--pool-sparse"),
        "{log}"
    );
    sparse.terminate();
    let whole = bench.start_with(&["--pool-size=600Mi", "--no-http"]).await;
    assert!(allocated() >= 600 << 20, "{}", allocated());
    whole.terminate();
}

#[tokio::test]
async fn one_pool_has_one_driver() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let arguments = ["--pool-size=1Gi", "--pool-sparse", "--no-http"];
    let mut second = bench
        .command(&arguments)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(
        second.try_wait().unwrap().is_none(),
        "it waits for its predecessor"
    );
    driver
        .create("pvc-1", "ext4", 64)
        .await
        .expect("the first goes on");
    assert!(driver.terminate().success());
    let channel =
        csi::socket::connect(&bench.path("csi.sock"), std::time::Duration::from_secs(5)).unwrap();
    let mut identity = csi::v1::identity_client::IdentityClient::new(channel);
    let mut answered = false;
    for _ in 0..100 {
        answered = identity.probe(csi::v1::ProbeRequest {}).await.is_ok();
        if answered {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(answered, "it takes over when the first has ended");
}
