//! Many volumes and snapshots, and many calls at once: whoever is told ABORTED gets through by
//! retrying, lists are right while all else goes on, and nothing is left in the end.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use csi::v1::{ListSnapshotsRequest, ListVolumesRequest};
use tonic::{Code, Status};

use crate::support::{Bench, Calls};

const VOLUMES: usize = 200;
const SNAPSHOTS: usize = 500;

/// Snapshots are of so many volumes only, four in a row of the same, so that calls meet.
const SOURCES: usize = 40;

/// How many calls there are at once.
const CALLERS: usize = 16;

/// How long a call may be told ABORTED.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_crowd_is_served() {
    let bench = Bench::new();
    let arguments = ["--pool-size=16Gi", "--pool-sparse", "--no-http"];
    let mut driver = bench.start_with(&arguments).await;
    let room = driver.available().await;

    let volumes = at_once(
        &driver,
        "volumes created",
        VOLUMES,
        |mut calls, number| async move {
            let volume = calls.create(&format!("crowd-{number}"), "ext4", 16).await?;
            Ok(volume.volume_id)
        },
    );
    let volumes = watched(&driver, Watch::default(), volumes).await;
    let watch = Watch {
        volumes: volumes.iter().cloned().collect(),
        snapshots: BTreeSet::new(),
    };

    let sources = volumes.clone();
    let snapshots = at_once(
        &driver,
        "snapshots created",
        SNAPSHOTS,
        move |mut calls, number| {
            let source = sources[number / 4 % SOURCES].clone();
            async move {
                let snapshot = calls.snapshot(&format!("crowd-{number}"), &source).await?;
                Ok(snapshot.snapshot_id)
            }
        },
    );
    let snapshots = watched(&driver, watch.clone(), snapshots).await;
    let all = Watch {
        snapshots: snapshots.iter().cloned().collect(),
        ..watch
    };
    all.is_all_of(&mut driver.calls()).await;

    // Every second of each goes; the others are to be seen all the time.
    let (going, staying) = halves(&snapshots);
    let remaining = Watch {
        snapshots: staying.iter().cloned().collect(),
        ..all
    };
    let deleted = delete_snapshots(&driver, going);
    watched(&driver, remaining, deleted).await;
    let (going, staying_volumes) = halves(&volumes);
    let remaining = Watch {
        volumes: staying_volumes.iter().cloned().collect(),
        snapshots: staying.iter().cloned().collect(),
    };
    let deleted = delete_volumes(&driver, going);
    watched(&driver, remaining.clone(), deleted).await;
    remaining.is_all_of(&mut driver.calls()).await;
    delete_snapshots(&driver, staying).await;
    delete_volumes(&driver, staying_volumes).await;

    Watch::default().is_all_of(&mut driver.calls()).await;
    assert!(bench.volumes().is_empty() && bench.snapshots().is_empty());
    assert_eq!(bench.loops().len(), 1, "the pool's: {:?}", bench.loops());
    let left = driver.available().await;
    assert!(left >= room - (64 << 20), "{left} bytes are left of {room}");
}

fn halves(of: &[String]) -> (Vec<String>, Vec<String>) {
    let half = |odd: usize| of.iter().skip(odd).step_by(2).cloned().collect();
    (half(0), half(1))
}

async fn delete_snapshots(calls: &Calls, ids: Vec<String>) {
    at_once(
        calls,
        "snapshots deleted",
        ids.len(),
        move |mut calls, number| {
            let id = ids[number].clone();
            async move { calls.delete_snapshot(&id).await }
        },
    )
    .await;
}

async fn delete_volumes(calls: &Calls, ids: Vec<String>) {
    at_once(
        calls,
        "volumes deleted",
        ids.len(),
        move |mut calls, number| {
            let id = ids[number].clone();
            async move { calls.delete(&id).await }
        },
    )
    .await;
}

