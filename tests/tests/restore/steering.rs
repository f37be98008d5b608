//! A PVC that is made from a snapshot or from another PVC goes to the node where that lies, wherever
//! its pod would rather be; and it is not sent round in circles where there is no room.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use serde_json::Value;
use tests::{
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish, claim_source, snapshot_source},
    wait::eventually,
};

const WAIT: Duration = Duration::from_secs(120);

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_clone_goes_where_its_source_lies", clones);
    suite.test("a_snapshot_is_restored_where_it_lies", snapshots);
    suite.test("a_clone_that_finds_no_room_is_told_so_once", no_room);
}

const EMPTY: Wish<'static> = Wish {
    class: "fast-csi-storage",
    size: "1Gi",
    backup: None,
};

/// A PVC `original` on the first node, with a file in it.
async fn original(world: &World, tenant: &Tenant<'_>) -> Result<Claim> {
    let node = world.cluster.node(0).name();
    let claim = tenant.claim_on("original", &EMPTY, node).await?;
    let script = "echo original > /data/file && sync && sleep 1000000";
    tenant.pod("writer", "original", script).await?;
    let folder = tenant.mounted("writer", "original", WAIT).await?;
    eventually("the original's file", WAIT, || async {
        ensure!(fs::read_to_string(folder.join("file"))? == "original\n");
        Ok(())
    })
    .await?;
    Ok(claim)
}

async fn clones(world: &World) -> Result<()> {
    let tenant = world.tenant("clones").await?;
    original(world, &tenant).await?;
    let source = claim_source("original");
    comes_to_its_source(world, &tenant, "later", source.clone()).await?;
    bound_without_a_pod(world, &tenant, "at-once", source).await
}

async fn snapshots(world: &World) -> Result<()> {
    let tenant = world.tenant("snapshots").await?;
    original(world, &tenant).await?;
    // Not waited for: people write snapshot and PVC in one go.
    tenant.snapshot("snapshot", "original").await?;
    let source = snapshot_source("snapshot");
    comes_to_its_source(world, &tenant, "later", source.clone()).await?;
    bound_without_a_pod(world, &tenant, "at-once", source).await
}

/// Under WaitForFirstConsumer, whose pod would rather be on the other node.
async fn comes_to_its_source(
    world: &World,
    tenant: &Tenant<'_>,
    name: &str,
    source: Value,
) -> Result<()> {
    let (here, elsewhere) = (world.cluster.node(0).name(), world.cluster.node(1).name());
    // The pod first, so that the scheduler makes its choice as early as it can.
    tenant
        .pod_preferring(name, name, "sleep 1000000", elsewhere)
        .await?;
    let claim = tenant.claim_from(name, &EMPTY, source).await?;
    let folder = tenant.mounted(name, name, WAIT).await?;
    ensure!(fs::read_to_string(folder.join("file"))? == "original\n");
    let pod = tenant.api::<Pod>().get(name).await?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    ensure!(node.as_deref() == Some(here), "the pod is on {node:?}");
    told_once(tenant, &claim, "SourceNodeSelected").await
}

/// Under Immediate, where no pod asks for it.
async fn bound_without_a_pod(
    world: &World,
    tenant: &Tenant<'_>,
    name: &str,
    source: Value,
) -> Result<()> {
    let immediate = Wish {
        class: "fast-csi-storage-immediate",
        ..EMPTY
    };
    let claim = tenant.claim_from(name, &immediate, source).await?;
    eventually("it is bound", WAIT, || async {
        ensure!(tenant.phase(name).await? == "Bound");
        Ok(())
    })
    .await?;
    ensure!(selected_node(tenant, name).await?.as_deref() == Some(world.cluster.node(0).name()));
    told_once(tenant, &claim, "SourceNodeSelected").await
}

/// The provisioner takes the choice back each time. Between its tries there is a pause, and the
/// other node is never asked.
async fn no_room(world: &World) -> Result<()> {
    let tenant = world.tenant("clone-without-room").await?;
    original(world, &tenant).await?;
    let large = Wish {
        class: "fast-csi-storage-immediate",
        size: "500Gi",
        ..EMPTY
    };
    let claim = tenant
        .claim_from("large", &large, claim_source("original"))
        .await?;
    eventually("it is told that there is no room", WAIT, || async {
        let warnings = tenant.warnings(&claim).await?;
        let reasons: Vec<_> = warnings.iter().map(|event| event.reason.clone()).collect();
        ensure!(
            reasons == [Some("SourceNodeFull".to_owned())],
            "{reasons:?}"
        );
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    ensure!(tenant.warnings(&claim).await?.len() == 1);
    told_once(&tenant, &claim, "SourceNodeSelected").await?;
    // The API server's own record: each choice is a patch of the PVC by the controller. At 1, 2, 4
    // and 8 seconds and so on: a handful in this time.
    let events = world.cluster.audit_log().events()?;
    let choices = events
        .iter()
        .filter(|event| event.verb == "patch" && event.resource == "persistentvolumeclaims")
        .filter(|event| event.namespace == tenant.name && event.name == "large")
        .filter(|event| event.user.ends_with(":controller"))
        .count();
    ensure!(
        (2..=8).contains(&choices),
        "the node was chosen {choices} times"
    );
    tenant.delete_claim("large").await?;
    tenant.nothing_left(&claim, WAIT).await
}

async fn selected_node(tenant: &Tenant<'_>, claim: &str) -> Result<Option<String>> {
    let claim = tenant.api::<PersistentVolumeClaim>().get(claim).await?;
    Ok(claim.annotations().get(SELECTED_NODE).cloned())
}

async fn told_once(tenant: &Tenant<'_>, claim: &Claim, reason: &str) -> Result<()> {
    let told = tenant.told(claim).await?;
    let these: Vec<_> = told
        .iter()
        .filter(|event| event.reason.as_deref() == Some(reason))
        .map(|event| event.message.clone().unwrap_or_default())
        .collect();
    let message = these.first().context("nothing was told")?;
    ensure!(these.len() == 1, "told more than once: {these:?}");
    ensure!(
        message.contains(" lies"),
        "these words help nobody: {message}"
    );
    Ok(())
}
