//! Volumes of drivers whose own provisioners must make them: the prime way, over every such driver that
//! the machine has.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use crds::VolumeRestore;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret},
    storage::v1::{StorageClass, VolumeAttachment},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use tests::{
    host_path::HostPath,
    original::{Original, SLOW},
    product::NAMESPACE,
    s3::fault::{Fault, FaultProxy},
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Use, Wish},
    wait::eventually,
};

const WAIT: Duration = Duration::from_secs(120);

/// A driver on the node `node-1`, and its StorageClasses: the one of its name waits for a pod, those that
/// end in `-immediate` and `-retained` do not.
#[derive(Clone, Copy, Debug)]
struct Driver {
    name: &'static str,
    /// Whether its volumes are attached.
    attaches: bool,
    /// What a pod's mount of a volume of the first class shows.
    mount: &'static [&'static str],
}

/// Ours under another name.
const OTHER: Driver = Driver {
    name: "other",
    attaches: true,
    mount: &["xfs", "noatime"],
};

/// csi-driver-host-path, without and with `--enable-attach`. Its volumes are folders of the node.
const HOST_PATH: [Driver; 2] = [
    Driver {
        name: "host-path",
        attaches: false,
        mount: &[],
    },
    Driver {
        name: "attached-host-path",
        attaches: true,
        mount: &[],
    },
];

pub fn add(suite: &mut SharedSuite) {
    add_for(suite, OTHER);
    if HostPath::found().is_some() {
        for driver in HOST_PATH {
            add_for(suite, driver);
        }
    }
    suite.test("what_a_provisioner_says_is_told", complaint);
    suite.test("a_provisioner_without_room_is_told", no_room);
    suite.test("a_driver_gets_its_secrets_on_the_node", secrets);
    suite.test("what_is_made_for_nobody_is_not_retained", leftover);
}

fn add_for(suite: &mut SharedSuite, driver: Driver) {
    macro_rules! test {
        ($test:ident, $name:literal) => {
            suite.test(
                &format!("{}::{}", driver.name.replace('-', "_"), $name),
                async move |world: &World| $test(world, driver).await,
            );
        };
    }
    test!(waiting, "what_a_pod_waits_for_is_filled");
    test!(immediate, "what_no_pod_waits_for_is_filled");
    test!(device, "a_device_is_filled");
    test!(retained, "what_is_given_up_is_not_retained");
    if driver.attaches {
        test!(detached, "what_others_detach_is_attached_anew");
    }
}

impl Driver {
    /// A class whose name ends in this.
    fn class(self, end: &str) -> String {
        format!("{}{end}", self.name)
    }
}

fn wish(class: &str) -> Wish<'_> {
    Wish {
        class,
        ..Wish::BACKUP
    }
}

async fn original<'a>(world: &'a World, name: &str) -> Result<(Tenant<'a>, Original, FaultProxy)> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original) = Original::with_tenant(world, &faults, name).await?;
    Ok((tenant, original, faults))
}

async fn waiting(world: &World, driver: Driver) -> Result<()> {
    let (tenant, original, _faults) = original(world, driver.name).await?;
    let claim = tenant.claim("data", &wish(driver.name)).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    filled_where_it_is(&tenant, 1).await?;
    comes_back(&tenant, &original).await?;
    let shown = tenant.exec("reader", "grep ' /data ' /proc/mounts").await?;
    for option in driver.mount {
        ensure!(shown.contains(option), "{shown}");
    }
    leaves_nothing(world, &tenant, &claim).await
}

async fn immediate(world: &World, driver: Driver) -> Result<()> {
    let class = driver.class("-immediate");
    let (tenant, original, _faults) = original(world, &class).await?;
    let claim = tenant.claim("data", &wish(&class)).await?;
    filled_where_it_is(&tenant, 0).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    comes_back(&tenant, &original).await?;
    // Of a PVC that is bound and complete, nothing is ever told again.
    tenant
        .api::<VolumeRestore>()
        .delete("data", &DeleteParams::default())
        .await?;
    let told = tenant.told(&claim).await?.len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(tenant.told(&claim).await?.len() == told, "it was told anew");
    leaves_nothing(world, &tenant, &claim).await
}

/// On the driver's node, without a pod beside the test's own.
async fn filled_where_it_is(tenant: &Tenant<'_>, own: usize) -> Result<()> {
    let restore = tenant.completed("data", WAIT).await?;
    let status = restore.status.context("a status")?;
    ensure!(status.way.as_deref() == Some("Prime"), "{:?}", status.way);
    ensure!(
        status.node_name.as_deref() == Some("node-1"),
        "{:?}",
        status.node_name
    );
    let pods = tenant.api::<Pod>().list(&ListParams::default()).await?;
    ensure!(pods.items.len() == own, "{} pods", pods.items.len());
    Ok(())
}

