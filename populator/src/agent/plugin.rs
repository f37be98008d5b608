//! Calls to a CSI driver of this node, as kubelet and external-provisioner make them.
//!
//! Every call is idempotent by CSI, so one whose answer is lost is simply made again: for a while
//! when the driver is away or busy with the same volume, since drivers restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crds::restore_order::{MadeVolume, OrderVolume};
use csi::v1::controller_client::ControllerClient;
use csi::v1::controller_service_capability::{self, rpc as controller_rpc};
use csi::v1::identity_client::IdentityClient;
use csi::v1::node_client::NodeClient;
use csi::v1::node_service_capability::{self, rpc as node_rpc};
use csi::v1::plugin_capability::{self, service};
use csi::v1::{
    ControllerGetCapabilitiesRequest, CreateSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, DeleteVolumeRequest, GetCapacityRequest, GetCapacityResponse,
    GetPluginCapabilitiesRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, Snapshot, Topology, Volume,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::metrics::{self, Metrics};
use super::registry::Drivers;
use super::volume::Abilities;
use crate::seal::Contents;

/// How a volume is mounted.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// The volume.
    pub made: &'a MadeVolume,
    /// What is wanted of it.
    pub volume: &'a OrderVolume,
    /// What the driver can do.
    pub abilities: &'a Abilities,
    /// What attaching it answered.
    pub publish_context: &'a BTreeMap<String, String>,
    /// What the driver is told of the pod that it is for, if it wants to be.
    pub pod_info: &'a BTreeMap<String, String>,
    /// The Secrets that it wants.
    pub secrets: &'a Contents,
}

mod call;

pub use call::{CallError, Patience, Rpc};
use call::{code, printable};

/// One CSI driver, called on this node.
#[derive(Debug, Clone)]
pub struct Plugin {
    drivers: Arc<Drivers>,
    name: String,
    patience: Patience,
    metrics: Metrics,
}

impl Plugin {
    /// The driver of this name.
    pub fn new(drivers: Arc<Drivers>, name: &str, patience: Patience, metrics: Metrics) -> Self {
        Self {
            drivers,
            name: name.to_owned(),
            patience,
            metrics,
        }
    }

