//! What restores may leave behind, anywhere.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};
use crds::RestoreOrder;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttachment,
};
use kube::{Api, ResourceExt as _, api::ListParams};
use tests::{cluster::Node, product::NAMESPACE, shared::World, state, wait::eventually};

use super::round::WAIT;

/// Where drivers keep volumes and the agent its records, on each node.
const FOLDERS: [&str; 5] = [
    "fastcopy/volumes",
    "fastcopy/pool/volumes",
    "other/volumes",
    "other/pool/volumes",
    "kubelet/plugins/populator.backup.example.com",
];

/// Where the agent mounts volumes.
const WORK: &str = "/var/lib/kubelet/plugins/populator.backup.example.com";

/// Orders, prime PVCs, PVs, VolumeAttachments, volumes, records, mounts and loop devices, of the whole
/// cluster.
pub async fn look(world: &World) -> Result<BTreeSet<String>> {
    let client = world.cluster.client();
    let mut found = BTreeSet::new();
    found.extend(named::<RestoreOrder>(&Api::namespaced(client.clone(), NAMESPACE)).await?);
    found
        .extend(named::<PersistentVolumeClaim>(&Api::namespaced(client.clone(), NAMESPACE)).await?);
    found.extend(named::<PersistentVolume>(&Api::all(client.clone())).await?);
    found.extend(named::<VolumeAttachment>(&Api::all(client)).await?);
    for node in world.cluster.nodes().iter().filter(|node| node.is_up()) {
        for folder in FOLDERS {
            found.extend(folders(node, folder)?);
        }
        let mounts = node.mounts()?.into_iter().map(|mount| mount.target);
        let ours = mounts.filter(|target| target.starts_with(WORK));
        found.extend(ours.map(|target| format!("mount {}", target.display())));
    }
    let traces = state::traces(world.cluster.state().name(), None)?;
    let loops = traces
        .into_iter()
        .filter(|it| it.starts_with("loop device"));
    found.extend(loops);
    Ok(found)
}

/// Waits until there is nothing but what was there `before`.
pub async fn none_but(world: &World, before: &BTreeSet<String>) -> Result<()> {
    eventually("nothing is left behind", WAIT, async || {
        let now = look(world).await?;
        let left: Vec<_> = now.difference(before).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await
}

async fn named<K>(api: &Api<K>) -> Result<Vec<String>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let all = api.list(&ListParams::default()).await?;
    let kind = K::kind(&());
    Ok(all
        .iter()
        .map(|it| format!("{kind} {}", it.name_any()))
        .collect())
}

fn folders(node: &Node, folder: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(node.root().join("var/lib").join(folder)) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let path = Path::new(folder).join(entry.file_name());
            found.push(format!("{} on {}", path.display(), node.name()));
        }
    }
    Ok(found)
}
