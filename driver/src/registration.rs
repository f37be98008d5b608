//! How kubelet learns of the driver: a socket in its directory of plugins, on which it asks.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use csi::registration::registration_server::{Registration, RegistrationServer};
use csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use csi::socket::{ListenError, listen};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

use crate::health::Health;

/// How often the socket is looked for. Somebody may empty the directory while we serve.
const INTERVAL: Duration = Duration::from_secs(2);

/// What kubelet is told, and where.
#[derive(Debug, Clone)]
pub struct Registrar {
    /// The driver's name.
    pub name: String,
    /// The driver's own socket as kubelet sees it.
    pub endpoint: PathBuf,
    /// Kubelet's directory of plugins, as seen from here.
    pub directory: PathBuf,
    /// Where kubelet's answer is kept.
    pub health: Arc<Health>,
}

/// Why the driver cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// No socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The server failed.
    #[error("cannot answer kubelet: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl Registrar {
    /// The socket that kubelet finds.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!("{}-reg.sock", self.name))
    }

    /// Answers kubelet until `end`, with a new socket whenever the old one was removed. Kubelet
    /// registers a plugin each time its socket appears.
    pub async fn serve(self, end: CancellationToken) -> Result<(), RegistrationError> {
        let socket = self.socket();
        while !end.is_cancelled() {
            let incoming = listen(&socket)?;
            let original = identity(&socket);
            let gone = removed(&socket, original);
            let stop = async {
                tokio::select! {
                    () = gone => tracing::warn!("{} was removed; making it again", socket.display()),
                    () = end.cancelled() => {}
                }
            };
            Server::builder()
                .add_service(RegistrationServer::new(self.clone()))
                .serve_with_incoming_shutdown(incoming, stop)
                .await?;
        }
        if let Err(error) = std::fs::remove_file(&socket) {
            tracing::debug!("{} stays: {error}", socket.display());
        }
        Ok(())
    }
}

/// Which file is at the path. Inodes are used again, so their number alone does not tell.
fn identity(socket: &Path) -> Option<(u64, i64, i64)> {
    let metadata = socket.symlink_metadata().ok()?;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// Returns when another socket, or none, is at the path.
async fn removed(socket: &Path, original: Option<(u64, i64, i64)>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        if identity(socket) != original {
            return;
        }
    }
}

#[async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("kubelet has registered the driver");
            self.health.set_refusal(None);
        } else {
            tracing::error!("kubelet refused the driver: {}", status.error);
            self.health.set_refusal(Some(status.error));
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
