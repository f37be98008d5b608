//! How long a small restore takes beside an empty PVC of the same class, and what each costs the
//! API server.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use tests::{
    cluster::AuditEvent,
    odd_tree,
    shared::World,
    tenant::{Claim, Tenant, Wish},
};

use crate::table::Row;

/// How often each is measured, in turn.
const ROUNDS: usize = 9;

/// What one must know to read the figures.
pub const NOTE: &str = "peer: an empty PVC of the same class, made by csi-provisioner in the same \
run, in turn.\nBoth name their node (selected-node), so no scheduler is measured. Client limits as \
shipped:\ncsi-provisioner 5/s, kube-controller-manager 20/s. Requests without watches, leases and \
node status.";

/// Medians of both, and of the API requests for each.
pub async fn measure(world: &World) -> Result<Vec<Row>> {
    let tenant = world.tenant("latency").await?;
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    let noise = |index: usize| odd_tree::noise(&tree.join(index.to_string()), 64 << 10);
    (0..16).try_for_each(noise)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&tree, &archive, "tar.gz")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    tenant.backup("backup", "archive").await?;

    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let restored = format!("restored-{round}");
        ours.add(one(world, &tenant, &restored, Some("backup")).await?);
        peer.add(one(world, &tenant, &format!("empty-{round}"), None).await?);
    }
    Ok(vec![
        Row::new(
            "1 MiB archive, p50",
            ours.median(),
            Some(peer.median()),
            None,
            "s",
        ),
        Row::new(
            "1 MiB archive, slowest",
            ours.slowest(),
            Some(peer.slowest()),
            None,
            "s",
        ),
        Row::new(
            "API requests each, p50",
            ours.requests(),
            Some(peer.requests()),
            None,
            "requests",
        ),
    ])
}

/// Makes a PVC, and returns the seconds until it is bound and the requests that took.
async fn one(
    world: &World,
    tenant: &Tenant<'_>,
    name: &str,
    backup: Option<&str>,
) -> Result<(f64, usize)> {
    let mark = world.cluster.audit_log().mark()?;
    let begin = Instant::now();
    let wish = Wish {
        class: "fast-csi-storage",
        size: "1Gi",
        backup,
    };
    let claim = tenant
        .claim_on(name, &wish, world.cluster.node(0).name())
        .await?;
    bound(tenant, &claim).await?;
    let seconds = begin.elapsed().as_secs_f64();
    // What follows the bind (events, the order's end) is counted too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = world.cluster.audit_log().since(mark)?;
    Ok((
        seconds,
        requests.iter().filter(|event| counts(event)).count(),
    ))
}

fn counts(event: &AuditEvent) -> bool {
    event.user != "admin"
        && event.verb != "watch"
        && !["leases", "nodes", "csistoragecapacities", ""].contains(&event.resource.as_str())
        && event.user_agent.split('/').next() != Some("kubelet")
}

/// Waits by a watch, so that no polling blurs the figure.
async fn bound(tenant: &Tenant<'_>, claim: &Claim) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = tenant.api();
    let only = watcher::Config::default().fields(&format!("metadata.name={}", claim.name));
    let mut changes = std::pin::pin!(watcher(claims, only).applied_objects());
    let bound = async {
        while let Some(claim) = futures::TryStreamExt::try_next(&mut changes).await? {
            if claim.status.and_then(|status| status.phase).as_deref() == Some("Bound") {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(Duration::from_secs(60), bound)
        .await
        .context("not bound within 60 s")?
}

#[derive(Default)]
struct Samples {
    seconds: Vec<f64>,
    requests: Vec<usize>,
}

impl Samples {
    fn add(&mut self, (seconds, requests): (f64, usize)) {
        self.seconds.push(seconds);
        self.requests.push(requests);
        self.seconds.sort_by(f64::total_cmp);
        self.requests.sort_unstable();
    }

    fn median(&self) -> f64 {
        self.seconds[self.seconds.len() / 2]
    }

    fn slowest(&self) -> f64 {
        self.seconds[self.seconds.len() - 1]
    }

    #[allow(clippy::cast_precision_loss, reason = "there are dozens")]
    fn requests(&self) -> f64 {
        self.requests[self.requests.len() / 2] as f64
    }
}
