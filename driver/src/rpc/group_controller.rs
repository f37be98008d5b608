//! The GroupController service: snapshots of several volumes at one moment.

use std::collections::BTreeSet;

use csi::v1::group_controller_server::GroupController;
use csi::v1::group_controller_service_capability::rpc::Type as RpcType;
use csi::v1::group_controller_service_capability::{Rpc, Type};
use csi::v1::{
    CreateVolumeGroupSnapshotRequest, CreateVolumeGroupSnapshotResponse,
    DeleteVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotResponse,
    GetVolumeGroupSnapshotRequest, GetVolumeGroupSnapshotResponse,
    GroupControllerGetCapabilitiesRequest, GroupControllerGetCapabilitiesResponse,
    GroupControllerServiceCapability, VolumeGroupSnapshot,
};
use tonic::{Request, Response, Status, async_trait};

use super::snapshots::timestamp;
use super::{Services, request};
use crate::operations::delete_group::delete_group;
use crate::operations::group::{self, Group, MOST_MEMBERS, NewGroup};
use crate::volume::{GroupId, SnapshotParameters, VolumeId};

#[async_trait]
impl GroupController for Services {
    async fn group_controller_get_capabilities(
        &self,
        _: Request<GroupControllerGetCapabilitiesRequest>,
    ) -> Result<Response<GroupControllerGetCapabilitiesResponse>, Status> {
        self.answer("GroupControllerGetCapabilities", "", async {
            let rpc = RpcType::CreateDeleteGetVolumeGroupSnapshot.into();
            Ok(GroupControllerGetCapabilitiesResponse {
                capabilities: vec![GroupControllerServiceCapability {
                    r#type: Some(Type::Rpc(Rpc { r#type: rpc })),
                }],
            })
        })
        .await
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<CreateVolumeGroupSnapshotRequest>,
    ) -> Result<Response<CreateVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        let volumes = request.source_volume_ids.join(" ");
        self.answer("CreateVolumeGroupSnapshot", &volumes, async {
            let new = new_group(&request)?;
            let group = self.run(move |pool| group::take(pool, &new)).await?;
            Ok(CreateVolumeGroupSnapshotResponse {
                group_snapshot: Some(self.group(&group)),
            })
        })
        .await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<DeleteVolumeGroupSnapshotRequest>,
    ) -> Result<Response<DeleteVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.group_snapshot_id.clone();
        self.answer("DeleteVolumeGroupSnapshot", &id, async {
            let members = request.snapshot_ids.into_iter().collect();
            if let Some(id) = request::former_id("group_snapshot_id", &id)? {
                self.run(move |pool| delete_group(pool, &id, &members))
                    .await?;
            }
            Ok(DeleteVolumeGroupSnapshotResponse {})
        })
        .await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<GetVolumeGroupSnapshotRequest>,
    ) -> Result<Response<GetVolumeGroupSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = request.group_snapshot_id.clone();
        self.answer("GetVolumeGroupSnapshot", &id, async {
            let members = request.snapshot_ids.into_iter().collect();
            let id: GroupId = request::id("group_snapshot_id", &id)?;
            let group = self
                .run(move |pool| group::look_up(pool, &id, &members))
                .await?;
            Ok(GetVolumeGroupSnapshotResponse {
                group_snapshot: Some(self.group(&group)),
            })
        })
        .await
    }
}

impl Services {
    fn group(&self, group: &Group) -> VolumeGroupSnapshot {
        let snapshots = group.snapshots.iter();
        VolumeGroupSnapshot {
            group_snapshot_id: group.id.to_string(),
            snapshots: snapshots.map(|(id, it)| self.snapshot(id, it)).collect(),
            creation_time: Some(timestamp(group.taken_nanoseconds)),
            ready_to_use: true,
        }
    }
}

fn new_group(request: &CreateVolumeGroupSnapshotRequest) -> Result<NewGroup, Status> {
    let name = request::text("name", &request.name)?.to_owned();
    let wanted = &request.source_volume_ids;
    if wanted.is_empty() {
        return Err(request::invalid("source_volume_ids is empty"));
    }
    if wanted.len() > MOST_MEMBERS {
        let reason = format!("source_volume_ids has more than {MOST_MEMBERS} volumes");
        return Err(request::invalid(reason));
    }
    if wanted.iter().collect::<BTreeSet<_>>().len() < wanted.len() {
        return Err(request::invalid("source_volume_ids names a volume twice"));
    }
    let parameters = SnapshotParameters::parse(&request.parameters)
        .map_err(|error| request::invalid(error.to_string()))?;
    let volumes: BTreeSet<VolumeId> = wanted
        .iter()
        .map(|volume| request::id("source_volume_ids", volume))
        .collect::<Result<_, _>>()?;
    Ok(NewGroup {
        name,
        volumes,
        freeze: parameters.freeze,
    })
}
