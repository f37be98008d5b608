//! The operations: which can be next, and having the driver do them.

use std::path::{Path, PathBuf};

use csi::v1::node_service_capability::Type as NodeType;
use csi::v1::node_service_capability::rpc::Type as NodeRpc;
use csi::v1::plugin_capability::Type as PluginType;
use csi::v1::plugin_capability::service::Type as Service;
use csi::v1::{
    CapacityRange, CreateVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotRequest,
    GetPluginCapabilitiesRequest, NodeExpandVolumeRequest, NodeGetCapabilitiesRequest,
};
use driver::kernel::mounting;
use tonic::{Code, Status};

use super::content;
use super::objects::{self, Kind, Model, Volume};
use super::random::Random;
use crate::support::{Bench, Calls, Driver, MIB, capability};

/// The most volumes, XFS ones among them, and snapshots at a time.
const MOST_VOLUMES: usize = 6;
const MOST_XFS: usize = 2;
const MOST_SNAPSHOTS: usize = 6;

/// How much a volume grows by.
const GROWTH: i64 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Create {
        name: String,
        kind: Kind,
    },
    /// A clone, or a restore from a snapshot.
    Copy {
        name: String,
        source: String,
        mib: i64,
    },
    Delete {
        volume: String,
    },
    Stage {
        volume: String,
    },
    Unstage {
        volume: String,
    },
    Publish {
        volume: String,
    },
    Unpublish {
        volume: String,
    },
    Write {
        volume: String,
        slot: u64,
        stamp: u64,
    },
    Expand {
        volume: String,
        mib: i64,
    },
    Snapshot {
        name: String,
        volume: String,
    },
    DeleteSnapshot {
        snapshot: String,
    },
    Group {
        name: String,
        volumes: Vec<String>,
    },
    DeleteGroup {
        group: String,
    },
}

impl Operation {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Copy { source, .. } if source.starts_with("snap-") => "restore",
            Self::Copy { .. } => "clone",
            Self::Delete { .. } => "delete",
            Self::Stage { .. } => "stage",
            Self::Unstage { .. } => "unstage",
            Self::Publish { .. } => "publish",
            Self::Unpublish { .. } => "unpublish",
            Self::Write { .. } => "write",
            Self::Expand { .. } => "expand",
            Self::Snapshot { .. } => "snapshot",
            Self::DeleteSnapshot { .. } => "delete snapshot",
            Self::Group { .. } => "group",
            Self::DeleteGroup { .. } => "delete group",
        }
    }

    /// What takes back what a caller on the node has begun; `None` where there is nothing but to
    /// repeat it.
    pub fn inverse(&self) -> Option<Self> {
        match self.clone() {
            Self::Stage { volume } => Some(Self::Unstage { volume }),
            Self::Unstage { volume } => Some(Self::Stage { volume }),
            Self::Publish { volume } => Some(Self::Unpublish { volume }),
            Self::Unpublish { volume } => Some(Self::Publish { volume }),
            _ => None,
        }
    }
}

/// Where the driver lacks a right that ext4 asks for: a volume in use has its size already, and
/// its file system gets it at the next staging.
fn grows_later(volume: &Volume, status: &Status) -> bool {
    volume.kind == Kind::Ext4
        && status.code() == Code::FailedPrecondition
        && !mounting::can_grow_ext4()
}

/// Where a volume is staged, and where it is published.
pub fn places(bench: &Bench, volume: &Volume) -> (String, String) {
    (bench.staging(&volume.name), bench.target(&volume.name))
}

/// Where a volume's content is.
pub fn content_at(bench: &Bench, volume: &Volume) -> PathBuf {
    let (staging, target) = places(bench, volume);
    match volume.kind {
        Kind::Block => target.into(),
        Kind::Ext4 | Kind::Xfs => staging.into(),
    }
}

/// The driver's caller: it draws operations and has them done.
pub struct Caller {
    calls: Calls,
    can_expand: bool,
    can_group: bool,
}

