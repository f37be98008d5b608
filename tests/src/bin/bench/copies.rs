//! Snapshots, clones and restores beside a copy of all bytes and beside csi-driver-host-path: how
//! long the calls take, and for how long a writer waits, by the size of the data and by its
//! fragmentation.

mod data;
mod host_path;
mod writer;

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tests::host_path::PLUGIN;

use self::data::{MIB, WRITES};
use self::host_path::{HostPath, Times};
use self::writer::Writer;
use crate::driver::client::From;
use crate::driver::{Driver, Volume};
use crate::interruption;
use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "ours: the CSI call, median of nine (of three from 2,000 extents on), of an \
ext4 that is mounted and written to meanwhile\n(4 KiB appended and synced, again and again). With \
`freeze: \"false\"` the volume is not synced and frozen before it is cloned.\ncp: \
`cp --reflink=never` of the image, then sync. host-path: csi-driver-host-path on the same file \
system, the same data\nin a file, each call once, nothing synced, nothing written meanwhile; its \
snapshots are a tar.gz, its clones `cp -a`,\nwhich shares blocks where it can. idle: the same \
writer for as long as two seconds, while nothing else is done.";

/// The longest that a call may take, in milliseconds, without a freeze.
const GOAL: f64 = 50.0;

/// Up to how many extents.
const GOAL_EXTENTS: f64 = 2_000.0;

/// How long the writer is watched for comparison.
const IDLE: Duration = Duration::from_secs(2);

/// All sizes that the disk has room for, each with and without fragments. What was measured is
/// there when the rest fails.
pub async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut driver = Driver::start().await?;
    let measured = tokio::select! {
        measured = sizes(&mut driver, rows) => measured,
        () = interruption::happened() => Err(anyhow!("interrupted")),
    };
    let stopped = driver.stop();
    measured.and(stopped)
}

async fn sizes(driver: &mut Driver, rows: &mut Vec<Row>) -> Result<()> {
    let mut host_path = HostPath::start(driver.folder(), &driver.pool()).await?;
    if host_path.is_none() {
        println!("csi-driver-host-path: not measured here; {PLUGIN} names its program");
    }
    for mebibytes in [100, 1024, 10 * 1024] {
        // The data, a copy of them, and what random writes take anew.
        if driver.free()? < mebibytes * MIB * 3 + 4096 * MIB {
            println!("{mebibytes} MiB: left out, the disk has no room for it");
            continue;
        }
        let theirs = match &mut host_path {
            Some(host_path) => Some(peer(host_path, mebibytes).await?),
            None => None,
        };
        driver.give_back().await?;
        rows.extend(size(driver, mebibytes, theirs).await?);
        driver.give_back().await?;
    }
    if let Some(host_path) = host_path {
        host_path.stop();
    }
    Ok(())
}

/// The peer's calls, before and after the random writes.
async fn peer(host_path: &mut HostPath, mebibytes: u64) -> Result<[Times; 2]> {
    let (id, folder) = host_path.volume(mebibytes).await?;
    let data = folder.join("data");
    data::fill(&data, mebibytes)?;
    let whole = host_path.time(&id, mebibytes).await?;
    data::scatter(&data, mebibytes)?;
    let scattered = host_path.time(&id, mebibytes).await?;
    host_path.delete(&id).await?;
    Ok([whole, scattered])
}

/// Our calls, before and after the random writes.
async fn size(driver: &mut Driver, mebibytes: u64, theirs: Option<[Times; 2]>) -> Result<Vec<Row>> {
    let volume = driver.volume("source", mebibytes * 5 / 4 + 128).await?;
    let data = volume.staging.join("data");
    data::fill(&data, mebibytes)?;
    let peer = theirs.map(|[whole, _]| whole);
    let mut rows = calls(driver, &volume, &format!("{mebibytes} MiB"), peer).await?;
    let before = driver.client.snapshot("before", &volume.id, &[]).await?;
    data::scatter(&data, mebibytes)?;
    let case = format!("{mebibytes} MiB, {WRITES} writes");
    let peer = theirs.map(|[_, scattered]| scattered);
    rows.extend(calls(driver, &volume, &case, peer).await?);
    driver.client.delete_snapshot(&before).await?;
    driver.remove(volume).await?;
    Ok(rows)
}

