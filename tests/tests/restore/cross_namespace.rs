//! A VolumeBackup of another namespace, read when a ReferenceGrant there allows it, and no longer than
//! that.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use serde_json::json;
use tests::{
    original::{Original, SLOW},
    s3::fault::Fault,
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
};

const WAIT: Duration = Duration::from_secs(120);

pub fn add(suite: &mut SharedSuite) {
    suite.test(
        "a_backup_of_another_namespace_comes_back_once_it_is_granted",
        granted,
    );
    suite.test("a_grant_that_is_taken_away_ends_a_restore", revoked);
}

/// A namespace with PVCs and nothing else: no BackupStore, no Secret.
async fn bare<'a>(world: &'a World, name: &str) -> Result<Tenant<'a>> {
    world
        .cluster
        .kubectl(&["create", "namespace", name])
        .await?;
    Ok(Tenant {
        cluster: &world.cluster,
        name: name.to_owned(),
    })
}

/// A PVC of `tenant` that names the VolumeBackup of `owner`.
async fn claim(tenant: &Tenant<'_>, owner: &Tenant<'_>) -> Result<Claim> {
    tenant
        .claim_with("data", &Wish::BACKUP, |claim| {
            claim["spec"]["dataSourceRef"]["namespace"] = json!(owner.name);
        })
        .await
}

/// Lets the PVCs of `tenant` name the VolumeBackups of `owner`.
async fn grant(owner: &Tenant<'_>, tenant: &Tenant<'_>) -> Result<()> {
    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "grant", "namespace": owner.name},
        "spec": {
            "from": [{"group": "", "kind": "PersistentVolumeClaim", "namespace": tenant.name}],
            "to": [{"group": crds::GROUP, "kind": "VolumeBackup", "name": "backup"}],
        },
    });
    let apply = ["apply", "--validate=strict", "-f", "-"];
    let cluster = owner.cluster;
    cluster
        .kubectl_with_input(&apply, &grant.to_string())
        .await
        .map(drop)
}

async fn granted(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (owner, original) = Original::with_tenant(world, &faults, "granting").await?;
    let tenant = bare(world, "granted").await?;
    let claim = claim(&tenant, &owner).await?;
    let words = tenant.warned(&claim, "RefNotPermitted", WAIT).await?;
    ensure!(words.contains("in namespace granting"), "{words}");
    tenant.nothing_left(&claim, WAIT).await?;

    grant(&owner, &tenant).await?;
    let restore = tenant.completed("data", WAIT).await?;
    let spec = restore.spec;
    let namespace = spec.volume_backup_namespace.as_deref();
    ensure!(namespace == Some("granting"), "{spec:?}");
    let told = tenant.told(&claim).await?;
    let mut told = told.iter().filter_map(|event| event.message.as_deref());
    let begun = told.find(|message| message.starts_with("restoring VolumeBackup"));
    let begun = begun.context("it is told what is restored")?;
    ensure!(begun.contains("VolumeBackup granting/backup on"), "{begun}");
    tenant.pod("reader", "data", "sleep 1000000").await?;
    original.equals(&tenant.mounted("reader", "data", WAIT).await?)?;
    let secrets: Api<Secret> = tenant.api();
    let secrets = secrets.list(&ListParams::default()).await?.items;
    ensure!(secrets.is_empty(), "credentials have come along");

    // The volume is the PVC's own by now.
    owner
        .cluster
        .kubectl(&["delete", "referencegrant", "grant", "-n", &owner.name])
        .await?;
    tenant.delete_pod("reader").await?;
    tenant.delete_claim("data").await?;
    tenant.forgotten(&claim, WAIT).await
}

async fn revoked(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (owner, original) = Original::with_tenant(world, &faults, "revoking").await?;
    let tenant = bare(world, "revoked").await?;
    faults.set(SLOW).await?;
    grant(&owner, &tenant).await?;
    let claim = claim(&tenant, &owner).await?;
    tenant.restoring("data", WAIT).await?;

    let revoke = ["delete", "referencegrant", "grant", "-n", &owner.name];
    owner.cluster.kubectl(&revoke).await?;
    tenant.warned(&claim, "RefNotPermitted", WAIT).await?;
    tenant.nothing_left(&claim, WAIT).await?;
    ensure!(tenant.phase("data").await? == "Pending");

    faults.set(Fault::None).await?;
    grant(&owner, &tenant).await?;
    tenant.completed("data", WAIT).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    original.equals(&tenant.mounted("reader", "data", WAIT).await?)
}
