//! The Identity service: who this is, and whether it can work.

use csi::v1::identity_server::Identity;
use csi::v1::plugin_capability::service::Type as ServiceType;
use csi::v1::plugin_capability::volume_expansion::Type as ExpansionType;
use csi::v1::plugin_capability::{Service, Type, VolumeExpansion};
use csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::{Half, Services};

#[async_trait]
impl Identity for Services {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        self.answer("GetPluginInfo", "", async {
            Ok(GetPluginInfoResponse {
                name: self.name.clone(),
                vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            })
        })
        .await
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        self.answer("GetPluginCapabilities", "", async {
            let services = [
                ServiceType::ControllerService,
                ServiceType::VolumeAccessibilityConstraints,
                ServiceType::SnapshotAccessibilityConstraints,
                ServiceType::GroupControllerService,
                ServiceType::SnapshotMetadataService,
            ];
            let beside = |service: &ServiceType| match service {
                ServiceType::ControllerService
                | ServiceType::GroupControllerService
                | ServiceType::SnapshotMetadataService => self.half != Some(Half::Node),
                _ => true,
            };
            let services = services.into_iter().filter(beside).map(|service| {
                Type::Service(Service {
                    r#type: service.into(),
                })
            });
            let expansion = Type::VolumeExpansion(VolumeExpansion {
                r#type: ExpansionType::Online.into(),
            });
            let capabilities = services.chain([expansion]);
            let capabilities = capabilities.map(|it| PluginCapability { r#type: Some(it) });
            Ok(GetPluginCapabilitiesResponse {
                capabilities: capabilities.collect(),
            })
        })
        .await
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.answer("Probe", "", async {
            match self.health.pool(&self.pool).await {
                Ok(()) => Ok(ProbeResponse { ready: Some(true) }),
                Err(reason) => Err(Status::failed_precondition(reason)),
            }
        })
        .await
    }
}
