//! A CSI driver with a tmpfs for each volume, really mounted, which fails as it is told.

mod controller;
mod node;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi::registration::registration_server::{Registration, RegistrationServer};
use csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use csi::v1::controller_server::ControllerServer;
use csi::v1::identity_server::{Identity, IdentityServer};
use csi::v1::node_server::NodeServer;
use csi::v1::plugin_capability::{self, service};
#[allow(clippy::wildcard_imports)]
use csi::v1::*;
use rustix::mount::{UnmountFlags, unmount};
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

/// How long a driver is waited for in tests.
pub const PATIENCE: populator::agent::plugin::Patience = populator::agent::plugin::Patience {
    total: Duration::from_secs(2),
    busy: Duration::from_millis(500),
    pause: Duration::from_millis(10),
    pause_max: Duration::from_millis(100),
};
