//! The agent: makes, fills and deletes the volumes of one node, as its orders say.
//!
//! It holds no credentials of a store, and may read no Secret. To a CSI driver it is what kubelet and external-provisioner are: a
//! client on the driver's socket.
//!
//! | module | what it holds |
//! |---|---|
//! | [`arguments`] | the flags |
//! | [`orders`], [`worker`] | the watch on this node's orders; one worker for each |
//! | [`decision`] | what to do next for an order: a pure function |
//! | [`attempt`], [`writing`], [`teardown`] | the way to a filled volume; the archive into it; the way back |
//! | [`registry`], [`plugin`] | finding CSI drivers; calling them |
//! | [`volume`], [`mount`] | what CSI is told and may answer; the proof that a volume is mounted |
//! | [`source`] | reading an archive through a signed URL, or a file |
//! | [`progress`], [`failure`], [`report`] | what the order's status says, and how it gets there |
//! | [`snapshots`], [`copying`] | what is kept of volumes that were filled; making others from it |
//! | [`record`], [`turns`], [`lock`] | what a node remembers; one order a volume; one agent a node |
//! | [`lease`], [`capacity`] | that the agent lives and may write; what its drivers have room for |
//! | [`sealing`] | the key for what is sealed for this agent alone |
//! | [`node`], [`metrics`] | what all orders share; what is counted |

use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::{Addresses, FileRoot};
use crate::telemetry::Telemetry;

pub mod arguments;
pub mod attempt;
pub mod capacity;
mod copying;
pub mod decision;
mod emptying;
pub mod failure;
pub mod interruptions;
pub mod lease;
pub mod lock;
pub mod metrics;
pub mod mount;
pub mod node;
pub mod orders;
mod places;
pub mod plugin;
pub mod progress;
pub mod record;
pub mod registry;
pub mod report;
mod sealing;
pub mod snapshots;
pub mod source;
pub mod teardown;
pub mod turns;
pub mod volume;
pub mod worker;
pub mod writing;

pub use arguments::Arguments;

use metrics::Metrics;
use node::Node;
use orders::Orders;
use record::Records;
use registry::Drivers;
use snapshots::Snapshots;
use source::{Clients, Limits};

/// How long a call to a driver may take; kubelet waits as long.
const CALL: Duration = Duration::from_secs(120);

/// How long unmounting may take when the process is to end: less than the 30 seconds after which
/// Kubernetes kills it.
const GRACE: Duration = Duration::from_secs(20);

/// Why the agent did not start.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// No node was named.
    #[error("--node-name must name this node; in a pod, set NODE_NAME from spec.nodeName")]
    NodeName,
    /// The work directory cannot be used.
    #[error("--work-dir cannot be used: {0}")]
    Records(#[from] record::RecordError),
    /// The lock in it cannot be taken.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// The API server is not known.
    #[error("no way to the Kubernetes API server: {0}; run it in a pod or set KUBECONFIG")]
    Cluster(#[from] kube::Error),
    /// Archives could not be read.
    #[error("no HTTPS client can be made: {0}")]
    Http(#[from] reqwest::Error),
}

/// Runs until `stop`.
pub async fn run(
    arguments: Arguments,
    telemetry: &Telemetry,
    stop: CancellationToken,
) -> Result<(), StartError> {
    if arguments.node_name.is_empty() {
        return Err(StartError::NodeName);
    }
    let addresses = Addresses::from(&arguments.stores);
    let clients = Clients::new(Limits::default(), addresses, arguments.bandwidth)?;
    let client = Client::try_default().await?;
    let records = Records::open(&arguments.work_dir())?;
    let Some(_lock) = lock::take(&arguments.work_dir(), &stop).await? else {
        return Ok(());
    };
    let remembered = records.load()?;
    let snapshots = Snapshots::open(&arguments.work_dir())?;
    let registry = arguments.kubelet_dir.join("plugins_registry");
    let mut node = Node::new(
        records,
        snapshots,
        Arc::new(Drivers::new(arguments.sockets(), registry, CALL)),
        clients,
        arguments.concurrency,
        Metrics::registered(telemetry),
    );
    node.resumption = arguments.resumption();
    node.pod = arguments.pod();
    node.key = sealing::key(&arguments.work_dir())?;
    node.files = arguments.file_root.clone().map(FileRoot::from);
    let node = Arc::new(node);

    let namespace = &arguments.namespace;
    let (room, drivers) = watch::channel(crate::lease::Drivers::new());
    let (fenced, fence) = watch::channel(true);
    // The Lease outlives the orders: they are still being unmounted when the end has been asked for.
    let over = CancellationToken::new();
    let keeper = lease::Keeper {
        leases: Api::namespaced(client.clone(), namespace),
        node: arguments.node_name.clone(),
        identity: arguments.identity(),
        drivers,
        snapshots: node.snapshots.told(),
        sealing_key: node.key.public(),
        fenced,
    };
    let kept = tokio::spawn(keeper.keep(over.clone()));
    let measured = tokio::spawn(capacity::watch(Arc::clone(&node), room, over.clone()));
    let maintained = tokio::spawn(snapshots::maintain(Arc::clone(&node), over.clone()));
    tracing::info!(node = arguments.node_name, "taking orders");

    let orders = Api::namespaced(client, namespace);
    let orders = Orders::new(node, orders, fence, stop, remembered);
    let workers = orders.dispatch(&arguments.node_name).await;
    if tokio::time::timeout(GRACE, workers.wait()).await.is_err() {
        tracing::warn!("volumes are still mounted; the next agent on this node unmounts them");
    }
    over.cancel();
    for task in [kept, measured, maintained] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a part of the agent died");
        }
    }
    Ok(())
}