async fn comes_back(tenant: &Tenant<'_>, original: &Original) -> Result<()> {
    original.equals(&tenant.mounted("reader", "data", WAIT).await?)
}

async fn leaves_nothing(world: &World, tenant: &Tenant<'_>, claim: &Claim) -> Result<()> {
    let volume = volume_of(tenant, "data").await?;
    tenant.delete_pod("reader").await?;
    // A pod without a grace period is gone before kubelet is done, and csi-driver-host-path deletes what is
    // published still: then it stays mounted, on a loop device that is soon another volume's.
    eventually("kubelet has unpublished it", WAIT, async || {
        let node = world.cluster.node_named("node-1")?;
        let mounts = node.mounts()?;
        let mount = mounts
            .iter()
            .find(|mount| mount.target.to_string_lossy().contains(&volume));
        ensure!(mount.is_none(), "{mount:?}");
        Ok(())
    })
    .await?;
    tenant.delete_claim("data").await?;
    tenant.nothing_left(claim, WAIT).await?;
    gone(world, &volume).await
}

async fn device(world: &World, driver: Driver) -> Result<()> {
    let tenant = world.tenant(&driver.class("-device")).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    let digest = crate::block::make(&archive, "raw.zst")?;
    world
        .server
        .put_file(&tenant.name, "disk", &archive)
        .await?;
    tenant.backup("backup", "disk").await?;
    let block = |claim: &mut serde_json::Value| claim["spec"]["volumeMode"] = json!("Block");
    let class = driver.class("-immediate");
    let claim = tenant.claim_with("data", &wish(&class), block).await?;
    tenant.completed("data", WAIT).await?;
    let uses = [Use::Device("data", "/dev/data")];
    tenant.pod_using("reader", "sleep 1000000", &uses).await?;
    tenant.running("reader", WAIT).await?;
    let script = format!("head -c {} /dev/data | sha256sum", crate::block::SIZE);
    let said = tenant.exec("reader", &script).await?;
    ensure!(said.starts_with(&digest), "{said} is not {digest}");
    leaves_nothing(world, &tenant, &claim).await
}

/// As kube-controller-manager does with what no pod uses, when it starts.
async fn detached(world: &World, driver: Driver) -> Result<()> {
    let (tenant, original, faults) = original(world, &driver.class("-detached")).await?;
    faults.set(SLOW).await?;
    let class = driver.class("-immediate");
    let claim = tenant.claim("data", &wish(&class)).await?;
    tenant.written("data", 4 << 20, WAIT).await?;
    let attachments: Api<VolumeAttachment> = Api::all(world.cluster.client());
    let label = format!("backup.example.com/claim-uid={}", claim.uid);
    let ours = attachments
        .list(&ListParams::default().labels(&label))
        .await?;
    let name = ours.items.first().context("it is attached")?.name_any();
    attachments.delete(&name, &DeleteParams::default()).await?;
    tenant.was_told(&claim, "VolumeDetached", WAIT).await?;
    faults.set(Fault::None).await?;
    tenant.completed("data", WAIT).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    comes_back(&tenant, &original).await?;
    leaves_nothing(world, &tenant, &claim).await
}

async fn retained(world: &World, driver: Driver) -> Result<()> {
    let class = driver.class("-retained");
    let (tenant, original, faults) = original(world, &class).await?;
    faults.set(SLOW).await?;
    let claim = tenant.claim("halfway", &wish(&class)).await?;
    let order = tenant.restoring("halfway", WAIT).await?;
    let volume = order
        .spec
        .provisioned
        .context("a volume")?
        .persistent_volume_name;
    tenant.delete_claim("halfway").await?;
    tenant.forgotten(&claim, WAIT).await?;
    gone(world, &volume).await?;

    faults.set(Fault::None).await?;
    let whole = tenant.claim("whole", &wish(&class)).await?;
    tenant.completed("whole", WAIT).await?;
    let volume = volume_of(&tenant, "whole").await?;
    tenant.delete_claim("whole").await?;
    tenant.nothing_left(&whole, WAIT).await?;
    let volumes: Api<PersistentVolume> = Api::all(world.cluster.client());
    eventually("what a user's PVC had is kept", WAIT, || async {
        let phase = volumes.get(&volume).await?.status.and_then(|it| it.phase);
        ensure!(phase.as_deref() == Some("Released"), "{phase:?}");
        Ok(())
    })
    .await?;
    drop(original);
    Ok(())
}

