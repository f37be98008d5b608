//! What the agent takes for a large restore, and how fast it is.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use tests::{
    process::peak_memory,
    product,
    sample::{Compression, Sample},
    shared::World,
    tenant::Wish,
};

use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "peer: `zstd -dc ARCHIVE | tar x` from a local file into a folder of this \
machine's disk, then sync.\nMemory is the agent's VmHWM, the largest of both nodes; its container's \
limit is the goal.";

/// Rows for peak memory and seconds.
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub async fn measure(world: &World, rows: &mut Vec<Row>) -> Result<()> {
    let tenant = world.tenant("memory").await?;
    let sample = Sample::collect(20_000, 1 << 30)?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    sample.pack(&archive, Compression::Zstd)?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    tenant.backup("backup", "archive").await?;
    let wish = Wish {
        class: "fast-csi-storage",
        size: "4Gi",
        ..Wish::BACKUP
    };
    tenant
        .claim_on("data", &wish, world.cluster.node(0).name())
        .await?;
    let restore = tenant.completed("data", Duration::from_secs(300)).await?;
    let result = restore
        .status
        .and_then(|status| status.result)
        .context("a result")?;
    let peer = by_tar(&archive, folder.path())?;
    let agents = product::agents(&world.cluster).await?;
    let peaks = agents.iter().map(|agent| peak_memory(agent.pid));
    let peak = peaks
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .max()
        .context("an agent")?;
    let mebibytes = peak as f64 / f64::from(1 << 20);
    let files = format!("{} files, seconds", sample.files);
    rows.extend([
        Row::new(
            "peak memory of the agent",
            mebibytes,
            None,
            Some(256.0),
            "MiB",
        ),
        Row::new(&files, result.seconds as f64, Some(peer), None, "s"),
    ]);
    Ok(())
}

fn by_tar(archive: &Path, folder: &Path) -> Result<f64> {
    let target = folder.join("target");
    std::fs::create_dir(&target)?;
    let begin = std::time::Instant::now();
    let script = "set -o pipefail; zstd -dc \"$1\" | tar x -C \"$2\" && sync -f \"$2\"";
    let mut shell = Command::new("bash");
    tests::command::run(shell.args(["-c", script, "tar"]).arg(archive).arg(&target))?;
    Ok(begin.elapsed().as_secs_f64())
}
