//! Freezes end, whatever happens to those who made them, and are no more than they have to be.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::support::{Bench, Driver};

/// How long a file system may stay frozen when the driver is gone.
const MOMENT: Duration = Duration::from_secs(3);

async fn volume(bench: &Bench, driver: &mut Driver, name: &str) -> (String, String) {
    let id = driver.create(name, "ext4", 64).await.unwrap().volume_id;
    let staging = bench.staging(name);
    driver.stage(&id, "ext4", &staging).await.unwrap();
    (id, staging)
}

/// Whether a durable write ends within a moment. The thread that writes is left behind if not.
fn takes_writes(staging: &str, within: Duration) -> bool {
    let (done, ended) = mpsc::channel();
    let path = Path::new(staging).join("proof");
    std::thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        file.write_all(b"proof").unwrap();
        file.sync_all().unwrap();
        drop(file);
        let _ = done.send(());
    });
    ended.recv_timeout(within).is_ok()
}

fn fsfreeze(option: &str, staging: &str) {
    let status = Command::new("fsfreeze").args([option, staging]).status();
    assert!(status.unwrap().success(), "fsfreeze {option}");
}

#[tokio::test]
async fn the_freeze_of_another_program_is_left_alone() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (first, here) = volume(&bench, &mut driver, "first").await;
    let (second, there) = volume(&bench, &mut driver, "second").await;
    fsfreeze("--freeze", &there);
    let status = driver.snapshot("snapshot", &second).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("frozen already"), "{status}");
    assert!(
        !takes_writes(&there, Duration::from_millis(300)),
        "it was thawed"
    );
    // Others are not held up by it.
    driver.snapshot("other", &first).await.unwrap();
    assert!(takes_writes(&here, MOMENT));
    assert_eq!(bench.snapshots().len(), 1, "what failed left nothing");
    fsfreeze("--unfreeze", &there);
    assert!(takes_writes(&there, MOMENT));
    driver.snapshot("snapshot", &second).await.unwrap();
}

/// The guard ends the freeze, without a driver that would do it at its start.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn what_a_dead_driver_left_frozen_is_thawed_in_a_moment() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("failpoints")).unwrap();
    for place in [
        "copy.freeze.after",
        "copy.clone.before",
        "copy.clone.after",
        "copy.thaw.before",
    ] {
        let mut driver = bench.start().await;
        let (id, staging) = volume(&bench, &mut driver, "volume").await;
        std::fs::write(bench.path("failpoints").join(format!("{place}.abort")), b"").unwrap();
        driver.snapshot("snapshot", &id).await.unwrap_err();
        let begun = Instant::now();
        assert!(takes_writes(&staging, MOMENT), "{place}");
        println!("{place}: thawed after {:?}", begun.elapsed());
        assert!(driver.has_aborted(), "{place}");
        let mut driver = bench.start().await;
        assert!(bench.snapshots().is_empty(), "{place}");
        driver.snapshot("snapshot", &id).await.unwrap();
        let id_of = driver.snapshot("snapshot", &id).await.unwrap().snapshot_id;
        driver.delete_snapshot(&id_of).await.unwrap();
    }
}

/// Both the driver and its guard are gone: the next start finds the intent.
#[tokio::test]
async fn what_a_dead_guard_left_frozen_is_thawed_at_the_start() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = volume(&bench, &mut driver, "volume").await;
    driver.kill();
    let folder = bench
        .path("pool/pool/snapshots")
        .join(format!("snap-{}.node-1", "1".repeat(32)));
    std::fs::create_dir(&folder).unwrap();
    let intent = format!(r#"{{"format":1,"volumes":["{id}"]}}"#);
    std::fs::write(folder.join("intent.json"), intent).unwrap();
    fsfreeze("--freeze", &staging);
    let mut driver = bench.start().await;
    assert!(takes_writes(&staging, MOMENT));
    assert!(!folder.exists());
    driver.snapshot("snapshot", &id).await.unwrap();
}

/// The guards of a driver: its children that are called so.
fn guards(driver: &Driver) -> Vec<u32> {
    let path = PathBuf::from(format!("/proc/{}/task", driver.pid()));
    let Ok(tasks) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    let children = tasks.flatten().filter_map(|task| {
        let children = std::fs::read_to_string(task.path().join("children")).ok()?;
        Some(children)
    });
    let pids: Vec<u32> = children
        .flat_map(|it| {
            it.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    pids.into_iter()
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(10).any(|window| window == b"thaw-guard")
        })
        .collect()
}

