//! One namespace of a cluster with archives of its own: what the suites write, wait for and inspect.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use crds::{RestoreOrder, VolumeBackup, VolumeRestore};
use k8s_openapi::api::core::v1::{
    Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    cluster::{Cluster, Node},
    product::NAMESPACE,
    s3::S3Server,
    wait::eventually,
};

/// A namespace, and a bucket of the same name.
pub struct Tenant<'a> {
    /// The cluster that it is in.
    pub cluster: &'a Cluster,
    /// Its namespace and its bucket.
    pub name: String,
}

impl<'a> Tenant<'a> {
    /// A namespace with a bucket, and a BackupStore `store` that reads it at `endpoint`.
    pub async fn create(
        cluster: &'a Cluster,
        server: &S3Server,
        endpoint: &str,
        name: &str,
    ) -> Result<Self> {
        let tenant = Self {
            cluster,
            name: name.to_owned(),
        };
        let namespace = json!({"metadata": {"name": name}});
        tenant
            .create_in::<Namespace>(&Api::all(cluster.client()), namespace)
            .await?;
        server.create_bucket(name).await?;
        tenant
            .store(endpoint, (server.access_key(), server.secret_key()))
            .await?;
        Ok(tenant)
    }

    /// The typed API of this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), &self.name)
    }

    async fn create_in<K>(&self, api: &Api<K>, object: Value) -> Result<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        let object = serde_json::from_value(object)?;
        Ok(api.create(&PostParams::default(), &object).await?)
    }

    /// Writes the Secret and the BackupStore of the tenant's bucket, or writes them anew.
    pub async fn store(&self, endpoint: &str, keys: (&str, &str)) -> Result<()> {
        self.store_for(&self.name, endpoint, keys).await
    }

    /// [`Tenant::store`] for another bucket.
    pub async fn store_for(&self, bucket: &str, endpoint: &str, keys: (&str, &str)) -> Result<()> {
        let force = PatchParams::apply("tests").force();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-credentials"},
            "stringData": {"AWS_ACCESS_KEY_ID": keys.0, "AWS_SECRET_ACCESS_KEY": keys.1},
        });
        self.api::<Secret>()
            .patch("store-credentials", &force, &Patch::Apply(secret))
            .await?;
        let store = json!({
            "apiVersion": "backup.example.com/v1", "kind": "BackupStore",
            "metadata": {"name": "store"},
            "spec": {
                "url": format!("s3://{bucket}"), "endpoint": endpoint,
                "credentialsSecretRef": {"name": "store-credentials"},
            },
        });
        self.api::<crds::BackupStore>()
            .patch("store", &force, &Patch::Apply(store))
            .await?;
        Ok(())
    }

    /// A VolumeBackup called `name` of the object `key`.
    pub async fn backup(&self, name: &str, key: &str) -> Result<()> {
        self.backup_of(name, &format!("s3://{}/{key}", self.name))
            .await
    }

    /// A VolumeBackup called `name` of the object at `url`.
    pub async fn backup_of(&self, name: &str, url: &str) -> Result<()> {
        let object = json!({
            "metadata": {"name": name},
            "spec": {"backupURL": url, "restorePoint": "2025-01-01T10:00:00Z"},
        });
        self.create_in::<VolumeBackup>(&self.api(), object)
            .await
            .map(drop)
    }

    /// A PVC called `name`, filled from the VolumeBackup `backup` or, without one, empty.
    pub async fn claim(&self, name: &str, wish: &Wish<'_>) -> Result<Claim> {
        self.claim_with(name, wish, &json!({})).await
    }

    /// [`Tenant::claim`] on a node, as the scheduler would choose it under WaitForFirstConsumer.
    pub async fn claim_on(&self, name: &str, wish: &Wish<'_>, node: &str) -> Result<Claim> {
        let annotations = json!({"volume.kubernetes.io/selected-node": node});
        self.claim_with(name, wish, &annotations).await
    }

    /// A PVC called `name`, made from `source`, a `dataSource` of this namespace.
    pub async fn claim_from(&self, name: &str, wish: &Wish<'_>, source: Value) -> Result<Claim> {
        let mut object = Self::claim_object(name, wish, &json!({}));
        object["spec"]["dataSource"] = source;
        self.create_claim(object).await
    }

    async fn claim_with(&self, name: &str, wish: &Wish<'_>, annotations: &Value) -> Result<Claim> {
        self.create_claim(Self::claim_object(name, wish, annotations))
            .await
    }

    fn claim_object(name: &str, wish: &Wish<'_>, annotations: &Value) -> Value {
        let mut object = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": wish.size}},
                "storageClassName": wish.class,
            },
        });
        if let Some(backup) = wish.backup {
            object["spec"]["dataSourceRef"] = json!({
                "apiGroup": crds::GROUP, "kind": "VolumeBackup", "name": backup,
            });
        }
        object
    }

    async fn create_claim(&self, object: Value) -> Result<Claim> {
        let made = self
            .create_in::<PersistentVolumeClaim>(&self.api(), object)
            .await?;
        Ok(Claim {
            name: made.name_any(),
            uid: made.uid().context("a PVC has a UID")?,
        })
    }

    /// A pod called `name` that mounts the PVC at `/data` and runs `script` in busybox.
    pub async fn pod(&self, name: &str, claim: &str, script: &str) -> Result<()> {
        let object = Self::pod_object(name, claim, script);
        self.create_in::<Pod>(&self.api(), object).await.map(drop)
    }

    /// [`Tenant::pod`] that would rather be on `node` than anywhere else.
    pub async fn pod_preferring(
        &self,
        name: &str,
        claim: &str,
        script: &str,
        node: &str,
    ) -> Result<()> {
        let mut object = Self::pod_object(name, claim, script);
        object["spec"]["affinity"]["nodeAffinity"] = json!({
            "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "preference": {"matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "In", "values": [node],
                }]},
            }],
        });
        self.create_in::<Pod>(&self.api(), object).await.map(drop)
    }

    fn pod_object(name: &str, claim: &str, script: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": "busybox:1.35", "command": ["/bin/sh", "-c", script],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
        })
    }

    /// Waits until the pod runs; returns where the machine sees the PVC's files.
    pub async fn mounted(&self, pod: &str, claim: &str, within: Duration) -> Result<PathBuf> {
        let (node, uid) = eventually(&format!("pod {pod} runs"), within, || async {
            let pod = self.api::<Pod>().get(pod).await?;
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            ensure!(phase.as_deref() == Some("Running"), "it is {phase:?}");
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            Ok((
                node.context("a running pod has a node")?,
                pod.uid().context("a pod has a UID")?,
            ))
        })
        .await?;
        let claim = self.api::<PersistentVolumeClaim>().get(claim).await?;
        let volume = claim
            .spec
            .and_then(|spec| spec.volume_name)
            .context("the PVC is not bound")?;
        let kubelet = self.cluster.node_named(&node)?.kubelet_root();
        Ok(kubelet.join(format!(
            "pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount"
        )))
    }

    /// Waits until the PVC is bound and its VolumeRestore says that it is complete.
    pub async fn completed(&self, claim: &str, within: Duration) -> Result<VolumeRestore> {
        eventually(
            &format!("PVC {claim} is filled and bound"),
            within,
            || async {
                let restore = self.api::<VolumeRestore>().get(claim).await?;
                let status = restore.status.clone().unwrap_or_default();
                ensure!(
                    status.phase == crds::volume_restore::Phase::Completed,
                    "the VolumeRestore is {:?}: {:?}",
                    status.phase,
                    status.conditions
                );
                ensure!(self.phase(claim).await? == "Bound", "the PVC is not bound");
                Ok(restore)
            },
        )
        .await
    }

    /// The phase of a PVC.
    pub async fn phase(&self, claim: &str) -> Result<String> {
        let claim = self.api::<PersistentVolumeClaim>().get(claim).await?;
        Ok(claim
            .status
            .and_then(|status| status.phase)
            .unwrap_or_default())
    }

    /// Waits for the one Warning event of the populator about a PVC whose reason is `reason`, and
    /// for the same words in the VolumeRestore's condition; the PVC is still Pending. Returns them.
    pub async fn warned(&self, claim: &Claim, reason: &str, within: Duration) -> Result<String> {
        eventually(
            &format!("PVC {} is refused: {reason}", claim.name),
            within,
            || async {
                let warnings = self.warnings(claim).await?;
                let said = warnings.iter().map(|event| {
                    let reason = event.reason.clone().unwrap_or_default();
                    (reason, event.message.clone().unwrap_or_default())
                });
                let said: Vec<_> = said.collect();
                let restore = self.api::<VolumeRestore>().get(&claim.name).await?;
                let status = restore.status.unwrap_or_default();
                let ready = status
                    .conditions
                    .iter()
                    .find(|condition| condition.type_ == crds::READY);
                let ready = ready.context("the VolumeRestore has no Ready condition")?;
                ensure!(
                    ready.reason == reason,
                    "its condition is {}: {}",
                    ready.reason,
                    ready.message
                );
                ensure!(ready.status == "False", "its condition is {}", ready.status);
                let same = said
                    .iter()
                    .filter(|(_, message)| *message == ready.message)
                    .count();
                ensure!(
                    same == 1,
                    "the condition says {:?}, the events {said:?}",
                    ready.message
                );
                ensure!(said.len() == 1, "there is more than one Warning: {said:?}");
                ensure!(
                    self.phase(&claim.name).await? == "Pending",
                    "the PVC is not Pending"
                );
                Ok(ready.message.clone())
            },
        )
        .await
    }

    /// The populator's Warning events about a PVC.
    pub async fn warnings(&self, claim: &Claim) -> Result<Vec<Event>> {
        let mut events = self.told(claim).await?;
        events.retain(|event| event.type_.as_deref() == Some("Warning"));
        Ok(events)
    }

    /// The populator's events about a PVC.
    pub async fn told(&self, claim: &Claim) -> Result<Vec<Event>> {
        let selector = format!("involvedObject.uid={}", claim.uid);
        let events = self
            .api::<Event>()
            .list(&ListParams::default().fields(&selector))
            .await?;
        let ours = |event: &Event| {
            let source = event
                .source
                .as_ref()
                .and_then(|source| source.component.as_deref());
            [event.reporting_component.as_deref(), source].contains(&Some("populator"))
        };
        Ok(events.items.into_iter().filter(ours).collect())
    }

    /// Waits until bytes are being written for the PVC.
    pub async fn restoring(&self, claim: &str, within: Duration) -> Result<RestoreOrder> {
        let uid = self
            .api::<PersistentVolumeClaim>()
            .get(claim)
            .await?
            .uid()
            .context("a UID")?;
        let orders = Api::<RestoreOrder>::namespaced(self.cluster.client(), NAMESPACE);
        eventually(&format!("PVC {claim} is being filled"), within, || async {
            let order = orders.get(&format!("pvc-{uid}")).await?;
            let status = order.status.clone().unwrap_or_default();
            let progress = status.progress.unwrap_or_default();
            ensure!(
                progress.bytes_written > 0,
                "the order is {:?}: {progress:?}",
                status.state
            );
            Ok(order)
        })
        .await
    }

    /// Waits until a deleted PVC and its VolumeRestore are gone, and nothing is left of them.
    pub async fn forgotten(&self, claim: &Claim, within: Duration) -> Result<()> {
        eventually(
            &format!("PVC {} is forgotten", claim.name),
            within,
            || async {
                let claims = self.api::<PersistentVolumeClaim>();
                ensure!(
                    claims.get_opt(&claim.name).await?.is_none(),
                    "the PVC is there"
                );
                let restores = self.api::<VolumeRestore>();
                ensure!(
                    restores.get_opt(&claim.name).await?.is_none(),
                    "the VolumeRestore is there"
                );
                Ok(())
            },
        )
        .await?;
        self.nothing_left(claim, within).await
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        let pods = self.api::<Pod>();
        pods.delete(pod, &DeleteParams::default()).await?;
        eventually(
            &format!("pod {pod} is gone"),
            Duration::from_secs(60),
            || async {
                ensure!(pods.get_opt(pod).await?.is_none(), "it is there");
                Ok(())
            },
        )
        .await
    }

    /// Deletes a PVC without waiting.
    pub async fn delete_claim(&self, claim: &str) -> Result<()> {
        let claims = self.api::<PersistentVolumeClaim>();
        claims.delete(claim, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until nothing of a restore is left: no order, no PV, and on no node a volume in the
    /// pool, a loop device on it, a mount or a folder of the agent's.
    pub async fn nothing_left(&self, claim: &Claim, within: Duration) -> Result<()> {
        let name = format!("pvc-{}", claim.uid);
        eventually(&format!("nothing is left of {name}"), within, || async {
            let client = self.cluster.client();
            let orders = Api::<RestoreOrder>::namespaced(client.clone(), NAMESPACE);
            if let Some(order) = orders.get_opt(&name).await? {
                bail!(
                    "RestoreOrder: goal {:?}, status {:?}",
                    order.spec.goal,
                    order.status
                );
            }
            let volumes: Api<PersistentVolume> = Api::all(client);
            ensure!(volumes.get_opt(&name).await?.is_none(), "the PV is there");
            for node in self.cluster.nodes() {
                let traces = traces(node, &name)?;
                ensure!(traces.is_empty(), "on {}: {traces:?}", node.name());
            }
            Ok(())
        })
        .await
    }
}

/// What a PVC asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The StorageClass.
    pub class: &'a str,
    /// The size, as Kubernetes writes it.
    pub size: &'a str,
    /// The VolumeBackup to fill it from.
    pub backup: Option<&'a str>,
}

