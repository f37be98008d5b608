//! Agents and nodes that do not answer any more.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Node},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use serde_json::json;
use tests::{
    original::Original,
    product::NAMESPACE,
    s3::fault::Fault,
    shared::{SharedSuite, World},
    tenant::Wish,
};

use super::midway::{WAIT, midway, whole};

pub fn add(suite: &mut SharedSuite) {
    suite.test(
        "an_agent_without_api_server_stops_writing_before_it_may_be_replaced",
        cut_off,
    );
    suite.test("a_restore_leaves_a_node_that_is_down", down);
    suite.test(
        "a_cordoned_node_gets_no_restore_that_could_go_elsewhere",
        cordoned,
    );
}

/// By the time at which its order might be given to another node (`leaseDurationSeconds`), an agent that cannot
/// renew its Lease reads nothing more, and has nothing mounted that it could write to.
async fn cut_off(world: &World) -> Result<()> {
    const EXPIRY: Duration = Duration::from_secs(40);
    let faults = world.server.fault_proxy().await?;
    let (tenant, original, _claim) = midway(world, &faults, "cut-off").await?;
    let order = tenant.written("data", 1 << 20, WAIT).await?;
    let node = world.cluster.node_named(&order.spec.node_name)?;
    let uid = order.uid().context("a UID")?;
    let mounts = || -> Result<usize> {
        let of_it = |path: &Path| path.components().any(|part| part.as_os_str() == &*uid);
        Ok(node.mounts()?.iter().filter(|it| of_it(&it.target)).count())
    };
    ensure!(mounts()? > 0, "it is mounted");

    world.cluster.pause_api_server()?;
    let (since, begin) = (Instant::now(), faults.body_bytes());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let early = faults.body_bytes();
    tokio::time::sleep_until((since + EXPIRY).into()).await;
    let (late, left) = (faults.body_bytes(), mounts());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let later = faults.body_bytes();
    world.cluster.resume_api_server().await?;

    ensure!(early > begin, "it read on at first: {begin}, {early}");
    ensure!(late == later, "it still reads: {late}, {later}");
    ensure!(left? == 0, "it still has the volume mounted");
    faults.set(Fault::None).await?;
    whole(&tenant, &original).await
}

/// A node that will not answer is left once its agent's Lease is over, though its Node object stays.
async fn down(world: &World) -> Result<()> {
    const GHOST: &str = "ghost";
    let faults = world.server.fault_proxy().await?;
    let (tenant, original) = Original::with_tenant(world, &faults, "node-down").await?;
    let nodes: Api<Node> = Api::all(world.cluster.client());
    let leases: Api<Lease> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let there = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": GHOST},
        "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]},
    });
    nodes
        .create(&PostParams::default(), &serde_json::from_value(there)?)
        .await?;
    // As its agent has left it.
    let real = leases
        .get(&format!("agent-{}", world.cluster.node(0).name()))
        .await?;
    let mut spec = real.spec.clone().context("a Lease says who holds it")?;
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    let left = Lease {
        metadata: ObjectMeta {
            name: Some(format!("agent-{GHOST}")),
            labels: Some(real.labels().clone()),
            annotations: Some(real.annotations().clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    leases.create(&PostParams::default(), &left).await?;
    let wish = Wish {
        class: "fast-csi-storage",
        ..Wish::BACKUP
    };
    let claim = tenant.claim_on("data", &wish, GHOST).await?;
    tenant.was_told(&claim, "AgentSilent", WAIT).await?;
    // The scheduler may choose anew, and does for a pod.
    tenant.pod("reader", "data", "sleep 1000000").await?;
    tenant.completed("data", WAIT).await?;
    let mounted = tenant.mounted("reader", "data", WAIT).await?;
    original.equals(&mounted)?;
    leases
        .delete(&left.name_any(), &DeleteParams::default())
        .await?;
    nodes.delete(GHOST, &DeleteParams::default()).await?;
    Ok(())
}

/// Under Immediate, where the populator chooses.
async fn cordoned(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, _original) = Original::with_tenant(world, &faults, "cordoned").await?;
    for index in [0, 1] {
        let node = world.cluster.node(index).name();
        world.cluster.kubectl(&["cordon", node]).await?;
        // A list of a moment ago counts.
        tokio::time::sleep(Duration::from_secs(6)).await;
        for claim in ["a", "b"].map(|name| format!("{name}-{index}")) {
            tenant.claim(&claim, &Wish::BACKUP).await?;
            let restore = tenant.completed(&claim, WAIT).await?;
            let there = restore.status.and_then(|status| status.node_name);
            ensure!(
                there.as_deref() != Some(node),
                "{claim} went to {node}, which is cordoned"
            );
        }
        world.cluster.kubectl(&["uncordon", node]).await?;
    }
    Ok(())
}
