//! Objects deleted and processes killed while bytes are being written.

use std::time::Duration;

use anyhow::{Result, ensure};
use crds::VolumeBackup;
use kube::api::DeleteParams;
use tests::{
    product,
    s3::fault::{Fault, FaultProxy},
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
};

use crate::original::{Original, SLOW};

const WAIT: Duration = Duration::from_secs(120);

pub fn add(suite: &mut SharedSuite) {
    suite.test("the_pvc_is_deleted_midway", pvc_deleted);
    suite.test("the_volume_backup_is_deleted_midway", backup_deleted);
    suite.test(
        "all_containers_of_the_product_are_killed_midway",
        all_killed,
    );
}

async fn midway<'a>(
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

async fn whole(tenant: &Tenant<'_>, original: &Original) -> Result<()> {
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
