//! VolumeSnapshots and VolumeGroupSnapshots, in the classes that are installed with the driver.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::{Tenant, traces};
use crate::{cluster::Node, wait::eventually};

const GROUP: &str = "snapshot.storage.k8s.io";
const CLASS: &str = "fast-csi-storage";

/// A VolumeSnapshot that can be restored.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// The driver's id.
    handle: String,
}

impl Snapshot {
    /// Its image in the pool of `node`, as a path on the machine.
    pub fn image(&self, node: &Node) -> Result<PathBuf> {
        traces::image(node, "snapshots", &self.handle)
    }
}

/// The `dataSource` of a PVC that is made from the VolumeSnapshot of this name, ready or not.
pub fn snapshot_source(snapshot: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": snapshot})
}

impl Tenant<'_> {
    /// Asks for a VolumeSnapshot called `name` of a PVC, without waiting.
    pub async fn snapshot(&self, name: &str, claim: &str) -> Result<()> {
        let (snapshots, kind) = self.kind(GROUP, "VolumeSnapshot");
        let snapshot = DynamicObject::new(name, &kind).data(json!({"spec": {
            "volumeSnapshotClassName": CLASS,
            "source": {"persistentVolumeClaimName": claim},
        }}));
        snapshots.create(&PostParams::default(), &snapshot).await?;
        Ok(())
    }

    /// Waits until a VolumeSnapshot can be restored.
    pub async fn snapshot_ready(&self, name: &str, within: Duration) -> Result<Snapshot> {
        let (snapshots, _) = self.kind(GROUP, "VolumeSnapshot");
        let bound = ready(&snapshots, name, within).await?;
        let content = &bound.data["status"]["boundVolumeSnapshotContentName"];
        let content = content.as_str().context("it is ready without content")?;
        let kind = GroupVersionKind::gvk(GROUP, "v1", "VolumeSnapshotContent");
        let kind = ApiResource::from_gvk(&kind);
        let contents: Api<DynamicObject> = Api::all_with(self.cluster.client(), &kind);
        let handle = contents.get(content).await?.data["status"]["snapshotHandle"].take();
        let handle = handle.as_str().context("its content has no handle")?;
        Ok(Snapshot {
            name: name.to_owned(),
            handle: handle.to_owned(),
        })
    }

    /// Asks for a VolumeGroupSnapshot called `name` of all PVCs with the label, without waiting.
    pub async fn group_snapshot(&self, name: &str, label: (&str, &str)) -> Result<()> {
        let (groups, kind) = self.kind("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshot");
        let group = DynamicObject::new(name, &kind).data(json!({"spec": {
            "volumeGroupSnapshotClassName": CLASS,
            "source": {"selector": {"matchLabels": {label.0: label.1}}},
        }}));
        groups.create(&PostParams::default(), &group).await?;
        Ok(())
    }

    /// Waits until all of a VolumeGroupSnapshot can be restored, and returns its VolumeSnapshots by
    /// the PVCs that they are of.
    pub async fn group_ready(
        &self,
        name: &str,
        members: usize,
        within: Duration,
    ) -> Result<BTreeMap<String, Snapshot>> {
        let (groups, _) = self.kind("groupsnapshot.storage.k8s.io", "VolumeGroupSnapshot");
        let uid = ready(&groups, name, within).await?.uid();
        let uid = uid.context("an object has a UID")?;
        let (snapshots, _) = self.kind(GROUP, "VolumeSnapshot");
        let found = eventually(&format!("{name} has its members"), within, || async {
            let mut found = snapshots.list(&ListParams::default()).await?.items;
            found.retain(|snapshot| {
                let mut owners = snapshot.owner_references().iter();
                owners.any(|owner| owner.uid == uid)
            });
            ensure!(found.len() == members, "they are {}", found.len());
            Ok(found)
        })
        .await?;
        let mut of_claims = BTreeMap::new();
        for snapshot in found {
            let claim = &snapshot.data["spec"]["source"]["persistentVolumeClaimName"];
            let claim = claim.as_str().context("a member is of a PVC")?.to_owned();
            let snapshot = self.snapshot_ready(&snapshot.name_any(), within).await?;
            of_claims.insert(claim, snapshot);
        }
        Ok(of_claims)
    }

    fn kind(&self, group: &str, kind: &str) -> (Api<DynamicObject>, ApiResource) {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api = Api::namespaced_with(self.cluster.client(), &self.name, &kind);
        (api, kind)
    }
}

/// Waits until the status of a snapshot, or of a group of them, says that it can be used.
async fn ready(api: &Api<DynamicObject>, name: &str, within: Duration) -> Result<DynamicObject> {
    eventually(&format!("snapshot {name} is ready"), within, || async {
        let object = api.get(name).await?;
        let status = &object.data["status"];
        ensure!(status["readyToUse"] == true, "its status is {status}");
        Ok(object)
    })
    .await
}
