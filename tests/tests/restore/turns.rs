//! Whose turn it is on a node where more is to be filled than is filled at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::{RestoreOrder, restore_order::State};
use kube::Api;
use serde_json::json;
use tests::{
    original::{KEY, Original},
    product::NAMESPACE,
    s3::fault::Fault,
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
    wait::eventually,
};

const WAIT: Duration = Duration::from_secs(120);

/// How many volumes an agent fills at once, unless it is told otherwise.
const AT_ONCE: usize = 4;

/// For all of them together, so that none is done before it is looked at.
const LITTLE: Fault = Fault::Share(512 << 10);

const PRIORITY: &str = "backup.example.com/priority";

pub fn add(suite: &mut SharedSuite) {
    suite.test("the_most_urgent_of_a_namespace_is_next", urgent);
}

async fn urgent(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    faults.set(LITTLE).await?;
    let (tenant, original) = Original::with_tenant(world, &faults, "urgent").await?;
    let mut claims = Vec::new();
    for index in 0..AT_ONCE {
        claims.push(on_a_node(&tenant, &format!("early-{index}"), 0).await?);
    }
    for claim in &claims {
        tenant.restoring(&claim.name, WAIT).await?;
    }
    let late = on_a_node(&tenant, "late", 0).await?;
    let urgent = on_a_node(&tenant, "urgent", 7).await?;
    for (claim, priority) in [(&late, 0), (&urgent, 7)] {
        eventually("its agent has it wait", WAIT, || async {
            let order = order(world, claim).await?;
            ensure!(order.spec.priority == priority, "{}", order.spec.priority);
            Ok(())
        })
        .await?;
    }
    // One place becomes free.
    tenant.delete_claim(&claims[0].name).await?;
    tenant.restoring("urgent", WAIT).await?;
    let state = order(world, &late).await?.status.map(|it| it.state);
    ensure!(matches!(state, None | Some(State::Waiting)), "{state:?}");

    faults.set(Fault::None).await?;
    let all = claims.iter().skip(1).chain([&late, &urgent]);
    for claim in all.clone() {
        tenant.completed(&claim.name, WAIT).await?;
    }
    tenant.pod("reader", "late", "sleep 1000000").await?;
    original.equals(&tenant.mounted("reader", "late", WAIT).await?)?;
    tenant.delete_pod("reader").await?;
    for claim in all {
        tenant.delete_claim(&claim.name).await?;
    }
    for claim in claims.iter().chain([&late, &urgent]) {
        tenant.nothing_left(claim, WAIT).await?;
    }
    Ok(())
}

async fn on_a_node(tenant: &Tenant<'_>, name: &str, priority: i64) -> Result<Claim> {
    // Those that want the same would share one download, and one place.
    let choices = json!({"exclude": [format!("nothing-is-called-{name}")]});
    tenant.backup_as(name, KEY, choices).await?;
    let wish = Wish {
        class: "fast-csi-storage",
        backup: Some(name),
        ..Wish::BACKUP
    };
    let notes = json!({
        "volume.kubernetes.io/selected-node": "node-2", PRIORITY: priority.to_string(),
    });
    tenant
        .claim_with(name, &wish, |claim| {
            claim["metadata"]["annotations"] = notes;
        })
        .await
}

async fn order(world: &World, claim: &Claim) -> Result<RestoreOrder> {
    let orders = Api::<RestoreOrder>::namespaced(world.cluster.client(), NAMESPACE);
    orders
        .get(&format!("pvc-{}", claim.uid))
        .await
        .with_context(|| format!("the order of {}", claim.name))
}
