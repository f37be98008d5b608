//! The part of the Controller service that is about volumes.

use csi::v1::controller_get_volume_response::VolumeStatus as GetStatus;
use csi::v1::list_volumes_response::{Entry, VolumeStatus};
use csi::v1::validate_volume_capabilities_response::Confirmed;
use csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetVolumeRequest,
    ControllerGetVolumeResponse, ControllerModifyVolumeRequest, ControllerModifyVolumeResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    GetCapacityRequest, GetCapacityResponse, ListVolumesRequest, ListVolumesResponse,
    TopologyRequirement, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
    Volume, VolumeContentSource,
};
use tonic::Status;

use super::{Services, request, signed};
use crate::operations::create::{NewVolume, create};
use crate::operations::delete::delete;
use crate::operations::expand::expand;
use crate::operations::list;
use crate::operations::modify::modify;
use crate::operations::validate::look_up;
use crate::pool::{AttachmentRecord, Pool, Source, VolumeRecord};
use crate::volume::{Attributes, Capability, VolumeId, VolumeParameters};

/// What external-provisioner adds to every volume's context.
const PROVISIONER_IDENTITY: &str = "storage.kubernetes.io/csiProvisionerIdentity";

impl Services {
    pub(super) async fn create(
        &self,
        request: CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse, Status> {
        let new = self.new_volume(&request)?;
        let (id, record) = self.run(move |pool| create(pool, &new)).await?;
        Ok(CreateVolumeResponse {
            volume: Some(self.volume(&id, &record)),
        })
    }

    pub(super) async fn delete(
        &self,
        request: DeleteVolumeRequest,
    ) -> Result<DeleteVolumeResponse, Status> {
        if let Some(id) = request::former_id("volume_id", &request.volume_id)? {
            self.run(move |pool| delete(pool, &id)).await?;
        }
        Ok(DeleteVolumeResponse {})
    }

    /// What NodeExpandVolume does as well. Where the volume is staged nothing is left to be done
    /// for that, and where it is not, staging it does the rest.
    pub(super) async fn expand(
        &self,
        request: ControllerExpandVolumeRequest,
    ) -> Result<ControllerExpandVolumeResponse, Status> {
        if request.capacity_range.is_none() {
            return Err(request::invalid("capacity_range is missing"));
        }
        let range = request::size(request.capacity_range.as_ref())?;
        let id = request::volume(&request.volume_id)?;
        let size = self.run(move |pool| expand(pool, &id, range, None)).await?;
        Ok(ControllerExpandVolumeResponse {
            capacity_bytes: signed(size),
            node_expansion_required: false,
        })
    }

    pub(super) async fn modify(
        &self,
        request: ControllerModifyVolumeRequest,
    ) -> Result<ControllerModifyVolumeResponse, Status> {
        let changes = attributes(&request.mutable_parameters)?;
        let id = request::volume(&request.volume_id)?;
        self.run(move |pool| modify(pool, &id, changes)).await?;
        Ok(ControllerModifyVolumeResponse {})
    }

    pub(super) async fn validate(
        &self,
        request: ValidateVolumeCapabilitiesRequest,
    ) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
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
    }

    pub(super) async fn list(
        &self,
        request: ListVolumesRequest,
    ) -> Result<ListVolumesResponse, Status> {
        let page = request::page(request.max_entries, &request.starting_token)?;
        let listed = self.run(move |pool| with_nodes(pool, &page)).await?;
        let entries = listed.0.into_iter().map(|(id, record, node)| Entry {
            volume: Some(self.volume(&id, &record)),
            status: Some(VolumeStatus {
                published_node_ids: node.into_iter().collect(),
            }),
        });
        Ok(ListVolumesResponse {
            entries: entries.collect(),
            next_token: listed.1.map_or_else(String::new, String::from),
        })
    }

    pub(super) async fn get(
        &self,
        request: ControllerGetVolumeRequest,
    ) -> Result<ControllerGetVolumeResponse, Status> {
        let id = request::volume(&request.volume_id)?;
        let wanted = id.clone();
        let found = move |pool: &Pool| look_up(pool, &wanted).map(|it| (it, node(pool, &wanted)));
        let (record, node) = self.run(found).await?;
        Ok(ControllerGetVolumeResponse {
            volume: Some(self.volume(&id, &record)),
            status: Some(GetStatus {
                published_node_ids: node.into_iter().collect(),
            }),
        })
    }

    pub(super) async fn capacity(
        &self,
        request: GetCapacityRequest,
    ) -> Result<GetCapacityResponse, Status> {
        let parameters = parameters(&request.parameters)?;
        let topology = request.accessible_topology.as_ref();
        let elsewhere = topology.is_some_and(|topology| {
            self.node_in(topology).as_deref() != Some(self.pool.node.as_str())
        });
        let uses: Result<Vec<_>, _> = request
            .volume_capabilities
            .iter()
            .map(Capability::parse)
            .collect();
        // For volumes that cannot be made here, there is no room.
        let offered =
            uses.is_ok_and(|uses| Capability::common(&uses, parameters.file_system).is_ok());
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
    }

