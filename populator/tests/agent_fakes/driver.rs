//! A CSI driver with a tmpfs for each volume, really mounted, which fails as it is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi::registration::registration_server::{Registration, RegistrationServer};
use csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use csi::v1::controller_server::{Controller, ControllerServer};
use csi::v1::controller_service_capability::{
    self as controller_capability, rpc as controller_rpc,
};
use csi::v1::identity_server::{Identity, IdentityServer};
use csi::v1::node_server::{Node, NodeServer};
use csi::v1::node_service_capability::{self as node_capability, rpc as node_rpc};
use csi::v1::plugin_capability::{self, service};
#[allow(clippy::wildcard_imports)]
use csi::v1::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The driver's name.
pub const NAME: &str = "driver.example.com";

/// What it does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It says that it has published, and has not.
    Lies,
    /// It makes volumes smaller than asked for.
    Small,
    /// It makes copies smaller than asked for.
    SmallCopy,
    /// It makes volumes for another node.
    Elsewhere,
    /// It has no controller service here.
    NodeOnly,
    /// It does not tell apart the writers of one node, as drivers before CSI 1.5.
    Old,
}

#[derive(Default)]
struct Inner {
    fault: Fault,
    calls: Vec<&'static str>,
    requests: Vec<CreateVolumeRequest>,
    uses: Vec<VolumeCapability>,
    secrets: Vec<BTreeMap<String, String>>,
    errors: HashMap<&'static str, VecDeque<Status>>,
    volumes: BTreeMap<String, String>,
    snapshots: BTreeMap<String, String>,
    made: usize,
    bytes: u64,
}

/// The driver. Dropping the last clone unmounts what is left.
#[derive(Clone)]
pub struct Driver {
    inner: Arc<Mutex<Inner>>,
    folder: Arc<Folder>,
}

struct Folder(tempfile::TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.0.path().join("volumes")).unwrap() {
            // A plain folder where there is none.
            let _ = unmount(entry.unwrap().path(), UnmountFlags::DETACH);
        }
    }
}

