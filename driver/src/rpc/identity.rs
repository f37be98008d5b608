//! The Identity service: who this is, and whether it can work.

use csi::v1::identity_server::Identity;
use csi::v1::plugin_capability::service::Type as ServiceType;
use csi::v1::plugin_capability::{Service, Type};
use csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
    GetPluginInfoResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Services;

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
            let capabilities = services.map(|service| PluginCapability {
                r#type: Some(Type::Service(Service {
                    r#type: service.into(),
                })),
            });
            Ok(GetPluginCapabilitiesResponse {
                capabilities: capabilities.into(),
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