    /// The driver's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn call<Q: Clone, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        rpc: Rpc,
        request: Q,
        send: impl Fn(Channel, Q) -> F,
    ) -> Result<A, CallError> {
        let begun = Instant::now();
        let mut pause = self.patience.pause;
        loop {
            let error = match self.once(rpc, request.clone(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if matches!(error.code(), None | Some(Code::Unavailable)) {
                self.drivers.forget(&self.name);
            }
            if begun.elapsed() + pause > self.patience.with(rpc, error.code()) {
                return Err(error);
            }
            tracing::debug!(driver = self.name, %rpc, %error, "called again soon");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.patience.pause_max);
        }
    }

    async fn once<Q, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        rpc: Rpc,
        request: Q,
        send: impl Fn(Channel, Q) -> F,
    ) -> Result<A, CallError> {
        let channel = self.drivers.channel(&self.name).await?;
        let begun = Instant::now();
        let answer = send(channel, request).await;
        let code = answer.as_ref().map_or_else(code, |_| Code::Ok);
        self.metrics
            .calls
            .get_or_create(&metrics::Call {
                driver: self.name.clone(),
                call: rpc.name(),
                code: format!("{code:?}"),
            })
            .observe(begun.elapsed().as_secs_f64());
        answer
            .map(Response::into_inner)
            .map_err(|status| CallError::Answer {
                driver: self.name.clone(),
                rpc,
                code,
                message: printable(status.message()),
            })
    }

    /// What driver and node can do.
    pub async fn abilities(&self) -> Result<Abilities, CallError> {
        let (services, controller, node) =
            tokio::try_join!(self.services(), self.controller(), self.node())?;
        let topology = if services.contains(&service::Type::VolumeAccessibilityConstraints) {
            self.topology().await?
        } else {
            None
        };
        Ok(Abilities {
            makes_volumes: services.contains(&service::Type::ControllerService)
                && controller.contains(&controller_rpc::Type::CreateDeleteVolume),
            controller_modes: controller.contains(&controller_rpc::Type::SingleNodeMultiWriter),
            tells_capacity: controller.contains(&controller_rpc::Type::GetCapacity),
            snapshots: controller.contains(&controller_rpc::Type::CreateDeleteSnapshot),
            stages: node.contains(&node_rpc::Type::StageUnstageVolume),
            node_modes: node.contains(&node_rpc::Type::SingleNodeMultiWriter),
            topology,
        })
    }

    async fn services(&self) -> Result<Vec<service::Type>, CallError> {
        let answer = self
            .call(
                Rpc::GetPluginCapabilities,
                GetPluginCapabilitiesRequest {},
                async |channel, request| {
                    IdentityClient::new(channel)
                        .get_plugin_capabilities(request)
                        .await
                },
            )
            .await?;
        let service = |capability: plugin_capability::Type| match capability {
            plugin_capability::Type::Service(service) => Some(service.r#type()),
            plugin_capability::Type::VolumeExpansion(_) => None,
        };
        let capabilities = answer.capabilities.into_iter();
        Ok(capabilities
            .filter_map(|one| one.r#type.and_then(service))
            .collect())
    }

    async fn controller(&self) -> Result<Vec<controller_rpc::Type>, CallError> {
        let answer = self
            .call(
                Rpc::ControllerGetCapabilities,
                ControllerGetCapabilitiesRequest {},
                async |channel, request| {
                    ControllerClient::new(channel)
                        .controller_get_capabilities(request)
                        .await
                },
            )
            .await;
        let answer = match answer {
            // A driver whose controller lives elsewhere: its node's socket has none.
            Err(error) if error.code() == Some(Code::Unimplemented) => return Ok(Vec::new()),
            answer => answer?,
        };
        Ok(answer
            .capabilities
            .into_iter()
            .filter_map(|one| one.r#type)
            .map(|controller_service_capability::Type::Rpc(rpc)| rpc.r#type())
            .collect())
    }

    async fn node(&self) -> Result<Vec<node_rpc::Type>, CallError> {
        let answer = self
            .call(
                Rpc::NodeGetCapabilities,
                NodeGetCapabilitiesRequest {},
                async |channel, request| {
                    NodeClient::new(channel)
                        .node_get_capabilities(request)
                        .await
                },
            )
            .await?;
        Ok(answer
            .capabilities
            .into_iter()
            .filter_map(|one| one.r#type)
            .map(|node_service_capability::Type::Rpc(rpc)| rpc.r#type())
            .collect())
    }

    async fn topology(&self) -> Result<Option<Topology>, CallError> {
        let answer = self
            .call(
                Rpc::NodeGetInfo,
                NodeGetInfoRequest {},
                async |channel, request| NodeClient::new(channel).node_get_info(request).await,
            )
            .await?;
        Ok(answer.accessible_topology)
    }

    /// How much room there is, on this node where the driver has a topology.
    pub async fn capacity(&self, here: Option<Topology>) -> Result<GetCapacityResponse, CallError> {
        let request = GetCapacityRequest {
            accessible_topology: here,
            ..GetCapacityRequest::default()
        };
        self.call(Rpc::GetCapacity, request, async |channel, request| {
            ControllerClient::new(channel).get_capacity(request).await
        })
        .await
    }

    /// Makes a volume, or finds the one of that name.
    pub async fn create(&self, request: CreateVolumeRequest) -> Result<Option<Volume>, CallError> {
        let answer = self
            .call(Rpc::CreateVolume, request, async |channel, request| {
                ControllerClient::new(channel).create_volume(request).await
            })
            .await?;
        Ok(answer.volume)
    }

    /// Deletes a volume; fine if it is gone.
    pub async fn delete(&self, handle: &str) -> Result<(), CallError> {
        let request = DeleteVolumeRequest {
            volume_id: handle.to_owned(),
            ..DeleteVolumeRequest::default()
        };
        self.call(Rpc::DeleteVolume, request, async |channel, request| {
            ControllerClient::new(channel).delete_volume(request).await
        })
        .await
        .map(drop)
    }

    /// Makes a snapshot of a volume, or finds the one of that name.
    pub async fn snapshot(&self, name: &str, volume: &str) -> Result<Option<Snapshot>, CallError> {
        let request = CreateSnapshotRequest {
            source_volume_id: volume.to_owned(),
            name: name.to_owned(),
            ..CreateSnapshotRequest::default()
        };
        let answer = self
            .call(Rpc::CreateSnapshot, request, async |channel, request| {
                ControllerClient::new(channel)
                    .create_snapshot(request)
                    .await
            })
            .await?;
        Ok(answer.snapshot)
    }

    /// Deletes a snapshot; fine if it is gone.
    pub async fn delete_snapshot(&self, handle: &str) -> Result<(), CallError> {
        let request = DeleteSnapshotRequest {
            snapshot_id: handle.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        self.call(Rpc::DeleteSnapshot, request, async |channel, request| {
            ControllerClient::new(channel)
                .delete_snapshot(request)
                .await
        })
        .await
        .map(drop)
    }

    /// Whether there is anything to stage and unstage.
    pub async fn stages(&self) -> Result<bool, CallError> {
        Ok(self
            .node()
            .await?
            .contains(&node_rpc::Type::StageUnstageVolume))
    }

    /// Stages a volume at `path`.
    pub async fn stage(&self, used: Use<'_>, path: &str) -> Result<(), CallError> {
        let request = NodeStageVolumeRequest {
            volume_id: used.made.handle.clone(),
            publish_context: used.publish_context.clone(),
            staging_target_path: path.to_owned(),
            volume_capability: Some(super::volume::filling(used.volume, used.abilities)),
            secrets: used.secrets.stage.clone(),
            volume_context: used.made.context.clone(),
        };
        self.call(Rpc::NodeStageVolume, request, async |channel, request| {
            NodeClient::new(channel).node_stage_volume(request).await
        })
        .await
        .map(drop)
    }

    /// Publishes a volume at `target`, from where it was staged, if it was.
    pub async fn publish(&self, used: Use<'_>, stage: &str, target: &str) -> Result<(), CallError> {
        let mut volume_context = used.made.context.clone();
        volume_context.extend(used.pod_info.clone());
        let request = NodePublishVolumeRequest {
            volume_id: used.made.handle.clone(),
            publish_context: used.publish_context.clone(),
            staging_target_path: if used.abilities.stages {
                stage.to_owned()
            } else {
                String::new()
            },
            target_path: target.to_owned(),
            volume_capability: Some(super::volume::filling(used.volume, used.abilities)),
            secrets: used.secrets.publish.clone(),
            volume_context,
            readonly: false,
        };
        self.call(Rpc::NodePublishVolume, request, async |channel, request| {
            NodeClient::new(channel).node_publish_volume(request).await
        })
        .await
        .map(drop)
    }

    /// Takes a volume away from `target`; fine if the driver does not know it any more.
    pub async fn unpublish(&self, handle: &str, target: &str) -> Result<(), CallError> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: handle.to_owned(),
            target_path: target.to_owned(),
        };
        let answer = self
            .call(
                Rpc::NodeUnpublishVolume,
                request,
                async |channel, request| {
                    NodeClient::new(channel)
                        .node_unpublish_volume(request)
                        .await
                },
            )
            .await;
        unless_unknown(answer.map(drop))
    }

    /// Undoes the staging at `path`; fine if the driver does not know the volume any more.
    pub async fn unstage(&self, handle: &str, path: &str) -> Result<(), CallError> {
        let request = NodeUnstageVolumeRequest {
            volume_id: handle.to_owned(),
            staging_target_path: path.to_owned(),
        };
        let answer = self
            .call(Rpc::NodeUnstageVolume, request, async |channel, request| {
                NodeClient::new(channel).node_unstage_volume(request).await
            })
            .await;
        unless_unknown(answer.map(drop))
    }
}

fn unless_unknown(answer: Result<(), CallError>) -> Result<(), CallError> {
    match answer {
        Err(error) if error.code() == Some(Code::NotFound) => Ok(()),
        answer => answer,
    }
}
