//! 1 GiB of real files from a `tar.zst`, within the memory that the agent's container has.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    product,
    sample::{Compression, Sample},
    shared::{SharedSuite, World},
    tenant::Wish,
};

/// The container's limit in `deploy/populator/agent.yaml`.
const LIMIT: u64 = 256 << 20;

pub fn add(suite: &mut SharedSuite) {
    suite.test("one_gibibyte_within_256_mebibytes_of_memory", bounded);
}

async fn bounded(world: &World) -> Result<()> {
    let tenant = world.tenant("memory").await?;
    let sample = Sample::collect(20_000, 1 << 30)?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    sample.pack(&archive, Compression::Zstd)?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    drop(folder);
    tenant.backup("backup", "archive").await?;
    tenant
        .claim(
            "data",
            &Wish {
                size: "4Gi",
                ..Wish::BACKUP
            },
        )
        .await?;
    tenant.completed("data", Duration::from_secs(180)).await?;
    for agent in product::agents(&world.cluster).await? {
        let peak = tests::process::peak_memory(agent.pid)?;
        ensure!(
            peak <= LIMIT,
            "the agent on {} took {} MiB",
            agent.node,
            peak >> 20
        );
        ensure!(
            agent.restarts == 0,
            "the agent on {} was restarted",
            agent.node
        );
    }
    Ok(())
}
