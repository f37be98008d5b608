//! A large restore: 1 GiB of real files from a `tar.zst`, and what the agents took for it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use crds::volume_restore::RestoreResult;
use tempfile::TempDir;

use crate::{
    process::peak_memory,
    product::{self, Container},
    sample::{Compression, Sample},
    shared::World,
    tenant::Wish,
};

/// What an agent may take while it restores one archive, in bytes: below the limit of its container in
/// `deploy/populator/agent.yaml`, which is for `--concurrency` of them.
pub const LIMIT: u64 = 256 << 20;

/// What was restored.
pub struct Large {
    /// How many files it has.
    pub files: usize,
    /// What the populator says of it.
    pub result: RestoreResult,
    /// The agents, each with the most memory that it ever had, in bytes.
    pub agents: Vec<(Container, u64)>,
    folder: TempDir,
}

impl Large {
    /// Fills a PVC in a tenant of its own.
    pub async fn restore(world: &World, within: Duration) -> Result<Self> {
        let tenant = world.tenant("memory").await?;
        let sample = Sample::collect(20_000, 1 << 30)?;
        let folder = tempfile::tempdir()?;
        let archive = archive(&folder);
        sample.pack(&archive, Compression::Zstd)?;
        let put = world.server.put_file(&tenant.name, "archive", &archive);
        put.await?;
        tenant.backup("backup", "archive").await?;
        let wish = Wish {
            size: "4Gi",
            ..Wish::BACKUP
        };
        tenant.claim("data", &wish).await?;
        let status = tenant.completed("data", within).await?.status;
        let result = status
            .and_then(|status| status.result)
            .context("a result")?;
        let agents = product::agents(&world.cluster).await?.into_iter();
        let agents = agents.map(|agent| {
            let peak = peak_memory(agent.pid)?;
            Ok((agent, peak))
        });
        Ok(Self {
            files: sample.files,
            result,
            agents: agents.collect::<Result<_>>()?,
            folder,
        })
    }

    /// The archive, which goes with this value.
    pub fn archive(&self) -> PathBuf {
        archive(&self.folder)
    }

    /// The most memory that any of the agents ever had, in bytes.
    pub fn peak(&self) -> u64 {
        let peaks = self.agents.iter().map(|(_, peak)| *peak);
        peaks.max().unwrap_or(0)
    }
}

fn archive(folder: &TempDir) -> PathBuf {
    folder.path().join("archive")
}
