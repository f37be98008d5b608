//! Volumes and snapshots of the fake driver.

use std::path::Path;

use csi::v1::controller_server::Controller;
use csi::v1::controller_service_capability::{self as capability, rpc};
#[allow(clippy::wildcard_imports)]
use csi::v1::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tonic::{Request, Response, Status};

use super::{Fault, Service, here, io};

/// All that is in a folder, into another one.
fn copy(from: &Path, to: &Path) -> Result<(), Status> {
    let copied = std::process::Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([from, to])
        .status();
    if copied.map_err(io)?.success() {
        Ok(())
    } else {
        Err(Status::internal("cp failed"))
    }
}

#[tonic::async_trait]
impl Controller for Service {
    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        if self.fault() == Fault::NodeOnly {
            return Err(Status::unimplemented("no controller here"));
        }
        let capability = |kind: rpc::Type| ControllerServiceCapability {
            r#type: Some(capability::Type::Rpc(capability::Rpc {
                r#type: kind.into(),
            })),
        };
        let mut able = vec![
            rpc::Type::CreateDeleteVolume,
            rpc::Type::CreateDeleteSnapshot,
            rpc::Type::GetCapacity,
        ];
        if self.fault() != Fault::Old {
            able.push(rpc::Type::SingleNodeMultiWriter);
        }
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: able.into_iter().map(capability).collect(),
        }))
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        assert_eq!(request.into_inner().accessible_topology, Some(here("node")));
        Ok(Response::new(GetCapacityResponse {
            available_capacity: 12345,
            maximum_volume_size: Some(99),
            ..GetCapacityResponse::default()
        }))
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        self.called("CreateVolume")?;
        let request = request.into_inner();
        let mut inner = self.inner.lock().unwrap();
        let name = request.name.clone();
        let required = request.capacity_range.unwrap().required_bytes;
        let source = request.volume_content_source.clone();
        let source = source.and_then(|source| match source.r#type? {
            volume_content_source::Type::Snapshot(snapshot) => Some(snapshot.snapshot_id),
            volume_content_source::Type::Volume(_) => None,
        });
        let is_copy = source.is_some();
        let is_known = |id: &String| inner.snapshots.values().any(|known| known == id);
        if source.as_ref().is_some_and(|id| !is_known(id)) {
            return Err(Status::not_found("no such snapshot"));
        }
        inner.requests.push(request);
        if !inner.volumes.contains_key(&name) {
            inner.made += 1;
            let handle = format!("handle-{}", inner.made);
            let path = self.volumes.join(&handle);
            std::fs::create_dir(&path).map_err(io)?;
            let size = format!("size={}", inner.bytes);
            let size = std::ffi::CString::new(size).map_err(io)?;
            mount(
                "populator-test",
                &path,
                "tmpfs",
                MountFlags::empty(),
                Some(size.as_c_str()),
            )
            .map_err(io)?;
            if let Some(source) = source {
                copy(&self.snapshots.join(source), &path)?;
            }
            inner.volumes.insert(name.clone(), handle);
        }
        Ok(Response::new(CreateVolumeResponse {
            volume: Some(Volume {
                volume_id: inner.volumes[&name].clone(),
                capacity_bytes: match inner.fault {
                    Fault::Small => required - 1,
                    Fault::SmallCopy if is_copy => required - 1,
                    _ => required,
                },
                volume_context: [("key".to_owned(), "value".to_owned())].into(),
                accessible_topology: match inner.fault {
                    Fault::Elsewhere => vec![here("another")],
                    _ => vec![here("node")],
                },
                ..Volume::default()
            }),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        self.called("CreateSnapshot")?;
        let request = request.into_inner();
        let mut inner = self.inner.lock().unwrap();
        if !inner.snapshots.contains_key(&request.name) {
            let handle = format!("snapshot-{}", request.name);
            let path = self.snapshots.join(&handle);
            std::fs::create_dir(&path).map_err(io)?;
            copy(&self.volumes.join(request.source_volume_id), &path)?;
            inner.snapshots.insert(request.name.clone(), handle);
        }
        Ok(Response::new(CreateSnapshotResponse {
            snapshot: Some(Snapshot {
                snapshot_id: inner.snapshots[&request.name].clone(),
                size_bytes: 1 << 20,
                ready_to_use: true,
                ..Snapshot::default()
            }),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        self.called("DeleteSnapshot")?;
        let handle = request.into_inner().snapshot_id;
        let mut inner = self.inner.lock().unwrap();
        inner.snapshots.retain(|_, known| *known != handle);
        Ok(Response::new(DeleteSnapshotResponse::default()))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        self.called("DeleteVolume")?;
        let handle = request.into_inner().volume_id;
        let mut inner = self.inner.lock().unwrap();
        inner.volumes.retain(|_, known| *known != handle);
        let path = self.volumes.join(handle);
        if path.exists() {
            unmount(&path, UnmountFlags::empty()).map_err(io)?;
            std::fs::remove_dir(path).map_err(io)?;
        }
        Ok(Response::new(DeleteVolumeResponse::default()))
    }
}
