//! Everything started in order, and ended in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use csi::socket::{ListenError, listen};
use csi::v1::controller_server::ControllerServer;
use csi::v1::group_controller_server::GroupControllerServer;
use csi::v1::identity_server::IdentityServer;
use csi::v1::node_server::NodeServer;
use csi::v1::snapshot_metadata_server::SnapshotMetadataServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::health::Health;
use crate::http;
use crate::metrics::Metrics;
use crate::monitor::{self, Events};
use crate::pool::{OpenError, Pool, PoolSettings};
use crate::registration::{Registrar, RegistrationError};
use crate::rpc::{Half, Services};

/// How long calls that are under way may take after the end was asked for.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long the answers to the last calls may take on their way.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// All that the driver has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The driver's name.
    pub name: String,
    /// The pool, and the node.
    pub pool: PoolSettings,
    /// Whether volumes grow by ControllerExpandVolume as well as by NodeExpandVolume.
    pub controller_expansion: bool,
    /// The driver's own socket.
    pub endpoint: PathBuf,
    /// Another one for the controller's half of CSI.
    pub controller_endpoint: Option<PathBuf>,
    /// How kubelet learns of it; `None` leaves that to node-driver-registrar.
    pub registration: Option<RegistrationSettings>,
    /// Where `/healthz` and `/metrics` are served, if they are.
    pub http: Option<SocketAddr>,
    /// How often pool and volumes are looked at.
    pub monitor_interval: Duration,
    /// Whether what is wrong is told as Events of the Node.
    pub events: bool,
}

/// How kubelet learns of the driver.
#[derive(Debug, Clone)]
pub struct RegistrationSettings {
    /// Kubelet's directory of plugins.
    pub directory: PathBuf,
    /// The driver's own socket as kubelet sees it.
    pub endpoint: PathBuf,
}

/// Why the driver ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The pool does not open.
    #[error(transparent)]
    Pool(#[from] OpenError),
    /// No socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The CSI server failed.
    #[error("cannot serve CSI: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The HTTP server failed.
    #[error("cannot serve HTTP at {address}: {source}")]
    Http {
        /// Its address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Kubelet cannot be told.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// Events cannot be written.
    #[error("cannot reach Kubernetes, of which --events needs the Pod's service account: {0}")]
    Events(Box<kube::Error>),
    /// It could not be asked to end.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// A part of the driver ended by a bug.
    #[error("a part of the driver ended by a bug: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl ServerError {
    /// Whether other settings are what it takes.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Pool(error) => error.is_configuration(),
            Self::Listen(_) | Self::Events(_) => true,
            Self::Serve(_)
            | Self::Http { .. }
            | Self::Registration(_)
            | Self::Signals(_)
            | Self::Task(_) => false,
        }
    }
}

/// Runs the driver until `end`, or until one of its parts fails. Volumes stay as they are.
pub async fn run(settings: Settings, end: CancellationToken) -> Result<(), ServerError> {
    let pool_settings = settings.pool.clone();
    let pool = tokio::task::spawn_blocking(move || Pool::open(&pool_settings)).await??;
    let services = Services {
        name: settings.name.clone(),
        pool: Arc::new(pool),
        half: None,
        controller_expansion: settings.controller_expansion,
        health: Arc::new(Health::default()),
        metrics: Arc::new(Metrics::default()),
        calls: TaskTracker::new(),
    };
    let mut parts = JoinSet::new();
    let (own, other) = (&settings.endpoint, &settings.controller_endpoint);
    let sockets = match other {
        None => vec![(own, None)],
        Some(other) => vec![(own, Some(Half::Node)), (other, Some(Half::Controller))],
    };
    for (socket, half) in sockets {
        let services = Services {
            half,
            ..services.clone()
        };
        parts.spawn(serve_csi(socket.clone(), services, end.clone()));
    }
    let events = if settings.events {
        let connected = Events::connect(&settings.name, settings.pool.node).await;
        Some(connected.map_err(|error| ServerError::Events(Box::new(error)))?)
    } else {
        None
    };
    let (watched, watch_end) = (services.clone(), end.clone());
    parts.spawn(async move {
        monitor::run(watched, settings.monitor_interval, events, watch_end).await;
        Ok(())
    });
    if let Some(address) = settings.http {
        parts.spawn(serve_http(address, services.clone(), end.clone()));
    }
    if let Some(registration) = settings.registration {
        let registrar = Registrar {
            name: settings.name,
            endpoint: registration.endpoint,
            directory: registration.directory,
            health: Arc::clone(&services.health),
        };
        let end = end.clone();
        parts.spawn(async move { Ok(registrar.serve(end).await?) });
    }
    let all = join(&mut parts, &end);
    // Clients keep idle connections open, and need not notice that we would like to close them.
    // So it is the calls that are waited for.
    let farewell = async {
        end.cancelled().await;
        services.calls.close();
        if tokio::time::timeout(FAREWELL, services.calls.wait())
            .await
            .is_err()
        {
            tracing::warn!("calls are still under way after {FAREWELL:?}; ending all the same");
        }
        tokio::time::sleep(LAST_WORDS).await;
    };
    let result = tokio::select! {
        result = all => result,
        () = farewell => Ok(()),
    };
    for socket in [Some(own), other.as_ref()].into_iter().flatten() {
        if let Err(error) = std::fs::remove_file(socket) {
            tracing::debug!("{} stays: {error}", socket.display());
        }
    }
    result
}

/// Waits for all parts; when one fails, the others are ended too.
async fn join(
    parts: &mut JoinSet<Result<(), ServerError>>,
    end: &CancellationToken,
) -> Result<(), ServerError> {
    let mut result = Ok(());
    while let Some(part) = parts.join_next().await {
        if let Err(error) = part.map_err(ServerError::from).and_then(|part| part) {
            end.cancel();
            result = result.and(Err(error));
        }
    }
    result
}

async fn serve_csi(
    endpoint: PathBuf,
    services: Services,
    end: CancellationToken,
) -> Result<(), ServerError> {
    let incoming = listen(&endpoint)?;
    tracing::info!(
        endpoint = %endpoint.display(), driver = services.name, half = ?services.half, "serving CSI"
    );
    let mut router = Server::builder().add_service(IdentityServer::new(services.clone()));
    if services.half != Some(Half::Node) {
        router = router
            .add_service(ControllerServer::new(services.clone()))
            .add_service(GroupControllerServer::new(services.clone()))
            .add_service(SnapshotMetadataServer::new(services.clone()));
    }
    if services.half != Some(Half::Controller) {
        router = router.add_service(NodeServer::new(services));
    }
    router
        .serve_with_incoming_shutdown(incoming, end.cancelled_owned())
        .await?;
    Ok(())
}

async fn serve_http(
    address: SocketAddr,
    services: Services,
    end: CancellationToken,
) -> Result<(), ServerError> {
    let failed = |source| ServerError::Http { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(%address, "serving /healthz and /metrics");
    axum::serve(listener, http::router(services))
        .with_graceful_shutdown(end.cancelled_owned())
        .await
        .map_err(failed)
}