/// Has so many calls made by callers who each make one after another. Prints the rate.
async fn at_once<T, F>(
    calls: &Calls,
    what: &str,
    count: usize,
    call: impl Fn(Calls, usize) -> F + Send + Sync + 'static,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send,
{
    let began = Instant::now();
    let shared = Arc::new((AtomicUsize::new(0), AtomicU64::new(0), call));
    let callers = (0..CALLERS).map(|_| {
        let (shared, calls) = (shared.clone(), calls.clone());
        tokio::spawn(async move {
            let (next, aborted, call) = &*shared;
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return answers;
                }
                let deadline = Instant::now() + PATIENCE;
                let answer = loop {
                    match call(calls.clone(), number).await {
                        Ok(answer) => break answer,
                        Err(status) => {
                            let retry = status.code() == Code::Aborted && Instant::now() < deadline;
                            assert!(retry, "{number}: {status}");
                            aborted.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                };
                answers.push((number, answer));
            }
        })
    });
    let mut answers = Vec::with_capacity(count);
    for caller in callers.collect::<Vec<_>>() {
        answers.extend(caller.await.unwrap());
    }
    let took = began.elapsed();
    answers.sort_unstable_by_key(|(number, _)| *number);
    assert_eq!(answers.len(), count);
    println!(
        "{count:>4} {what} in {took:.2?}: {:.0} a second, {} times ABORTED",
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        shared.1.load(Ordering::Relaxed)
    );
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// What is there all the time, and has to be in every list.
#[derive(Debug, Clone, Default)]
struct Watch {
    volumes: BTreeSet<String>,
    snapshots: BTreeSet<String>,
}

/// Goes through the lists again and again while something else is done.
async fn watched<T>(calls: &Calls, watch: Watch, work: impl Future<Output = T>) -> T {
    let done = Arc::new(AtomicBool::new(false));
    let (mut calls, told) = (calls.clone(), done.clone());
    let looking = tokio::spawn(async move {
        while !told.load(Ordering::Relaxed) {
            let volumes = volumes(&mut calls, 23).await;
            let snapshots = snapshots(&mut calls, 41).await;
            assert!(watch.volumes.is_subset(&volumes));
            assert!(watch.snapshots.is_subset(&snapshots));
        }
    });
    let result = work.await;
    done.store(true, Ordering::Relaxed);
    looking.await.unwrap();
    result
}

impl Watch {
    /// There is this, and nothing else.
    async fn is_all_of(&self, calls: &mut Calls) {
        let began = Instant::now();
        let volumes = volumes(calls, 23).await;
        let snapshots = snapshots(calls, 41).await;
        let (count, took) = (volumes.len() + snapshots.len(), began.elapsed());
        println!("{count:>4} volumes and snapshots listed by pages in {took:.2?}");
        assert_eq!(volumes, self.volumes);
        assert_eq!(snapshots, self.snapshots);
    }
}

async fn volumes(calls: &mut Calls, max_entries: i32) -> BTreeSet<String> {
    let mut all = Vec::new();
    let mut starting_token = String::new();
    loop {
        let request = ListVolumesRequest {
            max_entries,
            starting_token,
        };
        let page = calls.controller.list_volumes(request).await.unwrap();
        let page = page.into_inner();
        all.extend(
            page.entries
                .into_iter()
                .map(|it| it.volume.unwrap().volume_id),
        );
        starting_token = page.next_token;
        if starting_token.is_empty() {
            return each_once(all);
        }
    }
}

async fn snapshots(calls: &mut Calls, max_entries: i32) -> BTreeSet<String> {
    let mut all = Vec::new();
    let mut starting_token = String::new();
    loop {
        let request = ListSnapshotsRequest {
            max_entries,
            starting_token,
            ..Default::default()
        };
        let page = calls.controller.list_snapshots(request).await.unwrap();
        let page = page.into_inner();
        all.extend(
            page.entries
                .into_iter()
                .map(|it| it.snapshot.unwrap().snapshot_id),
        );
        starting_token = page.next_token;
        if starting_token.is_empty() {
            return each_once(all);
        }
    }
}

fn each_once(all: Vec<String>) -> BTreeSet<String> {
    let count = all.len();
    let all = BTreeSet::from_iter(all);
    assert_eq!(all.len(), count, "something was listed twice");
    all
}
