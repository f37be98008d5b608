//! The Controller service: volumes and snapshots come and go.

use csi::v1::controller_server::Controller;
use csi::v1::controller_service_capability::rpc::Type as RpcType;
use csi::v1::controller_service_capability::{Rpc, Type};
use csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerListVolumeHealthRequest,
    ControllerListVolumeHealthResponse, ControllerModifyVolumeRequest,
    ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse,
    DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse,
    ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Services;

/// What is always offered.
const OFFERED: &[RpcType] = &[
    RpcType::CreateDeleteVolume,
    RpcType::GetCapacity,
    RpcType::ListVolumes,
    RpcType::GetVolume,
    RpcType::SingleNodeMultiWriter,
    RpcType::CreateDeleteSnapshot,
    RpcType::ListSnapshots,
    RpcType::GetSnapshot,
    RpcType::CloneVolume,
    RpcType::GetVolumeHealth,
    RpcType::ListVolumeHealth,
    RpcType::ModifyVolume,
];

/// What is offered with `--attach`.
const OFFERED_WITH_ATTACH: &[RpcType] = &[
    RpcType::PublishUnpublishVolume,
    RpcType::PublishReadonly,
    RpcType::ListVolumesPublishedNodes,
];

/// What is offered with `--controller-expansion`. Without, NodeExpandVolume does all of it, on
/// the volume's own node, wherever the resizer runs.
const OFFERED_WITH_EXPANSION: &[RpcType] = &[RpcType::ExpandVolume];

#[async_trait]
impl Controller for Services {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.answer("CreateVolume", &name, self.create(request))
            .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("DeleteVolume", &id, self.delete(request)).await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ControllerPublishVolume", &id, self.attach(request))
            .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ControllerUnpublishVolume", &id, self.detach(request))
            .await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ControllerExpandVolume", &id, self.expand(request))
            .await
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ControllerModifyVolume", &id, self.modify(request))
            .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ValidateVolumeCapabilities", &id, self.validate(request))
            .await
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        self.answer("ListVolumes", "", self.list(request.into_inner()))
            .await
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ControllerGetVolume", &id, self.get(request))
            .await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        self.answer("GetCapacity", "", self.capacity(request.into_inner()))
            .await
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.source_volume_id.clone();
        self.answer("CreateSnapshot", &id, self.take_snapshot(request))
            .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.snapshot_id.clone();
        self.answer("DeleteSnapshot", &id, self.forget_snapshot(request))
            .await
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.snapshot_id.clone();
        self.answer("GetSnapshot", &id, self.find_snapshot(request))
            .await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        self.answer(
            "ListSnapshots",
            "",
            self.page_of_snapshots(request.into_inner()),
        )
        .await
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Result<Response<ControllerGetVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer(
            "ControllerGetVolumeHealth",
            &id,
            self.volume_health(request),
        )
        .await
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<ControllerListVolumeHealthRequest>,
    ) -> Result<Response<ControllerListVolumeHealthResponse>, Status> {
        self.answer(
            "ControllerListVolumeHealth",
            "",
            self.page_of_health(request.into_inner()),
        )
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        self.answer("ControllerGetCapabilities", "", async {
            let attach = self.pool.attach.then_some(OFFERED_WITH_ATTACH);
            let expansion = self.controller_expansion.then_some(OFFERED_WITH_EXPANSION);
            let offered = OFFERED.iter().chain(attach.into_iter().flatten());
            let offered = offered.chain(expansion.into_iter().flatten());
            let capabilities = offered.map(|rpc| ControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc {
                    r#type: (*rpc).into(),
                })),
            });
            Ok(ControllerGetCapabilitiesResponse {
                capabilities: capabilities.collect(),
            })
        })
        .await
    }
}
