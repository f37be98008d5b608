//! The part of the Controller service that is about attaching, with `--attach`.

use csi::v1::{
    ControllerPublishVolumeRequest, ControllerPublishVolumeResponse,
    ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
};
use tonic::Status;

use super::{Services, request};
use crate::operations::attach::attach;
use crate::operations::detach::detach;

impl Services {
    pub(super) async fn attach(
        &self,
        request: ControllerPublishVolumeRequest,
    ) -> Result<ControllerPublishVolumeResponse, Status> {
        self.only_with_attach()?;
        if request.node_id.is_empty() {
            return Err(request::invalid("node_id is missing"));
        }
        let capability = request::capability(request.volume_capability.as_ref())?;
        let id = request::volume(&request.volume_id)?;
        let (node, read_only) = (request.node_id, request.readonly);
        self.run(move |pool| attach(pool, &id, &node, &capability, read_only))
            .await?;
        Ok(ControllerPublishVolumeResponse::default())
    }

    pub(super) async fn detach(
        &self,
        request: ControllerUnpublishVolumeRequest,
    ) -> Result<ControllerUnpublishVolumeResponse, Status> {
        self.only_with_attach()?;
        if let Some(id) = request::former_id("volume_id", &request.volume_id)? {
            let from = (!request.node_id.is_empty()).then_some(request.node_id);
            self.run(move |pool| detach(pool, &id, from.as_deref()))
                .await?;
        }
        Ok(ControllerUnpublishVolumeResponse {})
    }

    fn only_with_attach(&self) -> Result<(), Status> {
        if self.pool.attach {
            Ok(())
        } else {
            Err(Status::unimplemented(
                "volumes are not attached here; start the driver with --attach for that",
            ))
        }
    }
}
