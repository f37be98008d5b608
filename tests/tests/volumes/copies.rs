//! A clone and a restored snapshot in use, while their source is staged anew beside them. An XFS
//! knows itself by a number that copies share.

use anyhow::{Result, ensure};
use tests::{
    shared::{SharedSuite, World},
    tenant::{Tenant, Wish, claim_source, snapshot_source},
};

use crate::{EXT4, STAY, WAIT, XFS};

pub fn add(suite: &mut SharedSuite) {
    suite.test("ext4_source_is_staged_beside_its_copies", async |world| {
        beside_copies(world, "copies-ext4", &EXT4).await
    });
    suite.test("xfs_source_is_staged_beside_its_copies", async |world| {
        beside_copies(world, "copies-xfs", &XFS).await
    });
}

/// What the source has when the snapshot is taken: not synced, so the freeze has to do it.
const WRITE: &str = "
set -e
mkdir /data/original
for n in $(seq 64); do
    dd if=/dev/urandom of=/data/original/$n bs=128k count=1 2> /dev/null
done";

const SUMS: &str = "cd /data/original && md5sum *";

async fn beside_copies(world: &World, name: &str, wish: &Wish<'_>) -> Result<()> {
    let tenant = world.tenant(name).await?;
    tenant.claim("source", wish).await?;
    tenant.pod("first", "source", STAY).await?;
    tenant.running("first", WAIT).await?;
    tenant.exec("first", WRITE).await?;
    let original = tenant.exec("first", SUMS).await?;
    ensure!(original.lines().count() == 64, "{original}");

    tenant.snapshot("snapshot", "source").await?;
    tenant.snapshot_ready("snapshot", WAIT).await?;
    tenant.exec("first", "echo yes > /data/later").await?;
    let snapshot = snapshot_source("snapshot");
    for (copy, from) in [("clone", claim_source("source")), ("restored", snapshot)] {
        tenant.claim_from(copy, wish, from).await?;
        tenant.pod(copy, copy, STAY).await?;
    }
    for (copy, later) in [("clone", "yes\n"), ("restored", "")] {
        tenant.running(copy, WAIT).await?;
        ensure!(tenant.phase(copy).await? == "Bound");
        ensure!(tenant.exec(copy, SUMS).await? == original, "{copy} differs");
        let found = tenant.exec(copy, "cat /data/later || true").await?;
        ensure!(found == later, "{copy} has {found:?} of what came later");
    }

    tenant.delete_pod("first").await?;
    tenant.unstaged("source", WAIT).await?;
    tenant.pod("second", "source", STAY).await?;
    tenant.running("second", WAIT).await?;
    independent(&tenant, &["second", "clone", "restored"], &original).await
}

/// Each pod's volume has the original, and takes what no other sees.
async fn independent(tenant: &Tenant<'_>, pods: &[&str], original: &str) -> Result<()> {
    for pod in pods {
        let own = format!("echo {pod} > /data/own && cp /data/own /data/original/1 && sync");
        tenant.exec(pod, &own).await?;
    }
    for pod in pods {
        let own = tenant.exec(pod, "cat /data/own /data/original/1").await?;
        ensure!(own == format!("{pod}\n{pod}\n"), "{pod} has {own:?}");
        let others = |sums: &str| -> Vec<String> {
            let others = sums.lines().filter(|line| !line.ends_with("  1"));
            others.map(str::to_owned).collect()
        };
        let found = tenant.exec(pod, SUMS).await?;
        ensure!(others(&found) == others(original), "{pod} differs");
    }
    Ok(())
}
