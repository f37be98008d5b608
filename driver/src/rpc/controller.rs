//! The Controller service: volumes come and go.

use csi::v1::controller_server::Controller;
use csi::v1::controller_service_capability::rpc::Type as RpcType;
use csi::v1::controller_service_capability::{Rpc, Type};
use csi::v1::validate_volume_capabilities_response::Confirmed;
use csi::v1::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerServiceCapability, CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest,
    DeleteVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Services, request};
use crate::operations::create::{NewVolume, create};
use crate::operations::delete::delete;
use crate::operations::validate::look_up;
use crate::pool::{Pool, VolumeRecord};
use crate::volume::{Capability, check_parameters};

/// What external-provisioner adds to every volume's context.
const PROVISIONER_IDENTITY: &str = "storage.kubernetes.io/csiProvisionerIdentity";

#[async_trait]
impl Controller for Services {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.answer("CreateVolume", &name, async {
            let new = self.new_volume(&request)?;
            let (id, record) = self.run(move |pool| create(pool, &new)).await?;
            let volume = Volume {
                capacity_bytes: signed(record.size_bytes),
                volume_id: id.to_string(),
                accessible_topology: vec![self.topology()],
                ..Default::default()
            };
            Ok(CreateVolumeResponse {
                volume: Some(volume),
            })
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let request = request.into_inner();
        self.answer("DeleteVolume", &request.volume_id, async {
            if let Some(id) = request::former_volume(&request.volume_id)? {
                self.run(move |pool| delete(pool, &id)).await?;
            }
            Ok(DeleteVolumeResponse {})
        })
        .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let id = request.volume_id.clone();
        self.answer("ValidateVolumeCapabilities", &id, async {
            if request.volume_capabilities.is_empty() {
                return Err(request::invalid("volume_capabilities is empty"));
            }
            let id = request::volume(&request.volume_id)?;
            let record = self.run(move |pool| look_up(pool, &id)).await?;
            Ok(match objection(&request, &record) {
                None => ValidateVolumeCapabilitiesResponse {
                    confirmed: Some(Confirmed {
                        volume_context: request.volume_context,
                        volume_capabilities: request.volume_capabilities,
                        parameters: request.parameters,
                        mutable_parameters: request.mutable_parameters,
                    }),
                    message: String::new(),
                },
                Some(message) => ValidateVolumeCapabilitiesResponse {
                    confirmed: None,
                    message,
                },
            })
        })
        .await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        self.answer("GetCapacity", "", async {
            check_parameters(&request.parameters)
                .map_err(|error| request::invalid(error.to_string()))?;
            let elsewhere = request
                .accessible_topology
                .as_ref()
                .is_some_and(|topology| {
                    topology
                        .segments
                        .get(&self.topology_key())
                        .map(String::as_str)
                        != Some(self.pool.node.as_str())
                });
            let uses: Result<Vec<_>, _> = request
                .volume_capabilities
                .iter()
                .map(Capability::parse)
                .collect();
            // For volumes that cannot be made here, there is no room.
            let offered = uses.is_ok_and(|uses| Capability::common_file_system(&uses).is_ok());
            let available = if elsewhere || !offered {
                0
            } else {
                signed(self.run(Pool::available).await?)
            };
            Ok(GetCapacityResponse {
                available_capacity: available,
                maximum_volume_size: Some(available),
                minimum_volume_size: None,
            })
        })
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        self.answer("ControllerGetCapabilities", "", async {
            let rpcs = [RpcType::CreateDeleteVolume, RpcType::GetCapacity];
            let capabilities = rpcs.map(|rpc| ControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
            });
            Ok(ControllerGetCapabilitiesResponse {
                capabilities: capabilities.into(),
            })
        })
        .await
    }
}

impl Services {
    fn new_volume(&self, request: &CreateVolumeRequest) -> Result<NewVolume, Status> {
        let name = request::text("name", &request.name)?.to_owned();
        let capabilities = request::capabilities(&request.volume_capabilities)?;
        let size = request::size(request.capacity_range.as_ref())?;
        check_parameters(&request.parameters)
            .map_err(|error| request::invalid(error.to_string()))?;
        if !request.mutable_parameters.is_empty() {
            return Err(request::invalid("this driver has no mutable parameters"));
        }
        if request.volume_content_source.is_some() {
            return Err(request::invalid(
                "volumes from snapshots or volumes are not offered",
            ));
        }
        let file_system = Capability::common_file_system(&capabilities).map_err(|(a, b)| {
            let (a, b) = (a.name(), b.name());
            request::invalid(format!(
                "a volume has one file system; {a} and {b} were asked for"
            ))
        })?;
        let key = self.topology_key();
        let requirement = request.accessibility_requirements.as_ref();
        let nodes = requirement.map_or_else(Vec::new, |requirement| {
            let node = |topology: &csi::v1::Topology| {
                topology.segments.get(&key).cloned().unwrap_or_default()
            };
            requirement.requisite.iter().map(node).collect()
        });
        Ok(NewVolume {
            name,
            size,
            file_system,
            nodes,
        })
    }
}

/// What stands against using the volume as is asked, if anything.
fn objection(request: &ValidateVolumeCapabilitiesRequest, record: &VolumeRecord) -> Option<String> {
    for capability in &request.volume_capabilities {
        match Capability::parse(capability) {
            Err(error) => return Some(error.to_string()),
            Ok(use_) if !use_.suits(record.file_system) => {
                return Some(format!("the volume has {}", record.file_system.name()));
            }
            Ok(_) => {}
        }
    }
    if let Err(error) = check_parameters(&request.parameters) {
        return Some(error.to_string());
    }
    if !request.mutable_parameters.is_empty() {
        return Some("this driver has no mutable parameters".to_owned());
    }
    let foreign = request
        .volume_context
        .keys()
        .find(|key| *key != PROVISIONER_IDENTITY);
    foreign.map(|key| format!("the volume's context has no {key:?}"))
}

/// For CSI's signed fields. Sizes never come near the difference.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
