//! The controller and the agent, aborted before and after each step's effect.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use crds::{RestoreOrder, VolumeBackup, VolumeRestore};
use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::VolumeAttachment};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use tests::{
    original::{Original, SLOW},
    product::NAMESPACE,
    s3::fault::{Fault, FaultProxy},
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
    wait::eventually,
};

/// Each abort costs a restart of its container.
const WAIT: Duration = Duration::from_secs(240);

pub fn add(suite: &mut SharedSuite) {
    suite.test("every_step_is_aborted_before_and_after_its_effect", aborted);
}

/// All fail points are armed at once, each for its first passage; so every step of what follows is
/// cut off wherever it is first reached. A point that nothing reached fails the test.
async fn aborted(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    for name in populator::failpoint::ALL {
        for folder in fail_points(world) {
            fs::write(folder.join(format!("{name}.abort")), "")?;
        }
    }
    // Only now, so that the first look at the store is cut off too.
    let (tenant, original) = Original::with_tenant(world, &faults, "aborted").await?;
    whole(&tenant, &original).await.context("a restore")?;
    again_after_an_outage(&tenant, &faults)
        .await
        .context("a restore while the store fails")?;
    refused(world, &tenant).await.context("a refused archive")?;
    deleted(&tenant, &faults)
        .await
        .context("a PVC deleted midway")?;
    paused(&tenant, &faults).await.context("a pause")?;
    no_room(world, &tenant)
        .await
        .context("a node without room")?;
    stranger(&tenant)
        .await
        .context("a VolumeRestore of an earlier PVC")?;
    primed(world, &tenant, &faults, &original)
        .await
        .context("volumes of another driver")?;
    cloned(world, &tenant)
        .await
        .context("a PVC made from another")?;
    cached(&tenant).await.context("a snapshot that is kept")?;

    let hit = |name: &&&str| {
        let folders = fail_points(world);
        folders
            .iter()
            .any(|folder| folder.join(format!("{name}.hit")).exists())
    };
    let missed: Vec<_> = populator::failpoint::ALL
        .iter()
        .filter(|name| !hit(name))
        .collect();
    for folder in fail_points(world) {
        for entry in fs::read_dir(folder)? {
            fs::remove_file(entry?.path())?;
        }
    }
    ensure!(missed.is_empty(), "never reached: {missed:?}");
    Ok(())
}

async fn whole(tenant: &Tenant<'_>, original: &Original) -> Result<()> {
    let wish = Wish {
        class: "fast-csi-storage",
        ..Wish::BACKUP
    };
    let claim = tenant.claim("whole", &wish).await?;
    tenant.pod("reader", "whole", "sleep 1000000").await?;
    tenant.completed("whole", WAIT).await?;
    let mounted = tenant.mounted("reader", "whole", WAIT).await?;
    original.equals(&mounted)?;
    tenant.delete_pod("reader").await?;
    gone(tenant, &claim).await
}

async fn again_after_an_outage(tenant: &Tenant<'_>, faults: &FaultProxy) -> Result<()> {
    faults.set(SLOW).await?;
    let claim = tenant.claim("outage", &Wish::BACKUP).await?;
    // Beyond a quarter, which the PVC tells while there is more to come.
    tenant.written("outage", 12 << 20, WAIT).await?;
    faults.set(Fault::Throttle(8 << 10)).await?;
    eventually("the PVC tells its progress", WAIT, || async {
        let pvc = tenant.api::<PersistentVolumeClaim>().get("outage").await?;
        let told = pvc
            .annotations()
            .contains_key("backup.example.com/progress");
        ensure!(told, "it has no such annotation");
        Ok(())
    })
    .await?;
    faults.set(Fault::Refuse).await?;
    tenant.warned(&claim, "StoreUnavailable", WAIT).await?;
    faults.set(Fault::None).await?;
    tenant.completed("outage", WAIT).await?;
    gone(tenant, &claim).await
}