    fn new_volume(&self, request: &CreateVolumeRequest) -> Result<NewVolume, Status> {
        let name = request::text("name", &request.name)?.to_owned();
        let capabilities = request::capabilities(&request.volume_capabilities)?;
        let size = request::size(request.capacity_range.as_ref())?;
        let parameters = parameters(&request.parameters)?;
        let attributes = attributes(&request.mutable_parameters)?;
        let content = Capability::common(&capabilities, parameters.file_system)
            .map_err(|error| request::invalid(error.to_string()))?;
        let source = match &request.volume_content_source {
            Some(source) => Some(parse_source(source)?),
            None => None,
        };
        Ok(NewVolume {
            name,
            size,
            content,
            provisioning: parameters.provisioning,
            mkfs_options: parameters.mkfs_options,
            attributes,
            source,
            nodes: self.nodes(request.accessibility_requirements.as_ref()),
        })
    }

    /// The nodes that a requirement names; none when it leaves that open.
    pub(super) fn nodes(&self, requirement: Option<&TopologyRequirement>) -> Vec<String> {
        let requisite = requirement.map_or(&[][..], |requirement| &requirement.requisite);
        requisite
            .iter()
            .map(|topology| self.node_in(topology).unwrap_or_default())
            .collect()
    }

    fn volume(&self, id: &VolumeId, record: &VolumeRecord) -> Volume {
        let content_source = record.source.as_ref().map(|source| VolumeContentSource {
            r#type: Some(match source {
                Source::Snapshot(id) => SourceType::Snapshot(SnapshotSource {
                    snapshot_id: id.to_string(),
                }),
                Source::Volume(id) => SourceType::Volume(VolumeSource {
                    volume_id: id.to_string(),
                }),
            }),
        });
        Volume {
            capacity_bytes: signed(record.size_bytes),
            volume_id: id.to_string(),
            content_source,
            accessible_topology: vec![self.topology()],
            ..Default::default()
        }
    }
}

type Listing = (
    Vec<(VolumeId, VolumeRecord, Option<String>)>,
    Option<VolumeId>,
);

fn with_nodes(
    pool: &Pool,
    page: &list::Page<crate::volume::OfVolume>,
) -> Result<Listing, list::ListError> {
    let listed = list::volumes(pool, page)?;
    let entries = listed.entries.into_iter().map(|(id, record)| {
        let node = node(pool, &id);
        (id, record, node)
    });
    Ok((entries.collect(), listed.next))
}

/// The node that a volume is attached to.
fn node(pool: &Pool, id: &VolumeId) -> Option<String> {
    let attachment: Option<AttachmentRecord> = pool.attach.then(|| pool.layout.load(id).ok())??;
    attachment.map(|attachment| attachment.node)
}

fn parameters(
    map: &std::collections::BTreeMap<String, String>,
) -> Result<VolumeParameters, Status> {
    VolumeParameters::parse(map).map_err(|error| request::invalid(error.to_string()))
}

pub(super) fn attributes(
    map: &std::collections::BTreeMap<String, String>,
) -> Result<Attributes, Status> {
    Attributes::parse(map).map_err(|error| request::invalid(error.to_string()))
}

fn parse_source(source: &VolumeContentSource) -> Result<Source, Status> {
    match &source.r#type {
        Some(SourceType::Snapshot(source)) => Ok(Source::Snapshot(request::id(
            "snapshot_id",
            &source.snapshot_id,
        )?)),
        Some(SourceType::Volume(source)) => {
            Ok(Source::Volume(request::id("volume_id", &source.volume_id)?))
        }
        None => Err(request::invalid(
            "volume_content_source is empty; name a snapshot or a volume",
        )),
    }
}

/// What stands against using the volume as is asked, if anything.
fn objection(request: &ValidateVolumeCapabilitiesRequest, record: &VolumeRecord) -> Option<String> {
    for capability in &request.volume_capabilities {
        match Capability::parse(capability) {
            Err(error) => return Some(error.to_string()),
            Ok(use_) if !use_.suits(record.file_system) => {
                return Some(format!("the volume has {}", record.content_name()));
            }
            Ok(_) => {}
        }
    }
    if let Err(error) = VolumeParameters::parse(&request.parameters) {
        return Some(error.to_string());
    }
    if let Err(error) = Attributes::parse(&request.mutable_parameters) {
        return Some(error.to_string());
    }
    let foreign = request
        .volume_context
        .keys()
        .find(|key| *key != PROVISIONER_IDENTITY);
    foreign.map(|key| format!("the volume's context has no {key:?}"))
}