impl Wish<'_> {
    /// 1 GiB of `fast-csi-storage-immediate` from a VolumeBackup called `backup`.
    pub const BACKUP: Self = Wish {
        class: "fast-csi-storage-immediate",
        size: "1Gi",
        backup: Some("backup"),
    };
}

/// A PVC that was made.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Records of volumes in the node's pool that bear `name`, loop devices on such volumes (which all
/// nodes share), mounts and folders of the agent.
fn traces(node: &Node, name: &str) -> Result<Vec<String>> {
    let mut traces = Vec::new();
    for volumes in ["volumes", "pool/volumes"] {
        let Ok(folders) = std::fs::read_dir(node.pool().join(volumes)) else {
            continue;
        };
        for folder in folders {
            let folder = folder?.path();
            let record = std::fs::read_to_string(folder.join("volume.json")).unwrap_or_default();
            if record.contains(name) {
                traces.push(format!("volume {}", folder.display()));
            }
        }
    }
    traces.extend(loop_devices(&volume_id(name))?);
    let work = "/var/lib/kubelet/plugins/populator.backup.example.com";
    for mount in node.mounts()? {
        if mount.target.starts_with(work) {
            traces.push(format!("mount {}", mount.target.display()));
        }
    }
    Ok(traces)
}

/// The part of the driver's id of the volume of this CSI name that does not depend on the node.
fn volume_id(name: &str) -> String {
    let digest = hex::encode(Sha256::digest(name));
    format!("vol-{}", &digest[..32])
}

/// Loop devices with `id` in the path of their backing file, deleted ones too.
fn loop_devices(id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for device in std::fs::read_dir("/sys/block")? {
        let device = device?;
        // Only one that is attached has it.
        let Ok(file) = std::fs::read_to_string(device.path().join("loop/backing_file")) else {
            continue;
        };
        if file.contains(id) {
            let device = device.file_name();
            found.push(format!(
                "loop device {} on {}",
                device.display(),
                file.trim_end()
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_drivers() {
        // As in the driver's own test, without the node.
        assert_eq!(volume_id("pvc-1"), "vol-f2868e1aa7cab669517cd9f5ab1b7957");
    }
}
