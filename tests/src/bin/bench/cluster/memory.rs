//! What the agent takes for a large restore, and how fast it is.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use tests::{
    large::{LIMIT, Large},
    shared::World,
};

use super::mebibytes;
use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "peer: `zstd -dc ARCHIVE | tar x` from a local file into a folder of this \
machine's disk, then sync.\nMemory is the agent's VmHWM, the largest of both nodes; its container's \
limit is the goal.";

/// Rows for peak memory and seconds.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub async fn measure(world: &World, rows: &mut Vec<Row>) -> Result<()> {
    let large = Large::restore(world, Duration::from_secs(300)).await?;
    let peer = by_tar(&large.archive())?;
    let (peak, limit) = (mebibytes(large.peak()), mebibytes(LIMIT));
    let files = format!("{} files, seconds", large.files);
    let seconds = large.result.seconds as f64;
    rows.extend([
        Row::new("peak memory of the agent", peak, None, Some(limit), "MiB"),
        Row::new(&files, seconds, Some(peer), None, "s"),
    ]);
    Ok(())
}

fn by_tar(archive: &Path) -> Result<f64> {
    let target = tempfile::tempdir()?;
    let begin = std::time::Instant::now();
    let script = "set -o pipefail; zstd -dc \"$1\" | tar x -C \"$2\" && sync -f \"$2\"";
    let mut shell = Command::new("bash");
    let shell = shell.args(["-c", script, "tar"]);
    tests::command::run(shell.arg(archive).arg(target.path()))?;
    Ok(begin.elapsed().as_secs_f64())
}