impl Caller {
    /// Finds out what the driver can do.
    pub async fn of(driver: &Driver) -> Self {
        let mut calls = driver.calls();
        let asked = calls
            .node
            .node_get_capabilities(NodeGetCapabilitiesRequest {});
        let node = asked.await.unwrap().into_inner().capabilities;
        let asked = GetPluginCapabilitiesRequest {};
        let asked = calls.identity.get_plugin_capabilities(asked);
        let plugin = asked.await.unwrap().into_inner().capabilities;
        Self {
            calls,
            can_expand: node.iter().any(|it| {
                matches!(&it.r#type, Some(NodeType::Rpc(rpc)) if rpc.r#type() == NodeRpc::ExpandVolume)
            }),
            can_group: plugin.iter().any(|it| {
                matches!(&it.r#type, Some(PluginType::Service(service))
                    if service.r#type() == Service::GroupControllerService)
            }),
        }
    }

    pub fn calls(&mut self) -> &mut Calls {
        &mut self.calls
    }

    /// One of the operations that can be next. `name` and `stamp` are never the same
    /// twice.
    pub fn draw(&self, model: &Model, random: &mut Random, name: &str, stamp: u64) -> Operation {
        let mut choices = Vec::new();
        let mut add = |weight: usize, operation: Operation| {
            choices.extend(std::iter::repeat_n(operation, weight));
        };
        let name = |what: &str| format!("{name}-{what}");
        let xfs = model.volumes.values().filter(|it| it.kind == Kind::Xfs);
        let xfs_room = xfs.count() < MOST_XFS;
        let volume_room = model.volumes.len() < MOST_VOLUMES;
        let snapshot_room = model.snapshots.len() < MOST_SNAPSHOTS;
        let copy_room = |kind| volume_room && (kind != Kind::Xfs || xfs_room);
        for (weight, kind) in [(4, Kind::Ext4), (2, Kind::Xfs), (2, Kind::Block)] {
            if copy_room(kind) {
                let name = name("volume");
                add(weight, Operation::Create { name, kind });
            }
        }
        for (id, volume) in &model.volumes {
            let id = || id.clone();
            match (volume.staged, volume.published) {
                (false, _) => {
                    add(3, Operation::Stage { volume: id() });
                    add(1, Operation::Delete { volume: id() });
                }
                (true, false) => {
                    add(2, Operation::Publish { volume: id() });
                    add(1, Operation::Unstage { volume: id() });
                }
                (true, true) => add(1, Operation::Unpublish { volume: id() }),
            }
            if volume.is_open() {
                let write = Operation::Write {
                    volume: id(),
                    slot: random.below(content::SLOTS),
                    stamp,
                };
                add(3, write);
            }
            if self.can_expand && volume.staged && volume.mib < volume.kind.mib() + 3 * GROWTH {
                let mib = volume.mib + GROWTH;
                add(1, Operation::Expand { volume: id(), mib });
            }
            if snapshot_room {
                let snapshot = Operation::Snapshot {
                    name: name("snapshot"),
                    volume: id(),
                };
                add(2, snapshot);
            }
            if copy_room(volume.kind) {
                let clone = Operation::Copy {
                    name: name("clone"),
                    source: id(),
                    mib: volume.mib + GROWTH * i64::from(random.once_in(2)),
                };
                add(1, clone);
            }
        }
        for (id, snapshot) in &model.snapshots {
            if copy_room(snapshot.kind) {
                let restore = Operation::Copy {
                    name: name("restored"),
                    source: id.clone(),
                    mib: snapshot.mib + GROWTH * i64::from(random.once_in(2)),
                };
                add(1, restore);
            }
            if snapshot.group.is_none() {
                let snapshot = id.clone();
                add(1, Operation::DeleteSnapshot { snapshot });
            }
        }
        if self.can_group && snapshot_room && model.volumes.len() > 1 {
            let volumes = model.volumes.keys().cloned().collect();
            let group = Operation::Group {
                name: name("group"),
                volumes: random.some(volumes, 3),
            };
            add(3, group);
        }
        for group in model.groups.keys() {
            let group = group.clone();
            add(1, Operation::DeleteGroup { group });
        }
        random.one(&choices)
    }

    /// Has it done.
    pub async fn perform(
        &mut self,
        operation: &Operation,
        model: &Model,
        bench: &Bench,
    ) -> Result<(), Status> {
        let volume = |id: &String| model.volumes[id].clone();
        let calls = &mut self.calls;
        match operation {
            Operation::Create { name, kind } => {
                calls.create(name, kind.name(), kind.mib()).await.map(drop)
            }
            Operation::Copy { name, source, mib } => {
                let kind = match model.snapshots.get(source) {
                    Some(snapshot) => snapshot.kind,
                    None => volume(source).kind,
                };
                let copied = calls.copy(name, source, kind.name(), *mib).await?;
                assert_eq!(copied.capacity_bytes, mib * MIB);
                Ok(())
            }
            Operation::Delete { volume } => calls.delete(volume).await,
            Operation::Stage { volume: id } => {
                let volume = volume(id);
                let (staging, _) = places(bench, &volume);
                calls.stage(id, volume.kind.name(), &staging).await
            }
            Operation::Unstage { volume: id } => {
                let (staging, _) = places(bench, &volume(id));
                calls.unstage(id, &staging).await
            }
            Operation::Publish { volume: id } => {
                let volume = volume(id);
                let (staging, target) = places(bench, &volume);
                let capability = capability(volume.kind.name());
                calls
                    .publish_as(id, &staging, &target, false, capability)
                    .await
            }
            Operation::Unpublish { volume: id } => {
                let (_, target) = places(bench, &volume(id));
                calls.unpublish(id, &target).await
            }
            Operation::Write {
                volume: id,
                slot,
                stamp,
            } => {
                let volume = volume(id);
                let at = content_at(bench, &volume);
                content::write(&at, volume.kind, *slot, *stamp)
                    .map_err(|error| Status::unknown(error.to_string()))
            }
            Operation::Expand { volume: id, mib } => {
                let volume = volume(id);
                let path = places(bench, &volume).0;
                match self.expand(id, &path, *mib).await {
                    // It grows before it is mounted again.
                    Err(status) if grows_later(&volume, &status) => Ok(()),
                    result => result,
                }
            }
            Operation::Snapshot { name, volume } => calls.snapshot(name, volume).await.map(drop),
            Operation::DeleteSnapshot { snapshot } => calls.delete_snapshot(snapshot).await,
            Operation::Group { name, volumes } => self.group(name, volumes).await,
            Operation::DeleteGroup { group } => {
                let request = DeleteVolumeGroupSnapshotRequest {
                    group_snapshot_id: group.clone(),
                    snapshot_ids: model.groups[group].iter().cloned().collect(),
                    ..Default::default()
                };
                let deleted = self
                    .calls
                    .groups
                    .delete_volume_group_snapshot(request)
                    .await;
                deleted.map(drop)
            }
        }
    }

    async fn expand(&mut self, id: &str, path: &str, mib: i64) -> Result<(), Status> {
        let request = NodeExpandVolumeRequest {
            volume_id: id.to_owned(),
            volume_path: path.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: mib * MIB,
                limit_bytes: 0,
            }),
            ..Default::default()
        };
        let expanded = self.calls.node.node_expand_volume(request).await?;
        assert_eq!(expanded.into_inner().capacity_bytes, mib * MIB);
        Ok(())
    }

