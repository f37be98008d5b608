//! Volumes of the fake driver on the node.

use std::path::Path;

use csi::v1::node_server::Node;
use csi::v1::node_service_capability::{self as capability, rpc};
#[allow(clippy::wildcard_imports)]
use csi::v1::*;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tonic::{Request, Response, Status};

use super::{Fault, Service, here, io, mounts};

/// Idempotent, as CSI wants it.
fn gone(path: &str) -> Result<(), Status> {
    if mounts(Path::new(path)).is_empty() {
        return Ok(());
    }
    unmount(path, UnmountFlags::empty()).map_err(io)
}

#[tonic::async_trait]
impl Node for Service {
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| NodeServiceCapability {
            r#type: Some(capability::Type::Rpc(capability::Rpc {
                r#type: kind.into(),
            })),
        };
        let mut able = vec![rpc::Type::StageUnstageVolume];
        if self.fault() != Fault::Old {
            able.push(rpc::Type::SingleNodeMultiWriter);
        }
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: able.into_iter().map(capability).collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: "node".into(),
            max_volumes_per_node: 0,
            accessible_topology: Some(here("node")),
        }))
    }

    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        self.called("NodeStageVolume")?;
        let request = request.into_inner();
        assert_eq!(request.volume_context["key"], "value");
        self.used(request.volume_capability, request.secrets);
        mount_bind(
            self.volumes.join(request.volume_id),
            &request.staging_target_path,
        )
        .map_err(io)?;
        Ok(Response::new(NodeStageVolumeResponse::default()))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        self.called("NodePublishVolume")?;
        let request = request.into_inner();
        self.used(request.volume_capability, request.secrets);
        std::fs::create_dir(&request.target_path).map_err(io)?;
        if self.fault() != Fault::Lies {
            mount_bind(&request.staging_target_path, &request.target_path).map_err(io)?;
        }
        Ok(Response::new(NodePublishVolumeResponse::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        self.called("NodeUnpublishVolume")?;
        let target = request.into_inner().target_path;
        gone(&target)?;
        // It may not be there, and it may hold what a liar let somebody write.
        let _ = std::fs::remove_dir(target);
        Ok(Response::new(NodeUnpublishVolumeResponse::default()))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        self.called("NodeUnstageVolume")?;
        gone(&request.into_inner().staging_target_path)?;
        Ok(Response::new(NodeUnstageVolumeResponse::default()))
    }
}
