//! Where the sockets of a node's CSI drivers are: as the administrator says, or as the drivers tell
//! kubelet.
//!
//! A driver serves `pluginregistration.v1` on a socket in kubelet's `plugins_registry`; its GetInfo
//! answers the driver's name and the path of its CSI socket, as kubelet sees it.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use csi::registration::InfoRequest;
use csi::registration::registration_client::RegistrationClient;
use futures::future::join_all;
use tonic::transport::Channel;

/// What registering CSI drivers answer as their type.
const CSI: &str = "CSIPlugin";

/// For how long a registration may take to answer: it has nothing to do for it.
const ANSWER: Duration = Duration::from_secs(2);

/// Why a driver cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Nobody by that name answered.
    #[error(
        "the CSI driver {name} is not registered on this node (looked in {})",
        .registry.display()
    )]
    NotRegistered {
        /// The driver.
        name: String,
        /// Where registrations lie.
        registry: PathBuf,
    },
    /// Its socket cannot be called, ever.
    #[error("the CSI driver {name}: {source}")]
    Socket {
        /// The driver.
        name: String,
        /// What is wrong with the path.
        #[source]
        source: csi::socket::ConnectError,
    },
}

/// The CSI drivers of this node.
#[derive(Debug)]
pub struct Drivers {
    given: BTreeMap<String, PathBuf>,
    registry: PathBuf,
    call: Duration,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Drivers {
    /// The drivers at the sockets `given`, and those that register in `registry`. No call to any of
    /// them takes longer than `call`.
    pub fn new(given: BTreeMap<String, PathBuf>, registry: PathBuf, call: Duration) -> Self {
        Self {
            given,
            registry,
            call,
            channels: Mutex::default(),
        }
    }

    /// A channel to the driver of this name.
    pub async fn channel(&self, name: &str) -> Result<Channel, DriverError> {
        if let Some(channel) = self.channels().get(name) {
            return Ok(channel.clone());
        }
        let socket = match self.given.get(name) {
            Some(socket) => Some(socket.clone()),
            None => self.registered().await.remove(name),
        };
        let socket = socket.ok_or_else(|| DriverError::NotRegistered {
            name: name.to_owned(),
            registry: self.registry.clone(),
        })?;
        let channel =
            csi::socket::connect(&socket, self.call).map_err(|source| DriverError::Socket {
                name: name.to_owned(),
                source,
            })?;
        self.channels().insert(name.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Looks the driver up again next time: a call failed, and it may have moved.
    pub fn forget(&self, name: &str) {
        self.channels().remove(name);
    }

    /// The names of all drivers that can be found now.
    pub async fn names(&self) -> Vec<String> {
        let mut all = self.registered().await;
        all.extend(self.given.clone());
        all.into_keys().collect()
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and sockets of the drivers that are registered with kubelet.
    async fn registered(&self) -> BTreeMap<String, PathBuf> {
        let Ok(entries) = std::fs::read_dir(&self.registry) else {
            return BTreeMap::new();
        };
        let sockets = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
            .map(|entry| entry.path());
        join_all(sockets.map(|socket| async move { ask(&socket).await }))
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

/// What one registration answers; a stale socket answers nothing.
async fn ask(socket: &Path) -> Option<(String, PathBuf)> {
    let channel = csi::socket::connect(socket, ANSWER).ok()?;
    let info = match RegistrationClient::new(channel)
        .get_info(InfoRequest {})
        .await
    {
        Ok(response) => response.into_inner(),
        Err(status) => {
            tracing::debug!(socket = %socket.display(), %status, "a registration does not answer");
            return None;
        }
    };
    let path = info
        .endpoint
        .strip_prefix("unix://")
        .unwrap_or(&info.endpoint);
    (info.r#type == CSI && path.starts_with('/')).then(|| (info.name, PathBuf::from(path)))
}
