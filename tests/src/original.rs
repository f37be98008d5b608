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

/// What the archive is called in its bucket.
pub const KEY: &str = "archive";

/// The odd tree and its archive.
pub struct Original(tempfile::TempDir);

impl Original {
    /// The odd tree with so many bytes of noise, and its archive.
    pub fn make(noise: u64) -> Result<Self> {
        let original = Self(tempfile::tempdir()?);
        odd_tree::make(&original.tree())?;
        odd_tree::noise(&original.tree().join("noise"), noise)?;
        odd_tree::pack(&original.tree(), &original.archive(), "tar.gz")?;
        Ok(original)
    }

    /// A tenant with the odd tree's archive as VolumeBackup `backup`, read through a proxy; and the
    /// tree itself.
    pub async fn with_tenant<'a>(
        world: &'a World,
        faults: &FaultProxy,
        name: &str,
    ) -> Result<(Tenant<'a>, Self)> {
        let tenant = world.tenant_through(faults, name).await?;
        // Enough for many ranges, so that a slow restore is met midway.
        let original = Self::make(24 << 20)?;
        original.upload(world, &tenant).await?;
        tenant.backup("backup", KEY).await?;
        Ok((tenant, original))
    }

    /// Puts the archive into the tenant's bucket, in the place of another one if there is one.
    pub async fn upload(&self, world: &World, tenant: &Tenant<'_>) -> Result<()> {
        let archive = self.archive();
        let put = world.server.put_file(&tenant.name, KEY, &archive);
        put.await.map(drop)
    }

    /// An error that lists the differences, if there are any.
    pub fn equals(&self, restored: &Path) -> Result<()> {
        let differences = tree::differences(&tree::read(&self.tree())?, &tree::read(restored)?);
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        Ok(())
    }

    fn archive(&self) -> PathBuf {
        self.0.path().join("archive")
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("tree")
    }
}