impl Driver {
    /// A driver that serves on a socket and has registered itself in [`Self::registry`].
    pub fn start(fault: Fault, bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["volumes", "snapshots", "registry"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let inner = Inner {
            fault,
            bytes,
            ..Inner::default()
        };
        let driver = Self {
            inner: Arc::new(Mutex::new(inner)),
            folder: Arc::new(Folder(folder)),
        };
        let incoming = csi::socket::listen(&driver.socket()).unwrap();
        let server = Server::builder()
            .add_service(IdentityServer::new(driver.service()))
            .add_service(ControllerServer::new(driver.service()))
            .add_service(NodeServer::new(driver.service()));
        tokio::spawn(server.serve_with_incoming(incoming));

        let registration = driver.registry().join("driver-reg.sock");
        let incoming = csi::socket::listen(&registration).unwrap();
        let info = PluginInfo {
            r#type: "CSIPlugin".into(),
            name: NAME.into(),
            endpoint: driver.socket().to_str().unwrap().into(),
            supported_versions: vec!["1.13.0".into()],
        };
        let server = Server::builder().add_service(RegistrationServer::new(Registered(info)));
        tokio::spawn(server.serve_with_incoming(incoming));
        driver
    }

    fn service(&self) -> Service {
        Service {
            inner: Arc::clone(&self.inner),
            volumes: self.volumes(),
            snapshots: self.folder.0.path().join("snapshots"),
        }
    }

    fn volumes(&self) -> PathBuf {
        self.folder.0.path().join("volumes")
    }

    fn socket(&self) -> PathBuf {
        self.folder.0.path().join("csi.sock")
    }

    /// Where it has registered itself.
    pub fn registry(&self) -> PathBuf {
        self.folder.0.path().join("registry")
    }

    /// The next calls of this name fail so.
    pub fn fail(&self, call: &'static str, errors: impl IntoIterator<Item = Status>) {
        let mut inner = self.inner.lock().unwrap();
        inner.errors.entry(call).or_default().extend(errors);
    }

    /// The calls that change anything, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// What CreateVolume was asked for.
    pub fn created(&self) -> Vec<CreateVolumeRequest> {
        self.inner.lock().unwrap().requests.clone()
    }

    /// The Secrets with which volumes were staged and published.
    pub fn secrets(&self) -> Vec<BTreeMap<String, String>> {
        self.inner.lock().unwrap().secrets.clone()
    }

    /// How volumes were staged and published.
    pub fn uses(&self) -> Vec<VolumeCapability> {
        self.inner.lock().unwrap().uses.clone()
    }

    /// The handles of the volumes that exist.
    pub fn handles(&self) -> Vec<String> {
        self.inner
            .lock()
            .unwrap()
            .volumes
            .values()
            .cloned()
            .collect()
    }

    /// The handles of the snapshots that exist.
    pub fn snapshots(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        inner.snapshots.values().cloned().collect()
    }

    /// Loses all snapshots.
    pub fn lose_snapshots(&self) {
        self.inner.lock().unwrap().snapshots.clear();
    }

    /// Where the driver itself has a volume mounted.
    pub fn volume(&self, handle: &str) -> PathBuf {
        self.volumes().join(handle)
    }
}

/// The lines of the mount table that are about something below `folder`.
pub fn mounts(folder: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let folder = folder.to_str().unwrap();
    table
        .lines()
        .filter(|line| line.contains(folder))
        .map(ToOwned::to_owned)
        .collect()
}

struct Registered(PluginInfo);

#[tonic::async_trait]
impl Registration for Registered {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn notify_registration_status(
        &self,
        _: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        Ok(Response::new(RegistrationStatusResponse::default()))
    }
}

struct Service {
    inner: Arc<Mutex<Inner>>,
    volumes: PathBuf,
    snapshots: PathBuf,
}

impl Service {
    fn called(&self, call: &'static str) -> Result<(), Status> {
        let mut inner = self.inner.lock().unwrap();
        inner.calls.push(call);
        match inner.errors.get_mut(call).and_then(VecDeque::pop_front) {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    fn used(&self, capability: Option<VolumeCapability>, secrets: BTreeMap<String, String>) {
        let mut inner = self.inner.lock().unwrap();
        inner.uses.extend(capability);
        inner.secrets.push(secrets);
    }

    fn fault(&self) -> Fault {
        self.inner.lock().unwrap().fault
    }
}

fn io<E: std::fmt::Display>(error: E) -> Status {
    Status::internal(error.to_string())
}

/// Idempotent, as CSI wants it.
fn gone(path: &str) -> Result<(), Status> {
    if mounts(Path::new(path)).is_empty() {
        return Ok(());
    }
    unmount(path, UnmountFlags::empty()).map_err(io)
}

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

fn here(node: &str) -> Topology {
    Topology {
        segments: [("node".to_owned(), node.to_owned())].into(),
    }
}

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let services = [
            service::Type::ControllerService,
            service::Type::VolumeAccessibilityConstraints,
        ];
        let capability = |kind: service::Type| PluginCapability {
            r#type: Some(plugin_capability::Type::Service(
                plugin_capability::Service {
                    r#type: kind.into(),
                },
            )),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: services.map(capability).into(),
        }))
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
        let capability = |kind: controller_rpc::Type| ControllerServiceCapability {
            r#type: Some(controller_capability::Type::Rpc(
                controller_capability::Rpc {
                    r#type: kind.into(),
                },
            )),
        };
        let mut able = vec![
            controller_rpc::Type::CreateDeleteVolume,
            controller_rpc::Type::CreateDeleteSnapshot,
            controller_rpc::Type::GetCapacity,
        ];
        if self.fault() != Fault::Old {
            able.push(controller_rpc::Type::SingleNodeMultiWriter);
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

#[tonic::async_trait]
impl Node for Service {
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: node_rpc::Type| NodeServiceCapability {
            r#type: Some(node_capability::Type::Rpc(node_capability::Rpc {
                r#type: kind.into(),
            })),
        };
        let mut able = vec![node_rpc::Type::StageUnstageVolume];
        if self.fault() != Fault::Old {
            able.push(node_rpc::Type::SingleNodeMultiWriter);
        }
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: able.into_iter().map(capability).collect(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: "node".into(),
            max_volumes_per_node: 0,
            accessible_topology: Some(here("node")),
        }))
    }

    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        self.called("NodeStageVolume")?;
        let request = request.into_inner();
        assert_eq!(request.volume_context["key"], "value");
        self.used(request.volume_capability, request.secrets);
        mount_bind(
            self.volumes.join(request.volume_id),
            &request.staging_target_path,
        )
        .map_err(io)?;
        Ok(Response::new(NodeStageVolumeResponse::default()))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        self.called("NodePublishVolume")?;
        let request = request.into_inner();
        self.used(request.volume_capability, request.secrets);
        std::fs::create_dir(&request.target_path).map_err(io)?;
        if self.fault() != Fault::Lies {
            mount_bind(&request.staging_target_path, &request.target_path).map_err(io)?;
        }
        Ok(Response::new(NodePublishVolumeResponse::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        self.called("NodeUnpublishVolume")?;
        let target = request.into_inner().target_path;
        gone(&target)?;
        // It may not be there, and it may hold what a liar let somebody write.
        let _ = std::fs::remove_dir(target);
        Ok(Response::new(NodeUnpublishVolumeResponse::default()))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        self.called("NodeUnstageVolume")?;
        gone(&request.into_inner().staging_target_path)?;
        Ok(Response::new(NodeUnstageVolumeResponse::default()))
    }
}

/// How long a driver is waited for in tests.
pub const PATIENCE: populator::agent::plugin::Patience = populator::agent::plugin::Patience {
    total: Duration::from_secs(2),
    busy: Duration::from_millis(500),
    pause: Duration::from_millis(10),
    pause_max: Duration::from_millis(100),
};
