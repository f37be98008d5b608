//! The Node service: volumes are mounted and unmounted.

use std::path::PathBuf;

use csi::v1::node_server::Node;
use csi::v1::node_service_capability::rpc::Type as RpcType;
use csi::v1::node_service_capability::{Rpc, Type};
use csi::v1::volume_usage::Unit;
use csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetStorageHealthRequest, NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest,
    NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeUsage,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Services, request, signed};
use crate::operations::expand::expand;
use crate::operations::limit::most_volumes;
use crate::operations::publish::{Publication, publish};
use crate::operations::stage::stage;
use crate::operations::stats::{Usage, stats};
use crate::operations::unpublish::unpublish;
use crate::operations::unstage::unstage;

#[async_trait]
impl Node for Services {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer("NodeStageVolume", &request.volume_id, async {
            let path = request::path("staging_target_path", &request.staging_target_path)?;
            let capability = request::capability(request.volume_capability.as_ref())?;
            let id = request::volume(&request.volume_id)?;
            self.run(move |pool| stage(pool, &id, &path, &capability))
                .await?;
            Ok(NodeStageVolumeResponse {})
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer("NodeUnstageVolume", &request.volume_id, async {
            let path = request::path("staging_target_path", &request.staging_target_path)?;
            if let Some(id) = request::former_id("volume_id", &request.volume_id)? {
                self.run(move |pool| unstage(pool, &id, &path)).await?;
            }
            Ok(NodeUnstageVolumeResponse {})
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer("NodePublishVolume", &request.volume_id, async {
            let target = request::path("target_path", &request.target_path)?;
            let capability = request::capability(request.volume_capability.as_ref())?;
            let id = request::volume(&request.volume_id)?;
            if request.staging_target_path.is_empty() {
                let reason = "staging_target_path is missing; the volume has to be staged first";
                return Err(Status::failed_precondition(reason));
            }
            let staging = request::path("staging_target_path", &request.staging_target_path)?;
            let read_only = request.readonly;
            let publication = Publication {
                staging,
                target,
                capability,
                read_only,
            };
            self.run(move |pool| publish(pool, &id, &publication))
                .await?;
            Ok(NodePublishVolumeResponse {})
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer("NodeUnpublishVolume", &request.volume_id, async {
            let target = request::path("target_path", &request.target_path)?;
            if let Some(id) = request::former_id("volume_id", &request.volume_id)? {
                self.run(move |pool| unpublish(pool, &id, &target)).await?;
            }
            Ok(NodeUnpublishVolumeResponse {})
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        self.answer("NodeGetVolumeStats", &request.volume_id, async {
            if request.volume_path.is_empty() {
                return Err(request::invalid("volume_path is missing"));
            }
            let id = request::volume(&request.volume_id)?;
            let path = PathBuf::from(&request.volume_path);
            let stats = self.run(move |pool| stats(pool, &id, &path)).await?;
            let inodes = stats.inodes.map(|inodes| usage(Unit::Inodes, inodes));
            let usage = [usage(Unit::Bytes, stats.bytes)];
            let usage = usage.into_iter().chain(inodes).collect();
            Ok(NodeGetVolumeStatsResponse { usage })
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer("NodeExpandVolume", &request.volume_id, async {
            if request.volume_path.is_empty() {
                return Err(request::invalid("volume_path is missing"));
            }
            let range = request::size(request.capacity_range.as_ref())?;
            let id = request::volume(&request.volume_id)?;
            let staging = Some(&request.staging_target_path).filter(|path| !path.is_empty());
            let paths = [&request.volume_path].into_iter().chain(staging);
            let paths: Vec<_> = paths.map(PathBuf::from).collect();
            let size = self
                .run(move |pool| expand(pool, &id, range, Some(&paths)))
                .await?;
            Ok(NodeExpandVolumeResponse {
                capacity_bytes: signed(size),
            })
        })
        .await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("NodeGetVolumeHealth", &id, self.health_here(request))
            .await
    }

    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        self.answer("NodeGetStorageHealth", "", self.storage_health())
            .await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        self.answer("NodeGetCapabilities", "", async {
            let rpcs = [
                RpcType::StageUnstageVolume,
                RpcType::GetVolumeStats,
                RpcType::ExpandVolume,
                RpcType::SingleNodeMultiWriter,
                RpcType::GetVolumeHealth,
                RpcType::GetStorageHealth,
            ];
            let capabilities = rpcs.map(|rpc| NodeServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
            });
            Ok(NodeGetCapabilitiesResponse {
                capabilities: capabilities.into(),
            })
        })
        .await
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        self.answer("NodeGetInfo", "", async {
            let most = self.run(most_volumes).await?;
            Ok(NodeGetInfoResponse {
                max_volumes_per_node: signed(most),
                node_id: self.pool.node.as_str().to_owned(),
                accessible_topology: Some(self.topology()),
            })
        })
        .await
    }
}

fn usage(unit: Unit, usage: Usage) -> VolumeUsage {
    VolumeUsage {
        unit: unit.into(),
        total: signed(usage.total),
        used: signed(usage.used),
        available: signed(usage.available),
    }
}
