//! The parts of the Controller and the Node service that are about health.

use csi::v1::node_get_storage_health_response::StorageBackendHealth;
use csi::v1::volume_health::VolumeHealthEntry;
use csi::v1::{
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerListVolumeHealthRequest, ControllerListVolumeHealthResponse,
    NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse,
    StorageHealthErrorType, VolumeHealth, VolumeHealthErrorType,
};
use tonic::Status;

use super::{Services, request};
use crate::operations::health::{self, Finding, Severity};
use crate::volume::VolumeId;

impl Services {
    pub(super) async fn volume_health(
        &self,
        request: ControllerGetVolumeHealthRequest,
    ) -> Result<ControllerGetVolumeHealthResponse, Status> {
        let id = request::volume(&request.volume_id)?;
        let wanted = id.clone();
        let findings = self
            .run(move |pool| health::volume(pool, &wanted, &[]))
            .await?;
        Ok(ControllerGetVolumeHealthResponse {
            volume_health: Some(of_volume(&id, findings)),
        })
    }

    pub(super) async fn page_of_health(
        &self,
        request: ControllerListVolumeHealthRequest,
    ) -> Result<ControllerListVolumeHealthResponse, Status> {
        let page = request::page(request.max_entries, &request.starting_token)?;
        let listed = self.run(move |pool| health::volumes(pool, &page)).await?;
        let entries = listed.entries.into_iter();
        Ok(ControllerListVolumeHealthResponse {
            entries: entries.map(|(id, it)| of_volume(&id, it)).collect(),
            next_token: listed.next.map_or_else(String::new, String::from),
        })
    }

    pub(super) async fn health_here(
        &self,
        request: NodeGetVolumeHealthRequest,
    ) -> Result<NodeGetVolumeHealthResponse, Status> {
        let mut paths = Vec::new();
        for (field, value) in [
            ("volume_publish_path", &request.volume_publish_path),
            ("staging_target_path", &request.staging_target_path),
        ] {
            if !value.is_empty() {
                paths.push(request::path(field, value)?);
            }
        }
        let id = request::volume(&request.volume_id)?;
        let wanted = id.clone();
        let findings = self
            .run(move |pool| health::volume(pool, &wanted, &paths))
            .await?;
        Ok(NodeGetVolumeHealthResponse {
            volume_health: Some(of_volume(&id, findings)),
        })
    }

    pub(super) async fn storage_health(&self) -> Result<NodeGetStorageHealthResponse, Status> {
        let findings = match self.health.pool(&self.pool).await {
            Ok(()) => self.run(health::pool).await?,
            Err(complaint) => vec![health::unwritable(&complaint)],
        };
        Ok(NodeGetStorageHealthResponse {
            backend_health: findings.into_iter().map(of_storage).collect(),
        })
    }
}

fn of_volume(id: &VolumeId, findings: Vec<Finding>) -> VolumeHealth {
    let entries = findings.into_iter().map(|finding| {
        let status = match finding.severity {
            Severity::Degraded => VolumeHealthErrorType::Degraded,
            Severity::Inaccessible => VolumeHealthErrorType::Inaccessible,
            Severity::DataLoss => VolumeHealthErrorType::DataLoss,
        };
        VolumeHealthEntry {
            status: status.into(),
            reason: finding.reason.to_owned(),
            message: finding.message,
        }
    });
    VolumeHealth {
        volume_id: id.to_string(),
        health_statuses: entries.collect(),
    }
}

fn of_storage(finding: Finding) -> StorageBackendHealth {
    let status = match finding.severity {
        Severity::Degraded => StorageHealthErrorType::StorageDegraded,
        Severity::Inaccessible | Severity::DataLoss => StorageHealthErrorType::StorageUnreachable,
    };
    StorageBackendHealth {
        status: status.into(),
        reason: finding.reason.to_owned(),
        message: finding.message,
        volume_capability: None,
    }
}
