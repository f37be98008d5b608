//! Snapshots, clones and restores beside a copy of all bytes: how long the calls take, and for how
//! long a writer waits, by the size of the data and by its fragmentation.

mod driver;
mod writer;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::driver::{Driver, Volume};
use self::writer::Writer;
use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "ours: the CSI call, median of nine, ext4 mounted and written to meanwhile \
(4 KiB appended and synced, again and again).\npeer: `cp --reflink=never` of the image, then sync. \
The goal holds up to 2,000 extents. csi-driver-host-path: not measured here.";

const MIB: u64 = 1 << 20;

/// How often each call is timed.
const CALLS: usize = 9;

/// Random writes between two snapshots.
const WRITES: u64 = 100_000;

/// The longest that a call may take, in milliseconds, where the data are in large extents.
const GOAL: f64 = 50.0;

/// All sizes that the disk has room for, each with and without fragments.
pub async fn measure() -> Result<Vec<Row>> {
    let mut driver = Driver::start().await?;
    let measured = sizes(&mut driver).await;
    driver.stop()?;
    measured
}

async fn sizes(driver: &mut Driver) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mebibytes in [100, 1024, 10 * 1024] {
        // The data, the copy that is the peer's, and what random writes take anew.
        if driver.free()? < mebibytes * MIB * 2 + 4096 * MIB {
            println!("{mebibytes} MiB: left out, the disk has no room for it");
            continue;
        }
        rows.extend(size(driver, mebibytes).await?);
    }
    Ok(rows)
}

async fn size(driver: &mut Driver, mebibytes: u64) -> Result<Vec<Row>> {
    let volume = driver.volume("source", mebibytes * 5 / 4 + 128).await?;
    let data = volume.staging.join("data");
    fill(&data, mebibytes)?;
    let mut rows = calls(driver, &volume, &format!("{mebibytes} MiB")).await?;
    let snapshot = driver.snapshot("before", &volume.id).await?;
    scatter(&data, mebibytes)?;
    let case = format!("{mebibytes} MiB, {WRITES} random writes");
    rows.extend(calls(driver, &volume, &case).await?);
    driver.delete_snapshot(&snapshot).await?;
    driver.remove(volume).await?;
    Ok(rows)
}

/// The rows of a volume as it is: the three calls, its extents, and the writer's longest wait.
async fn calls(driver: &mut Driver, volume: &Volume, case: &str) -> Result<Vec<Row>> {
    let extents = extents(&volume.image)?;
    let peer = milliseconds(copy_all_bytes(&volume.image)?);
    let goal = (extents <= 2_000.0).then_some(GOAL);
    let writer = Writer::start(&volume.staging)?;
    let (mut snapshots, mut restores, mut clones) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let begin = Instant::now();
        let snapshot = driver.snapshot("timed", &volume.id).await?;
        snapshots.push(begin.elapsed());
        let begin = Instant::now();
        let restored = driver.copy("restored", &snapshot, volume.mebibytes).await?;
        restores.push(begin.elapsed());
        driver.delete(&restored).await?;
        driver.delete_snapshot(&snapshot).await?;
        let begin = Instant::now();
        let clone = driver.copy("clone", &volume.id, volume.mebibytes).await?;
        clones.push(begin.elapsed());
        driver.delete(&clone).await?;
    }
    let stall = writer.stop()?;
    let row = |what: &str, ours: f64, peer: Option<f64>, goal: Option<f64>, unit| {
        Row::new(&format!("{case}: {what}"), ours, peer, goal, unit)
    };
    Ok(vec![
        row("extents", extents, None, None, "extents"),
        row("snapshot", median(snapshots), Some(peer), goal, "ms"),
        row("restore", median(restores), Some(peer), goal, "ms"),
        row("clone", median(clones), Some(peer), goal, "ms"),
        row(
            "longest stall of the writer",
            milliseconds(stall),
            None,
            None,
            "ms",
        ),
    ])
}

/// Writes the file in order, in large pieces.
fn fill(path: &Path, mebibytes: u64) -> Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::empty(),
        0,
        mebibytes * MIB,
    )?;
    let block: Vec<u8> = (0..MIB).map(|byte| (byte % 251) as u8).collect();
    for number in 0..mebibytes {
        file.write_all_at(&block, number * MIB)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Writes 4 KiB blocks of the file in an order that no allocator can foresee.
fn scatter(path: &Path, mebibytes: u64) -> Result<()> {
    #[repr(align(4096))]
    struct Aligned([u8; 4096]);
    let blocks = mebibytes * MIB / 4096;
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(direct)
        .open(path)?;
    let block = Box::new(Aligned([1; 4096]));
    // A linear congruence (Knuth's MMIX), the same in every run.
    let mut state = 0x5EED_u64;
    for _ in 0..WRITES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        file.write_all_at(&block.0, (state >> 33) % blocks * 4096)?;
    }
    file.sync_all()?;
    Ok(())
}

/// By filefrag(8), which asks the file system.
#[allow(clippy::cast_precision_loss, reason = "a count of extents")]
fn extents(image: &Path) -> Result<f64> {
    let said = tests::command::run(Command::new("filefrag").arg(image))?;
    let count = said.rsplit(": ").next().and_then(|it| it.split(' ').next());
    Ok(count.unwrap_or_default().parse::<u64>()? as f64)
}

fn copy_all_bytes(image: &Path) -> Result<Duration> {
    let target = image.with_file_name("copy");
    let begin = Instant::now();
    let mut cp = Command::new("cp");
    tests::command::run(
        cp.args(["--reflink=never", "--sparse=never"])
            .arg(image)
            .arg(&target),
    )?;
    File::open(&target)?.sync_all()?;
    let elapsed = begin.elapsed();
    std::fs::remove_file(&target)?;
    ensure!(elapsed > Duration::ZERO, "a clock that stands still");
    Ok(elapsed)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    milliseconds(times[times.len() / 2])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
