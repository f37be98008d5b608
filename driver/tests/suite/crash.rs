//! The driver is killed at random moments; whatever was under way, its repetition succeeds.

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::support::{Bench, Calls, Driver};

/// How often it is killed.
const KILLS: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_moment_is_a_good_one_to_be_killed() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    for round in 0..KILLS {
        let work = (0..3).map(|worker| {
            let name = format!("pvc-{worker}");
            let staging = bench.staging(&name);
            tokio::spawn(churn(driver.calls(), name, staging))
        });
        let work: Vec<_> = work.collect();
        // Moments from 0 to 180 ms, spread evenly and in no order; one cycle takes about 100 ms.
        tokio::time::sleep(Duration::from_micros(round * 7_919 % 180 * 1_000)).await;
        driver.kill();
        work.iter().for_each(tokio::task::JoinHandle::abort);
        for task in work {
            assert!(
                task.await.is_err_and(|error| error.is_cancelled()),
                "a worker failed"
            );
        }
        driver = bench.start().await;
        for folder in bench.volumes() {
            let record = std::fs::read(folder.join("volume.json")).unwrap();
            serde_json::from_slice::<serde_json::Value>(&record).unwrap();
        }
    }
    for worker in 0..3 {
        let name = format!("pvc-{worker}");
        finish(&mut driver, &name, &bench.staging(&name)).await;
    }
    assert!(bench.volumes().is_empty(), "{:?}", bench.volumes());
    assert_eq!(bench.loops().len(), 1, "{:?}", bench.loops());
}

/// Creates, stages, unstages and deletes for ever. Only the end of the driver is no failure.
async fn churn(mut calls: Calls, name: String, staging: String) {
    loop {
        if let Err(status) = cycle(&mut calls, &name, &staging).await {
            match status.code() {
                // The driver is gone, or its predecessor's mkfs still holds the device.
                Code::Unavailable | Code::Unknown | Code::Cancelled => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                _ => {
                    let held = status.message().contains("still in use")
                        || status.message().contains("in use by the system");
                    assert!(held, "{status}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

async fn cycle(calls: &mut Calls, name: &str, staging: &str) -> Result<(), Status> {
    let id = calls.create(name, "ext4", 32).await?.volume_id;
    calls.stage(&id, "ext4", staging).await?;
    calls.unstage(&id, staging).await?;
    calls.delete(&id).await
}

/// Brings a volume, in whatever state it is, to use and to its end.
async fn finish(driver: &mut Driver, name: &str, staging: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let id = loop {
        let staged = async {
            let id = driver.create(name, "ext4", 32).await?.volume_id;
            driver.stage(&id, "ext4", staging).await.map(|()| id)
        };
        match staged.await {
            Ok(id) => break id,
            Err(status) => assert!(Instant::now() < deadline, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    std::fs::write(Path::new(staging).join("file"), b"words").unwrap();
    driver.unstage(&id, staging).await.unwrap();
    driver.delete(&id).await.unwrap();
}

/// A volume's whole life for each place, with one crash there; what was under way is repeated.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_crash_at_every_step_is_made_good_by_repetition() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("failpoints")).unwrap();
    let mut driver = bench.start().await;
    let places = driver::failpoint::STEPS
        .iter()
        .flat_map(|step| ["before", "after"].map(|place| format!("{step}.{place}")));
    for place in places {
        let folder = bench.path("failpoints");
        std::fs::write(folder.join(format!("{place}.abort")), b"").unwrap();
        let (staging, target) = (bench.staging("a"), bench.target("a"));
        let mut crashes = 0;
        let mut step = 0;
        let mut id = String::new();
        while step < 6 {
            let result = match step {
                0 => driver
                    .create("pvc", "ext4", 32)
                    .await
                    .map(|volume| id = volume.volume_id),
                1 => driver.stage(&id, "ext4", &staging).await,
                2 => driver.publish(&id, &staging, &target, false).await,
                3 => driver.unpublish(&id, &target).await,
                4 => driver.unstage(&id, &staging).await,
                _ => driver.delete(&id).await,
            };
            match result {
                Ok(()) => {
                    if step == 2 {
                        let file = Path::new(&target).join("file");
                        std::fs::write(file, place.as_bytes()).unwrap();
                    }
                    step += 1;
                }
                Err(status) => {
                    assert!(driver.has_aborted(), "{place}: {status}");
                    crashes += 1;
                    driver = bench.start().await;
                }
            }
        }
        assert_eq!(crashes, 1, "{place} was reached");
        assert!(
            folder.join(format!("{place}.hit")).exists(),
            "{place} was reached"
        );
        assert!(bench.volumes().is_empty(), "{place}: {:?}", bench.volumes());
        assert_eq!(bench.loops().len(), 1, "{place}: {:?}", bench.loops());
        assert_eq!(bench.mounts().len(), 1, "{place}: {:?}", bench.mounts());
        assert!(
            !Path::new(&target).exists(),
            "{place}: the target is still there"
        );
    }
}
