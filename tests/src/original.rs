//! The tree that is to come back.

use std::path::{Path, PathBuf};

use crate::{
    odd_tree,
    s3::fault::{Fault, FaultProxy},
    shared::World,
    tenant::Tenant,
    tree,
};
use anyhow::{Result, ensure};

/// Slow enough for a restore to be met midway: bytes a second for each of the ranges in flight.
pub const SLOW: Fault = Fault::Throttle(256 << 10);

/// The odd tree and its archive.
pub struct Original(tempfile::TempDir);

impl Original {
    /// A tenant with the odd tree's archive as VolumeBackup `backup`, read through a proxy; and the
    /// tree itself.
    pub async fn with_tenant<'a>(
        world: &'a World,
        faults: &FaultProxy,
        name: &str,
    ) -> Result<(Tenant<'a>, Self)> {
        let tenant = world.tenant_through(faults, name).await?;
        let original = Self(tempfile::tempdir()?);
        odd_tree::make(&original.tree())?;
        // Enough for many ranges, so that a slow restore is met midway.
        odd_tree::noise(&original.tree().join("noise"), 24 << 20)?;
        let archive = original.0.path().join("archive");
        odd_tree::pack(&original.tree(), &archive, "tar.gz")?;
        world.server.put_file(name, "archive", &archive).await?;
        tenant.backup("backup", "archive").await?;
        Ok((tenant, original))
    }

    /// An error that lists the differences, if there are any.
    pub fn equals(&self, restored: &Path) -> Result<()> {
        let differences = tree::differences(&tree::read(&self.tree())?, &tree::read(restored)?);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        Ok(())
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("tree")
    }
}