async fn refused(world: &World, tenant: &Tenant<'_>) -> Result<()> {
    let letter = tempfile::NamedTempFile::new()?;
    fs::write(letter.path(), b"a letter, not an archive\n".repeat(100))?;
    world
        .server
        .put_file(&tenant.name, "letter", letter.path())
        .await?;
    tenant.backup("letter", "letter").await?;
    let claim = tenant
        .claim(
            "refused",
            &Wish {
                backup: Some("letter"),
                ..Wish::BACKUP
            },
        )
        .await?;
    tenant.warned(&claim, "NotAnArchive", WAIT).await?;
    tenant.nothing_left(&claim, WAIT).await?;
    gone(tenant, &claim).await
}

async fn deleted(tenant: &Tenant<'_>, faults: &FaultProxy) -> Result<()> {
    faults.set(SLOW).await?;
    let claim = tenant.claim("deleted", &Wish::BACKUP).await?;
    tenant.restoring("deleted", WAIT).await?;
    gone(tenant, &claim).await?;
    faults.set(Fault::None).await?;
    Ok(())
}

async fn paused(tenant: &Tenant<'_>, faults: &FaultProxy) -> Result<()> {
    faults.set(SLOW).await?;
    let claim = tenant.claim("paused", &Wish::BACKUP).await?;
    tenant.restoring("paused", WAIT).await?;
    tenant.pause("paused", WAIT).await?;
    faults.set(Fault::None).await?;
    tenant.resume("paused").await?;
    tenant.completed("paused", WAIT).await?;
    gone(tenant, &claim).await
}

/// The node has no room; as external-provisioner would, the controller has the scheduler look again.
async fn no_room(world: &World, tenant: &Tenant<'_>) -> Result<()> {
    let wish = Wish {
        class: "fast-csi-storage",
        size: "500Gi",
        ..Wish::BACKUP
    };
    let claim = tenant
        .claim_on("full", &wish, world.cluster.node(0).name())
        .await?;
    tests::wait::eventually("the node is no longer selected", WAIT, async || {
        let claim = tenant.api::<PersistentVolumeClaim>().get("full").await?;
        let selected = claim
            .annotations()
            .get("volume.kubernetes.io/selected-node");
        ensure!(selected.is_none(), "it is {selected:?}");
        Ok(())
    })
    .await?;
    gone(tenant, &claim).await
}

/// What bears the PVC's name but speaks of another makes way.
async fn stranger(tenant: &Tenant<'_>) -> Result<()> {
    let left = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "stranger"},
        "spec": {
            "persistentVolumeClaim": {"name": "stranger", "uid": "of-an-earlier-one"},
            "volumeBackupName": "backup",
        },
    }))?;
    tenant
        .api::<VolumeRestore>()
        .create(&PostParams::default(), &left)
        .await?;
    let claim = tenant.claim("stranger", &Wish::BACKUP).await?;
    tenant.completed("stranger", WAIT).await?;
    gone(tenant, &claim).await
}

