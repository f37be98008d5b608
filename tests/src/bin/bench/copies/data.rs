//! What the volumes are filled with, and how it lies on the disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::FallocateFlags;

use crate::interruption;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// Random writes between two snapshots.
pub const WRITES: u64 = 100_000;

/// Writes the file in order, in large pieces.
pub fn fill(path: &Path, mebibytes: u64) -> Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, mebibytes * MIB)?;
    let block: Vec<u8> = (0..MIB).map(|byte| (byte % 251) as u8).collect();
    for number in 0..mebibytes {
        interruption::check()?;
        file.write_all_at(&block, number * MIB)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Writes 4 KiB blocks of the file in an order that no allocator can foresee.
pub fn scatter(path: &Path, mebibytes: u64) -> Result<()> {
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
    for number in 0..WRITES {
        if number % 1_000 == 0 {
            interruption::check()?;
        }
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        file.write_all_at(&block.0, (state >> 33) % blocks * 4096)?;
    }
    file.sync_all()?;
    Ok(())
}

/// How many extents a file has, by filefrag(8), which asks the file system.
#[allow(clippy::cast_precision_loss, reason = "a count of extents")]
pub fn extents(image: &Path) -> Result<f64> {
    let said = tests::command::run(Command::new("filefrag").arg(image))?;
    let count = said.rsplit(": ").next().and_then(|it| it.split(' ').next());
    Ok(count.unwrap_or_default().parse::<u64>()? as f64)
}

/// How long it takes to copy all bytes, to the disk.
pub fn copy_all_bytes(image: &Path, target: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut cp = Command::new("cp");
    tests::command::run(
        cp.args(["--reflink=never", "--sparse=never"])
            .arg(image)
            .arg(target),
    )?;
    File::open(target)?.sync_all()?;
    let elapsed = begin.elapsed();
    std::fs::remove_file(target)?;
    Ok(elapsed)
}
