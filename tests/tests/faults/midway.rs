//! Objects deleted and processes killed while bytes are being written.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::{RestoreOrder, VolumeBackup};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{ResourceExt as _, api::DeleteParams};
use tests::{
    original::{Original, SLOW},
    product,
    s3::fault::{Fault, FaultProxy},
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
    wait::eventually,
};

pub const WAIT: Duration = Duration::from_secs(120);

pub fn add(suite: &mut SharedSuite) {
    suite.test("the_pvc_is_deleted_midway", pvc_deleted);
    suite.test("the_volume_backup_is_deleted_midway", backup_deleted);
    suite.test("a_killed_agent_goes_on_from_its_checkpoint", goes_on);
    suite.test(
        "an_agent_that_is_killed_time_and_again_is_told",
        interrupted,
    );
    suite.test("the_pod_is_deleted_midway", pod_deleted);
    suite.test("what_is_paused_keeps_nobody_waiting", paused_before_another);
    suite.test(
        "all_containers_of_the_product_are_killed_midway",
        all_killed,
    );
}

/// What is fetched after the kill is less than the whole archive.
async fn goes_on(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original, claim) = midway(world, &faults, "goes-on").await?;
    let order = tenant.written("data", 12 << 20, WAIT).await?;
    let fetched = |order: &RestoreOrder| order.status.as_ref().map_or(0, |it| it.bytes_fetched);
    let before = fetched(&order);
    for agent in product::agents(&world.cluster).await? {
        tests::process::kill(agent.pid);
    }
    faults.set(Fault::None).await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore.status.and_then(|status| status.result);
    let after = result.context("a result")?.bytes_fetched - before;
    let size = order.spec.archive.size;
    ensure!(
        after < size - (4 << 20),
        "{after} bytes were fetched after {before} of {size}"
    );
    let pvc = tenant.api::<PersistentVolumeClaim>().get("data").await?;
    let progress = pvc.annotations().get("backup.example.com/progress");
    ensure!(
        progress.is_some_and(|it| it.starts_with("100%, ")),
        "the PVC says {progress:?}"
    );
    let mut told = tenant.told(&claim).await?;
    told.retain(|event| event.reason.as_deref() == Some("Progress"));
    ensure!((1..=3).contains(&told.len()), "{told:?}");
    whole(&tenant, &original).await
}

/// Whatever ends the agent in the middle of one restore does not end it for ever without a word.
async fn interrupted(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original, claim) = midway(world, &faults, "interrupted").await?;
    for _ in 0..3 {
        let agents = product::agents(&world.cluster).await?;
        for agent in &agents {
            tests::process::kill(agent.pid);
        }
        // What was asked for by then was asked for by those that are gone.
        let asked = faults.seen().len();
        eventually("another one reads on", WAIT, async || {
            let again = faults.seen().len();
            let told = tenant.warnings(&claim).await?;
            let is_told = told
                .iter()
                .any(|event| event.reason.as_deref() == Some("AgentInterrupted"));
            ensure!(again > asked || is_told, "{again} requests");
            Ok(())
        })
        .await?;
    }
    tenant.was_told(&claim, "AgentInterrupted", WAIT).await?;
    faults.set(Fault::None).await?;
    whole(&tenant, &original).await
}

/// The restore that a pod has brought about goes on without it, and is the next one's.
async fn pod_deleted(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original) = Original::with_tenant(world, &faults, "pod-deleted").await?;
    faults.set(SLOW).await?;
    let wish = Wish {
        class: "fast-csi-storage",
        ..Wish::BACKUP
    };
    tenant.claim("data", &wish).await?;
    tenant.pod("first", "data", "sleep 1000000").await?;
    tenant.restoring("data", WAIT).await?;
    tenant.delete_pod("first").await?;
    faults.set(Fault::None).await?;
    whole(&tenant, &original).await
}

/// A restore that is to go on from its checkpoint goes before another of the same archive, but not while it is
/// paused.
async fn paused_before_another(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, _original) = Original::with_tenant(world, &faults, "paused-midway").await?;
    faults.set(SLOW).await?;
    let wish = Wish {
        class: "fast-csi-storage",
        ..Wish::BACKUP
    };
    let node = world.cluster.node(0).name();
    tenant.claim_on("first", &wish, node).await?;
    tenant.written("first", 12 << 20, WAIT).await?;
    tenant.pause("first", WAIT).await?;
    for agent in product::agents(&world.cluster).await? {
        tests::process::kill(agent.pid);
    }
    faults.set(Fault::None).await?;
    tenant.claim_on("second", &wish, node).await?;
    tenant.completed("second", WAIT).await?;
    tenant.resume("first").await?;
    tenant.completed("first", WAIT).await.map(drop)
}

/// A restore of a PVC called `data` that goes on through a slow store.
pub async fn midway<'a>(
    world: &'a World,
    faults: &FaultProxy,
    name: &str,
) -> Result<(Tenant<'a>, Original, Claim)> {
    let (tenant, original) = Original::with_tenant(world, faults, name).await?;
    faults.set(SLOW).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.restoring("data", WAIT).await?;
    Ok((tenant, original, claim))
}

/// Waits until it is complete, and compares what a pod sees with the archive.
pub async fn whole(tenant: &Tenant<'_>, original: &Original) -> Result<()> {
    tenant.completed("data", WAIT).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    let mounted = tenant.mounted("reader", "data", WAIT).await?;
    original.equals(&mounted)
}

async fn pvc_deleted(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, _original, claim) = midway(world, &faults, "pvc-deleted").await?;
    tenant.delete_claim("data").await?;
    tenant.forgotten(&claim, WAIT).await
}

async fn backup_deleted(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original, _claim) = midway(world, &faults, "backup-deleted").await?;
    tenant
        .api::<VolumeBackup>()
        .delete("backup", &DeleteParams::default())
        .await?;
    faults.set(Fault::None).await?;
    whole(&tenant, &original).await
}

async fn all_killed(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original, _claim) = midway(world, &faults, "all-killed").await?;
    let containers = product::containers(&world.cluster).await?;
    ensure!(
        containers.len() >= 7,
        "two nodes run driver, provisioner and agent: {containers:?}"
    );
    for container in &containers {
        tests::process::kill(container.pid);
    }
    faults.set(Fault::None).await?;
    whole(&tenant, &original).await
}