    async fn group(&mut self, name: &str, volumes: &[String]) -> Result<(), Status> {
        let request = CreateVolumeGroupSnapshotRequest {
            name: name.to_owned(),
            source_volume_ids: volumes.to_vec(),
            ..Default::default()
        };
        let made = self
            .calls
            .groups
            .create_volume_group_snapshot(request)
            .await?;
        let group = made.into_inner().group_snapshot.unwrap();
        assert_eq!(group.group_snapshot_id, objects::group_id(name));
        let mut found: Vec<_> = group
            .snapshots
            .into_iter()
            .map(|it| it.snapshot_id)
            .collect();
        let mut expected = objects::members(name, volumes);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        Ok(())
    }

    /// Compares the content of a volume, which is brought into use for that if it is not.
    pub async fn check(&mut self, bench: &Bench, id: &str, volume: &Volume) {
        let (staging, target) = places(bench, volume);
        let kind = volume.kind;
        let block = kind == Kind::Block;
        if !volume.staged {
            self.calls.stage(id, kind.name(), &staging).await.unwrap();
        }
        if block && !volume.published {
            let capability = capability(kind.name());
            let published = self
                .calls
                .publish_as(id, &staging, &target, false, capability);
            published.await.unwrap();
        }
        let at = content_at(bench, volume);
        if let Err(differs) = volume.content.check(Path::new(&at), kind) {
            panic!("{id}: {differs}; {volume:?}");
        }
        if block && !volume.published {
            self.calls.unpublish(id, &target).await.unwrap();
        }
        if !volume.staged {
            self.calls.unstage(id, &staging).await.unwrap();
        }
    }
}