/// One whose volume is detached midway, and one that is given up.
async fn primed(
    world: &World,
    tenant: &Tenant<'_>,
    faults: &FaultProxy,
    original: &Original,
) -> Result<()> {
    let wish = Wish {
        class: "other-retained",
        ..Wish::BACKUP
    };
    faults.set(SLOW).await?;
    let claim = tenant.claim("prime", &wish).await?;
    tenant.written("prime", 4 << 20, WAIT).await?;
    // It must not be over before the controller is up again.
    faults.set(Fault::Throttle(8 << 10)).await?;
    let attachments: Api<VolumeAttachment> = Api::all(world.cluster.client());
    let label = format!("backup.example.com/claim-uid={}", claim.uid);
    let ours = ListParams::default().labels(&label);
    let ours = attachments.list(&ours).await?;
    let name = ours.items.first().context("it is attached")?.name_any();
    attachments.delete(&name, &DeleteParams::default()).await?;
    tenant.was_told(&claim, "VolumeDetached", WAIT).await?;
    let orders = Api::<RestoreOrder>::namespaced(world.cluster.client(), NAMESPACE);
    eventually("the agent is to try again", WAIT, || async {
        let order = orders.get(&format!("pvc-{}", claim.uid)).await?;
        ensure!(order.spec.attempt > 1, "{:?}", order.spec.provisioned);
        Ok(())
    })
    .await?;
    faults.set(Fault::None).await?;
    tenant.completed("prime", WAIT).await?;
    tenant.pod("prime", "prime", "sleep 1000000").await?;
    original.equals(&tenant.mounted("prime", "prime", WAIT).await?)?;
    tenant.delete_pod("prime").await?;
    gone(tenant, &claim).await?;

    faults.set(SLOW).await?;
    let claim = tenant.claim("given-up", &wish).await?;
    tenant.restoring("given-up", WAIT).await?;
    gone(tenant, &claim).await?;
    faults.set(Fault::None).await
}

/// What is made from another PVC is sent to its node.
async fn cloned(world: &World, tenant: &Tenant<'_>) -> Result<()> {
    let node = world.cluster.node(1).name();
    let empty = Wish {
        class: "fast-csi-storage",
        backup: None,
        ..Wish::BACKUP
    };
    let original = tenant.claim_on("original", &empty, node).await?;
    let source = serde_json::json!({"kind": "PersistentVolumeClaim", "name": "original"});
    let copy = tenant.claim_from("copy", &empty, source).await?;
    tests::wait::eventually("the node of the source is selected", WAIT, async || {
        let claim = tenant.api::<PersistentVolumeClaim>().get("copy").await?;
        let selected = claim
            .annotations()
            .get("volume.kubernetes.io/selected-node");
        ensure!(
            selected.is_some_and(|selected| selected == node),
            "it is {selected:?}"
        );
        Ok(())
    })
    .await?;
    gone(tenant, &copy).await?;
    gone(tenant, &original).await
}

/// Every abort costs a snapshot, and no more than that.
async fn cached(tenant: &Tenant<'_>) -> Result<()> {
    let cache = serde_json::json!({"cache": {"timeToLiveSeconds": 60}});
    tenant.backup_as("cached", "archive", cache).await?;
    let wish = Wish {
        backup: Some("cached"),
        ..Wish::BACKUP
    };
    for number in 1..=8 {
        let name = format!("cached-{number}");
        let claim = tenant.claim(&name, &wish).await?;
        let restore = tenant.completed(&name, WAIT).await?;
        gone(tenant, &claim).await?;
        let result = restore.status.and_then(|status| status.result);
        if result.is_some_and(|result| result.snapshot_handle.is_some()) {
            return told(tenant, "cached").await;
        }
    }
    bail!("no PVC was made from a snapshot")
}

/// Waits until a VolumeBackup tells its snapshots: aborted at that too, the controller comes back first.
async fn told(tenant: &Tenant<'_>, backup: &str) -> Result<()> {
    eventually("the VolumeBackup tells its snapshots", WAIT, || async {
        let backup = tenant.api::<VolumeBackup>().get(backup).await?;
        let cached = backup.status.unwrap_or_default().cached;
        ensure!(!cached.is_empty(), "it tells none");
        Ok(())
    })
    .await
}

async fn gone(tenant: &Tenant<'_>, claim: &Claim) -> Result<()> {
    tenant.delete_claim(&claim.name).await?;
    tenant.forgotten(claim, WAIT).await
}

/// The folders through which fail points are armed, one on each node.
fn fail_points(world: &World) -> Vec<PathBuf> {
    let folder = |node: &tests::cluster::Node| node.root().join("var/lib/fail-points");
    world.cluster.nodes().iter().map(folder).collect()
}
