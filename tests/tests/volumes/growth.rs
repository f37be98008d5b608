//! Volumes that grow.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tests::{
    process::can_have,
    shared::{SharedSuite, World},
    tenant::{Tenant, Wish},
    wait::eventually,
};

use crate::{EXT4, STAY, WAIT, XFS, writer};

/// CAP_SYS_RESOURCE, without which a mounted ext4 does not grow (Linux `fs/ext4/ioctl.c`).
const SYS_RESOURCE: u32 = 24;

const GIB: u64 = 1 << 30;
const GROWN: &str = "3Gi";
/// More than there was, and not all of what there is then: file systems need some for themselves.
const ROOM: u64 = 2 * GIB + GIB / 2;

pub fn add(suite: &mut SharedSuite) -> Result<()> {
    suite.test("xfs_grows_under_a_writing_pod", async |world| {
        under_a_writing_pod(world, "growth-xfs", &XFS).await
    });
    if can_have(SYS_RESOURCE)? {
        suite.test("ext4_grows_under_a_writing_pod", async |world| {
            under_a_writing_pod(world, "growth-ext4", &EXT4).await
        });
    } else {
        suite.test("ext4_grows_for_the_next_pod", for_the_next_pod);
    }
    Ok(())
}

async fn under_a_writing_pod(world: &World, name: &str, wish: &Wish<'_>) -> Result<()> {
    let tenant = world.tenant(name).await?;
    let folder = writing(&tenant, wish).await?;
    grow(&tenant).await?;
    has_grown(&tenant, "writer", &folder).await?;
    writer::progress(&folder).await?;
    // It was never started again.
    tenant.running("writer", WAIT).await?;
    nothing_lost(&tenant, &folder).await
}

/// Where the kernel does not let a mounted ext4 grow, the pod that has it mounted goes on as it was,
/// and the next one has all of it.
async fn for_the_next_pod(world: &World) -> Result<()> {
    let tenant = world.tenant("growth-ext4").await?;
    let folder = writing(&tenant, &EXT4).await?;
    grow(&tenant).await?;
    let image = tenant.image("data", world.cluster.node(0)).await?;
    eventually("the volume's image has grown", WAIT, async || {
        ensure!(fs::metadata(&image)?.len() == 3 * GIB);
        Ok(())
    })
    .await?;
    writer::progress(&folder).await?;
    ensure!(size(&folder)? < GIB, "it grew in use");
    ensure!(
        tenant.size("data").await? == EXT4.size,
        "it is said to have"
    );
    tenant.running("writer", WAIT).await?;
    nothing_lost(&tenant, &folder).await?;
    let folder = tenant.mounted("next", "data", WAIT).await?;
    has_grown(&tenant, "next", &folder).await
}

/// A PVC `data`, and a pod that writes to it all the time.
async fn writing(tenant: &Tenant<'_>, wish: &Wish<'_>) -> Result<PathBuf> {
    tenant.claim("data", wish).await?;
    tenant.pod("writer", "data", writer::SCRIPT).await?;
    let folder = tenant.mounted("writer", "data", WAIT).await?;
    writer::progress(&folder).await?;
    ensure!(size(&folder)? < GIB, "{} is too large already", tenant.name);
    Ok(folder)
}

/// Asks for a larger PVC, and waits until it is kubelet's turn. Of its own accord kubelet looks for
/// that once in a minute or so, unless something about the pod has changed.
async fn grow(tenant: &Tenant<'_>) -> Result<()> {
    tenant.resize("data", GROWN).await?;
    eventually("it is for the node to grow the volume", WAIT, async || {
        let claim = tenant.api::<PersistentVolumeClaim>().get("data").await?;
        let conditions = claim.status.and_then(|status| status.conditions);
        let mut kinds = conditions.iter().flatten().map(|found| &found.type_);
        ensure!(kinds.any(|kind| kind == "FileSystemResizePending"));
        Ok(())
    })
    .await?;
    let change = json!({"metadata": {"annotations": {"changed": "yes"}}});
    tenant
        .api::<Pod>()
        .patch("writer", &PatchParams::default(), &Patch::Merge(change))
        .await?;
    Ok(())
}

/// Waits until Kubernetes says so, and has the pod take what only a larger file system gives.
async fn has_grown(tenant: &Tenant<'_>, pod: &str, folder: &Path) -> Result<()> {
    eventually("the PVC has its new size", WAIT, async || {
        let size = tenant.size("data").await?;
        ensure!(size == GROWN, "it says {size}");
        Ok(())
    })
    .await?;
    let size = size(folder)?;
    ensure!(size > ROOM, "the file system has {size} bytes");
    let take = format!("fallocate -l {ROOM} /data/room");
    tenant.exec(pod, &take).await.map(drop)
}

/// Ends the writer; the next pod finds all that it wrote, each record whole and in its place.
async fn nothing_lost(tenant: &Tenant<'_>, folder: &Path) -> Result<()> {
    let written = writer::written(folder)?;
    tenant.delete_pod("writer").await?;
    tenant.unstaged("data", WAIT).await?;
    tenant.pod("next", "data", STAY).await?;
    let folder = tenant.mounted("next", "data", WAIT).await?;
    let found = writer::prefix(&folder)?;
    ensure!(found >= written, "{found} records of {written}");
    Ok(())
}

/// What the file system says it has.
fn size(folder: &Path) -> Result<u64> {
    let told = rustix::fs::statvfs(folder).with_context(|| folder.display().to_string())?;
    Ok(told.f_blocks * told.f_frsize)
}
