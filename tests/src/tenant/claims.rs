//! PVCs, and the volumes that they are bound to.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Tenant, traces};
use crate::{cluster::Node, wait::eventually};

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

/// The `dataSource` of a PVC that is made from the PVC of this name.
pub fn claim_source(claim: &str) -> Value {
    json!({"kind": "PersistentVolumeClaim", "name": claim})
}

impl Tenant<'_> {
    /// A PVC called `name`, filled from the VolumeBackup `backup` or, without one, empty.
    pub async fn claim(&self, name: &str, wish: &Wish<'_>) -> Result<Claim> {
        self.claim_with(name, wish, |_| {}).await
    }

    /// [`Tenant::claim`] on a node, as the scheduler would choose it under WaitForFirstConsumer.
    pub async fn claim_on(&self, name: &str, wish: &Wish<'_>, node: &str) -> Result<Claim> {
        self.claim_with(name, wish, |claim| {
            claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": node});
        })
        .await
    }

    /// A PVC called `name`, made from `source`, a `dataSource` of this namespace.
    pub async fn claim_from(&self, name: &str, wish: &Wish<'_>, source: Value) -> Result<Claim> {
        self.claim_with(name, wish, |claim| claim["spec"]["dataSource"] = source)
            .await
    }

    /// [`Tenant::claim`], changed before it is created.
    pub async fn claim_with(
        &self,
        name: &str,
        wish: &Wish<'_>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Claim> {
        let mut object = json!({
            "metadata": {"name": name},
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
        change(&mut object);
        let made = self
            .create_in::<PersistentVolumeClaim>(&self.api(), object)
            .await?;
        Ok(Claim {
            name: made.name_any(),
            uid: made.uid().context("a PVC has a UID")?,
        })
    }

    /// The phase of a PVC.
    pub async fn phase(&self, claim: &str) -> Result<String> {
        let claim = self.api::<PersistentVolumeClaim>().get(claim).await?;
        Ok(claim
            .status
            .and_then(|status| status.phase)
            .unwrap_or_default())
    }

    /// The size that a PVC says its volume has, as Kubernetes writes it.
    pub async fn size(&self, claim: &str) -> Result<String> {
        let claim = self.api::<PersistentVolumeClaim>().get(claim).await?;
        let sizes = claim.status.and_then(|status| status.capacity);
        let size = sizes.and_then(|mut sizes| sizes.remove("storage"));
        Ok(size.context("the PVC is not bound")?.0)
    }

    /// Asks for a PVC of another size, without waiting.
    pub async fn resize(&self, claim: &str, size: &str) -> Result<()> {
        let change = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        self.api::<PersistentVolumeClaim>()
            .patch(claim, &PatchParams::default(), &Patch::Merge(change))
            .await?;
        Ok(())
    }

    /// Deletes a PVC without waiting.
    pub async fn delete_claim(&self, claim: &str) -> Result<()> {
        let claims = self.api::<PersistentVolumeClaim>();
        claims.delete(claim, &DeleteParams::default()).await?;
        Ok(())
    }

    /// The PV that a PVC is bound to.
    pub(super) async fn volume(&self, claim: &str) -> Result<PersistentVolume> {
        let claim = self.api::<PersistentVolumeClaim>().get(claim).await?;
        let name = claim.spec.and_then(|spec| spec.volume_name);
        let volumes: Api<PersistentVolume> = Api::all(self.cluster.client());
        Ok(volumes.get(&name.context("the PVC is not bound")?).await?)
    }

    /// The driver's id of the volume that a PVC is bound to.
    pub async fn handle(&self, claim: &str) -> Result<String> {
        let spec = self.volume(claim).await?.spec;
        let csi = spec.and_then(|spec| spec.csi);
        Ok(csi.context("the PV is not of a CSI driver")?.volume_handle)
    }

    /// The image of a PVC's volume in the pool of `node`, as a path on the machine.
    pub async fn image(&self, claim: &str, node: &Node) -> Result<PathBuf> {
        let handle = self.handle(claim).await?;
        traces::image(node, "volumes", &handle)
    }

    /// Waits until a PVC's volume is staged nowhere.
    pub async fn unstaged(&self, claim: &str, within: Duration) -> Result<()> {
        let handle = self.handle(claim).await?;
        eventually(&format!("PVC {claim} is unstaged"), within, || async {
            let devices = traces::loop_devices(&handle)?;
            ensure!(devices.is_empty(), "{devices:?}");
            Ok(())
        })
        .await
    }
}