/// Its Warnings are about a PVC that no user sees.
async fn complaint(world: &World) -> Result<()> {
    let (tenant, _original, _faults) = original(world, "prime-complaint").await?;
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "other-broken"}, "provisioner": "other.csi.example.com",
        "parameters": {"speed": "high"},
    }))?;
    let classes: Api<StorageClass> = Api::all(world.cluster.client());
    classes.create(&PostParams::default(), &class).await?;
    let claim = tenant.claim("data", &wish("other-broken")).await?;
    let words = tenant.warned(&claim, "ProvisioningFailed", WAIT).await?;
    ensure!(words.contains("speed"), "{words}");
    tenant.delete_claim("data").await?;
    tenant.forgotten(&claim, WAIT).await
}

async fn no_room(world: &World) -> Result<()> {
    let (tenant, _original, _faults) = original(world, "prime-no-room").await?;
    let large = Wish {
        size: "500Gi",
        ..wish("other")
    };
    let claim = tenant.claim_on("data", &large, "node-1").await?;
    eventually("the node is no longer selected", WAIT, async || {
        let claim = tenant.api::<PersistentVolumeClaim>().get("data").await?;
        let selected = claim
            .annotations()
            .get("volume.kubernetes.io/selected-node")
            .cloned();
        ensure!(selected.is_none(), "it is {selected:?}");
        Ok(())
    })
    .await?;
    tenant.was_told(&claim, "NodeFull", WAIT).await?;
    tenant.delete_claim("data").await?;
    tenant.forgotten(&claim, WAIT).await
}

/// Sealed, in an order that others may read.
async fn secrets(world: &World) -> Result<()> {
    let (tenant, original, faults) = original(world, "prime-secrets").await?;
    let claim = tenant.claim("data", &wish("other-with-secrets")).await?;
    let words = tenant.warned(&claim, "SecretNotFound", WAIT).await?;
    ensure!(
        words.contains("volume-populator/other-driver-keys"),
        "{words}"
    );
    faults.set(SLOW).await?;
    let keys: Secret = serde_json::from_value(json!({
        "metadata": {"name": "other-driver-keys"}, "stringData": {"userKey": "hidden"},
    }))?;
    let secrets = Api::namespaced(world.cluster.client(), NAMESPACE);
    secrets.create(&PostParams::default(), &keys).await?;
    let order = tenant.restoring("data", WAIT).await?;
    let given = order.spec.provisioned.context("a volume")?.secrets;
    let given = given.context("the driver wants Secrets")?;
    ensure!(
        given.stage == given.publish && given.stage.is_some(),
        "{given:?}"
    );
    let sealed = BASE64.decode(&given.sealed)?;
    ensure!(sealed.starts_with(b"age-encryption.org/v1\n"), "{given:?}");
    faults.set(Fault::None).await?;
    tenant.completed("data", WAIT).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    comes_back(&tenant, &original).await?;
    leaves_nothing(world, &tenant, &claim).await
}

/// As a provisioner that was in the middle of it when its PVC went; and where somebody deletes that.
async fn leftover(world: &World) -> Result<()> {
    let (tenant, original, faults) = original(world, "prime-leftover").await?;
    faults.set(SLOW).await?;
    let claim = tenant.claim("data", &wish("other-retained")).await?;
    let order = tenant.restoring("data", WAIT).await?;
    let first = order.spec.provisioned.context("a volume")?;
    let primes: Api<PersistentVolumeClaim> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let prime = format!("prime-{}", claim.uid);
    primes.delete(&prime, &DeleteParams::default()).await?;
    gone(world, &first.persistent_volume_name).await?;
    faults.set(Fault::None).await?;
    tenant.completed("data", WAIT).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    comes_back(&tenant, &original).await?;
    tenant.delete_pod("reader").await?;

    let late: PersistentVolume = serde_json::from_value(json!({
        "metadata": {
            "name": "pvc-11111111-2222-4333-8444-555555555555",
            "annotations": {"pv.kubernetes.io/provisioned-by": "other.csi.example.com"},
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "other-retained",
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": NAMESPACE,
                "name": "prime-66666666-7777-4888-8999-aaaaaaaaaaaa",
                "uid": "11111111-2222-4333-8444-555555555555",
            },
            "csi": {"driver": "other.csi.example.com", "volumeHandle": first.volume.handle},
        },
    }))?;
    let volumes: Api<PersistentVolume> = Api::all(world.cluster.client());
    volumes.create(&PostParams::default(), &late).await?;
    gone(world, "pvc-11111111-2222-4333-8444-555555555555").await
}

async fn volume_of(tenant: &Tenant<'_>, claim: &str) -> Result<String> {
    let claim = tenant.api::<PersistentVolumeClaim>().get(claim).await?;
    claim
        .spec
        .and_then(|spec| spec.volume_name)
        .context("it is bound")
}

async fn gone(world: &World, volume: &str) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(world.cluster.client());
    eventually(&format!("the PV {volume} is gone"), WAIT, || async {
        ensure!(volumes.get_opt(volume).await?.is_none(), "it is there");
        Ok(())
    })
    .await
}
