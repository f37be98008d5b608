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

/// The steps of a volume's life, and of its snapshots and clones.
#[cfg(feature = "failpoints")]
const STEPS: [&str; 20] = [
    "create.image",
    "create.record",
    "stage.attach",
    "stage.format",
    "stage.record",
    "stage.grow",
    "stage.mount",
    "copy.freeze",
    "copy.clone",
    "copy.thaw",
    "snapshot.record",
    "publish.bind",
    "unpublish.unmount",
    "unpublish.remove",
    "unstage.unmount",
    "unstage.detach",
    "snapshot.forget",
    "snapshot.clear",
    "delete.record",
    "delete.image",
];

/// Every place at which the driver may crash is reached by one of the tests that crash it there.
#[cfg(feature = "failpoints")]
#[test]
fn every_step_has_a_test() {
    let covered = [
        &STEPS[..],
        &crate::attachment::STEPS,
        &crate::expansion::STEPS,
        &crate::groups::STEPS,
    ];
    for step in driver::failpoint::STEPS {
        assert!(covered.iter().any(|steps| steps.contains(&step)), "{step}");
    }
}

/// A volume's whole life for each place, with one crash there; what was under way is repeated.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_crash_at_every_step_is_made_good_by_repetition() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("failpoints")).unwrap();
    let mut driver = bench.start().await;
    let places = STEPS
        .iter()
        .flat_map(|step| ["before", "after"].map(|place| format!("{step}.{place}")));
    for place in places {
        let folder = bench.path("failpoints");
        std::fs::write(folder.join(format!("{place}.abort")), b"").unwrap();
        let mut life = Life::new(&bench, &place);
        let mut crashes = 0;
        while !life.is_over() {
            if let Err(status) = life.step(&mut driver).await {
                assert!(driver.has_aborted(), "{place}: {status}");
                crashes += 1;
                driver = bench.start().await;
                life.is_thawed();
            }
        }
        assert_eq!(crashes, 1, "{place} was reached");
        assert!(
            folder.join(format!("{place}.hit")).exists(),
            "{place} was reached"
        );
        assert!(bench.volumes().is_empty(), "{place}: {:?}", bench.volumes());
        assert!(
            bench.snapshots().is_empty(),
            "{place}: {:?}",
            bench.snapshots()
        );
        assert_eq!(bench.loops().len(), 1, "{place}: {:?}", bench.loops());
        assert_eq!(bench.mounts().len(), 1, "{place}: {:?}", bench.mounts());
        assert!(
            !Path::new(&life.target).exists(),
            "{place}: the target is still there"
        );
    }
}

/// What happens to a volume from its creation to its deletion.
#[cfg(feature = "failpoints")]
struct Life<'a> {
    words: &'a str,
    step: usize,
    staging: String,
    target: String,
    restored_at: String,
    id: String,
    snapshot: String,
    restored: String,
}

#[cfg(feature = "failpoints")]
impl<'a> Life<'a> {
    fn new(bench: &Bench, words: &'a str) -> Self {
        Self {
            words,
            step: 0,
            staging: bench.staging("a"),
            target: bench.target("a"),
            restored_at: bench.staging("restored"),
            id: String::new(),
            snapshot: String::new(),
            restored: String::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.step == 12
    }

    /// Whatever a crash left frozen would make this wait for ever.
    fn is_thawed(&self) {
        if self.step > 2 && Path::new(&self.staging).join("file").exists() {
            std::fs::write(Path::new(&self.staging).join("thawed"), b"yes").unwrap();
        }
    }

    async fn step(&mut self, driver: &mut Driver) -> Result<(), Status> {
        match self.step {
            0 => self.id = driver.create("pvc", "ext4", 32).await?.volume_id,
            1 => driver.stage(&self.id, "ext4", &self.staging).await?,
            2 => {
                driver
                    .publish(&self.id, &self.staging, &self.target, false)
                    .await?;
                std::fs::write(Path::new(&self.target).join("file"), self.words).unwrap();
            }
            3 => self.snapshot = driver.snapshot("snapshot", &self.id).await?.snapshot_id,
            4 => {
                let copy = driver.copy("restored", &self.snapshot, "ext4", 64).await?;
                self.restored = copy.volume_id;
            }
            5 => {
                driver
                    .stage(&self.restored, "ext4", &self.restored_at)
                    .await?;
                let found = std::fs::read(Path::new(&self.restored_at).join("file")).unwrap();
                assert_eq!(found, self.words.as_bytes());
                let space = rustix::fs::statvfs(&*self.restored_at).unwrap();
                assert!(space.f_blocks * space.f_frsize > 40 << 20, "it grew");
            }
            6 => driver.unstage(&self.restored, &self.restored_at).await?,
            7 => driver.delete(&self.restored).await?,
            8 => driver.delete_snapshot(&self.snapshot).await?,
            9 => driver.unpublish(&self.id, &self.target).await?,
            10 => driver.unstage(&self.id, &self.staging).await?,
            _ => driver.delete(&self.id).await?,
        }
        self.step += 1;
        Ok(())
    }
}