/// A guard that is killed costs nothing as long as the driver lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_guard_leaves_nothing_frozen() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = volume(&bench, &mut driver, "volume").await;
    let mut killed = 0;
    for round in 0..40 {
        let mut calls = driver.calls();
        let of = id.clone();
        let name = format!("snapshot-{round}");
        let task = tokio::spawn(async move { calls.snapshot(&name, &of).await });
        while !task.is_finished() {
            for pid in guards(&driver) {
                let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
                killed += u32::from(
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok(),
                );
            }
        }
        let result = task.await.unwrap();
        assert!(takes_writes(&staging, MOMENT), "round {round}: {result:?}");
        match result {
            Ok(snapshot) => driver.delete_snapshot(&snapshot.snapshot_id).await.unwrap(),
            Err(status) => {
                assert!(status.message().contains("guard"), "{status}");
                assert!(bench.snapshots().is_empty(), "{status}");
            }
        }
    }
    println!("{killed} guards killed");
    assert!(killed > 0);
}

/// Killed at any moment of a snapshot, the driver leaves no writer waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_is_killed_leaves_nothing_frozen() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = volume(&bench, &mut driver, "volume").await;
    for round in 0..16_u64 {
        let mut calls = driver.calls();
        let of = id.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                if calls
                    .snapshot(&format!("s-{round}-{number}"), &of)
                    .await
                    .is_err()
                {
                    return number;
                }
            }
            0
        });
        tokio::time::sleep(Duration::from_micros(round * 6_121 % 97 * 1000 + 5_000)).await;
        driver.kill();
        let taken = task.await.unwrap();
        assert!(takes_writes(&staging, MOMENT), "round {round}");
        driver = bench.start().await;
        assert!(bench.snapshots().len() >= taken, "round {round}");
        for folder in bench.snapshots() {
            let id = folder.file_name().unwrap().to_str().unwrap().to_owned();
            driver.delete_snapshot(&id).await.unwrap();
        }
    }
}

/// Two snapshots of one volume never overlap, and writers go on: none waits long, none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_at_once_under_load_are_taken_one_after_the_other() {
    let bench = Bench::new();
    let arguments = ["--pool-size=3Gi", "--pool-sparse", "--no-http"];
    let mut driver = bench.start_with(&arguments).await;
    let (id, staging) = volume(&bench, &mut driver, "volume").await;
    let end = AtomicBool::new(false);
    let (longest, acknowledged) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = File::create_new(Path::new(&staging).join("log")).unwrap();
            let (mut longest, mut number) = (Duration::ZERO, 0_u64);
            while !end.load(Ordering::Relaxed) {
                let begun = Instant::now();
                file.write_all(&number.to_le_bytes()).unwrap();
                if number.is_multiple_of(64) {
                    file.sync_data().unwrap();
                }
                longest = longest.max(begun.elapsed());
                number += 1;
            }
            file.sync_all().unwrap();
            (longest, number)
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let tasks = (0..6).map(|number| {
                    let (mut calls, of) = (driver.calls(), id.clone());
                    tokio::spawn(async move {
                        let name = format!("snapshot-{number}");
                        loop {
                            match calls.snapshot(&name, &of).await {
                                Ok(_) => return,
                                Err(it) => assert_eq!(it.code(), Code::Aborted, "{it}"),
                            }
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    })
                });
                for task in tasks.collect::<Vec<_>>() {
                    task.await.unwrap();
                }
            });
        });
        end.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    println!("{acknowledged} records, the longest write took {longest:?}");
    for number in 0..6 {
        let name = format!("snapshot-{number}");
        let snapshot = driver.snapshot(&name, &id).await.unwrap().snapshot_id;
        let copy = driver
            .copy(&format!("copy-{number}"), &snapshot, "", 0)
            .await
            .unwrap();
        let path = bench.staging(&name);
        driver.stage(&copy.volume_id, "", &path).await.unwrap();
        let log = std::fs::read(Path::new(&path).join("log")).unwrap();
        let whole = log
            .chunks_exact(8)
            .zip(0_u64..)
            .all(|(it, number)| it == number.to_le_bytes());
        assert!(
            whole && log.len() as u64 <= acknowledged * 8,
            "a prefix of what was written"
        );
        println!("{name}: {} records", log.len() / 8);
        driver.unstage(&copy.volume_id, &path).await.unwrap();
    }
}