/// The rows of a volume as it is: its extents, the calls, and the writer's longest wait.
async fn calls(
    driver: &mut Driver,
    volume: &Volume,
    case: &str,
    theirs: Option<Times>,
) -> Result<Vec<Row>> {
    println!("{case} ...");
    let all_bytes = data::copy_all_bytes(&volume.image, &driver.pool().join("copy"))?;
    driver.settle().await?;
    let idle = Writer::start(&volume.staging)?;
    tokio::time::sleep(IDLE).await;
    let idle = idle.stop()?;
    let extents = data::extents(&volume.image)?;
    let is_whole = extents <= GOAL_EXTENTS;
    let times = if is_whole { 9 } else { 3 };
    let goal = is_whole.then_some(GOAL);

    let cold = snapshots(driver, volume, times, "false").await?;
    let restores = restores(driver, volume, times).await?;
    let frozen = snapshots(driver, volume, times, "true").await?;
    let clones = clones(driver, volume, times).await?;

    let mut rows = Vec::new();
    let mut row = |what: &str, ours: f64, peer: Option<f64>, goal: Option<f64>, unit| {
        rows.push(Row::new(&format!("{case}: {what}"), ours, peer, goal, unit));
    };
    row("extents", extents, None, None, "extents");
    let host_path = |of: fn(Times) -> Duration| theirs.map(|times| milliseconds(of(times)));
    for (what, ours, goal, peer) in [
        (
            "snapshot, freeze: \"false\"",
            &cold,
            goal,
            host_path(|it| it.snapshot),
        ),
        ("snapshot", &frozen, None, host_path(|it| it.snapshot)),
        ("restore", &restores, goal, host_path(|it| it.restore)),
        ("clone", &clones, None, host_path(|it| it.clone)),
    ] {
        let cp = Some(milliseconds(all_bytes));
        row(&format!("{what} / cp"), ours.median, cp, goal, "ms");
        if peer.is_some() {
            row(
                &format!("{what} / host-path"),
                ours.median,
                peer,
                goal,
                "ms",
            );
        }
    }
    let idle = Some(milliseconds(idle));
    for (what, ours) in [
        ("stall, freeze: \"false\"", &cold),
        ("stall, snapshot", &frozen),
        ("stall, clone", &clones),
    ] {
        let stall = milliseconds(ours.stall);
        row(&format!("{what} / idle"), stall, idle, None, "ms");
    }
    Ok(rows)
}

/// One call, made again and again.
struct Calls {
    /// How long it took, in milliseconds.
    median: f64,
    /// How long the writer waited at most.
    stall: Duration,
}

impl Calls {
    fn new(mut times: Vec<Duration>, stall: Duration) -> Self {
        times.sort_unstable();
        Self {
            median: milliseconds(times[times.len() / 2]),
            stall,
        }
    }
}

/// They are deleted only when all are taken, since that goes on for a while behind the scenes.
async fn snapshots(
    driver: &mut Driver,
    volume: &Volume,
    times: usize,
    freeze: &str,
) -> Result<Calls> {
    let writer = Writer::start(&volume.staging)?;
    let (mut taken, mut made) = (Vec::new(), Vec::new());
    for number in 0..times {
        interruption::check()?;
        let name = format!("timed-{number}");
        let parameters = [("freeze", freeze)];
        let begin = Instant::now();
        let id = driver.client.snapshot(&name, &volume.id, &parameters);
        made.push(id.await?);
        taken.push(begin.elapsed());
    }
    let stall = writer.stop()?;
    for id in made {
        driver.client.delete_snapshot(&id).await?;
    }
    driver.settle().await?;
    Ok(Calls::new(taken, stall))
}

async fn restores(driver: &mut Driver, volume: &Volume, times: usize) -> Result<Calls> {
    let snapshot = driver.client.snapshot("source", &volume.id, &[]).await?;
    let source = From::Snapshot(&snapshot);
    let restores = copies(driver, volume, times, source).await?;
    driver.client.delete_snapshot(&snapshot).await?;
    driver.settle().await?;
    Ok(restores)
}

async fn clones(driver: &mut Driver, volume: &Volume, times: usize) -> Result<Calls> {
    copies(driver, volume, times, From::Volume(&volume.id)).await
}

async fn copies(
    driver: &mut Driver,
    volume: &Volume,
    times: usize,
    source: From<'_>,
) -> Result<Calls> {
    let writer = Writer::start(&volume.staging)?;
    let (mut taken, mut made) = (Vec::new(), Vec::new());
    for number in 0..times {
        interruption::check()?;
        let name = format!("copy-{number}");
        let begin = Instant::now();
        let id = driver.client.create(&name, source, volume.mebibytes);
        made.push(id.await?);
        taken.push(begin.elapsed());
    }
    let stall = writer.stop()?;
    for id in made {
        driver.client.delete(&id).await?;
    }
    driver.settle().await?;
    Ok(Calls::new(taken, stall))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
