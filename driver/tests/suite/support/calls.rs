//! The calls that tests make again and again, in one line each.

use csi::v1::controller_client::ControllerClient;
use csi::v1::group_controller_client::GroupControllerClient;
use csi::v1::identity_client::IdentityClient;
use csi::v1::node_client::NodeClient;
use csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use csi::v1::{
    CapacityRange, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeRequest, GetCapacityRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Snapshot, Volume, VolumeCapability,
    VolumeContentSource,
};
use tonic::Status;
use tonic::transport::Channel;

use super::MIB;

/// What can be asked of a driver.
#[derive(Clone)]
pub struct Calls {
    pub identity: IdentityClient<Channel>,
    pub controller: ControllerClient<Channel>,
    pub node: NodeClient<Channel>,
    pub groups: GroupControllerClient<Channel>,
    pub metadata: SnapshotMetadataClient<Channel>,
}

impl Calls {
    pub fn new(channel: Channel) -> Self {
        Self {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel.clone()),
            groups: GroupControllerClient::new(channel.clone()),
            metadata: SnapshotMetadataClient::new(channel),
        }
    }

    pub async fn create(&mut self, name: &str, fs: &str, mib: i64) -> Result<Volume, Status> {
        let range = CapacityRange {
            required_bytes: mib * MIB,
            limit_bytes: 0,
        };
        let request = CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(range),
            volume_capabilities: vec![capability(fs)],
            ..Default::default()
        };
        let response = self.controller.create_volume(request).await?;
        Ok(response.into_inner().volume.unwrap())
    }

    /// A volume from a snapshot or a volume.
    pub async fn copy(
        &mut self,
        name: &str,
        from: &str,
        fs: &str,
        mib: i64,
    ) -> Result<Volume, Status> {
        let range = CapacityRange {
            required_bytes: mib * MIB,
            limit_bytes: 0,
        };
        let request = CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(range),
            volume_capabilities: vec![capability(fs)],
            volume_content_source: Some(source(from)),
            ..Default::default()
        };
        let response = self.controller.create_volume(request).await?;
        Ok(response.into_inner().volume.unwrap())
    }

    pub async fn snapshot(&mut self, name: &str, volume: &str) -> Result<Snapshot, Status> {
        let request = CreateSnapshotRequest {
            name: name.into(),
            source_volume_id: volume.into(),
            ..Default::default()
        };
        let response = self.controller.create_snapshot(request).await?;
        Ok(response.into_inner().snapshot.unwrap())
    }

    pub async fn delete_snapshot(&mut self, id: &str) -> Result<(), Status> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.into(),
            ..Default::default()
        };
        self.controller.delete_snapshot(request).await.map(drop)
    }

    pub async fn delete(&mut self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: id.into(),
            ..Default::default()
        };
        self.controller.delete_volume(request).await.map(drop)
    }

    pub async fn stage(&mut self, id: &str, fs: &str, path: &str) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: path.into(),
            volume_capability: Some(capability(fs)),
            ..Default::default()
        };
        self.node.node_stage_volume(request).await.map(drop)
    }

    pub async fn unstage(&mut self, id: &str, path: &str) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: id.into(),
            staging_target_path: path.into(),
        };
        self.node.node_unstage_volume(request).await.map(drop)
    }

    pub async fn publish(
        &mut self,
        id: &str,
        staging: &str,
        target: &str,
        readonly: bool,
    ) -> Result<(), Status> {
        self.publish_as(id, staging, target, readonly, capability(""))
            .await
    }

    pub async fn publish_as(
        &mut self,
        id: &str,
        staging: &str,
        target: &str,
        readonly: bool,
        capability: VolumeCapability,
    ) -> Result<(), Status> {
        let request = NodePublishVolumeRequest {
            volume_id: id.into(),
            staging_target_path: staging.into(),
            target_path: target.into(),
            volume_capability: Some(capability),
            readonly,
            ..Default::default()
        };
        self.node.node_publish_volume(request).await.map(drop)
    }

    pub async fn unpublish(&mut self, id: &str, target: &str) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.into(),
            target_path: target.into(),
        };
        self.node.node_unpublish_volume(request).await.map(drop)
    }

    pub async fn available(&mut self) -> i64 {
        let response = self
            .controller
            .get_capacity(GetCapacityRequest::default())
            .await
            .unwrap();
        response.into_inner().available_capacity
    }
}

/// As kubelet asks for ReadWriteOnce, with this file system, or any; `block` for a raw device.
pub fn capability(fs_type: &str) -> VolumeCapability {
    capability_with(fs_type, Mode::SingleNodeMultiWriter, &[])
}

pub fn capability_with(fs_type: &str, mode: Mode, flags: &[&str]) -> VolumeCapability {
    let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let mount = MountVolume {
        fs_type: fs_type.into(),
        mount_flags,
        ..Default::default()
    };
    let access_type = match fs_type {
        "block" => AccessType::Block(BlockVolume {}),
        _ => AccessType::Mount(mount),
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(access_type),
    }
}

/// A volume's content to come from a snapshot or a volume, by its id.
pub fn source(id: &str) -> VolumeContentSource {
    let r#type = if id.starts_with("snap-") {
        SourceType::Snapshot(SnapshotSource {
            snapshot_id: id.into(),
        })
    } else {
        SourceType::Volume(VolumeSource {
            volume_id: id.into(),
        })
    };
    VolumeContentSource {
        r#type: Some(r#type),
    }
}
