//! The controller: one leader that sees PVCs, pins archives, writes orders for the agents and makes
//! PersistentVolumes of what they have filled.
//!
//! | module | what it holds |
//! |---|---|
//! | [`arguments`] | the flags |
//! | [`leadership`] | leader election |
//! | [`watches`] | what the API server shows, and whom a change concerns |
//! | [`queue`] | whom to look at next |
//! | [`reconciler`] | observe, decide, tell, execute, for one PVC |
//! | [`decision`] | what to do next: a pure function |
//! | [`claim`], [`class`], [`agents`] | PVC, StorageClass and agents as far as restores are concerned |
//! | [`refusal`], [`ending`] | why a restore cannot begin, or is over, in words |
//! | [`grants`] | whether a VolumeBackup of another namespace may be read |
//! | [`resolution`] | from a VolumeBackup to one exact object |
//! | [`steering`] | the node of PVCs that are made from a snapshot or from another PVC |
//! | [`order`], [`content`], [`publish`] | building orders, with what their volumes will hold, and PersistentVolumes |
//! | [`report`], [`milestone`], [`status`], [`cached`], [`conditions`], [`events`] | what people see |
//! | [`memory`], [`metrics`], [`context`], [`api`] | what all of them share |
//! | [`prime`], [`node_secrets`], [`leftover`] | the prime way: what is made and read for it; what drivers want on the node; what nobody wants any more |
//! | [`registration`] | the VolumePopulator object |

pub mod agents;
pub mod api;
pub mod arguments;
pub mod cached;
pub mod claim;
pub mod class;
pub mod conditions;
pub mod content;
pub mod context;
pub mod decision;
pub mod ending;
pub mod events;
pub mod grants;
pub mod leadership;
pub mod leftover;
pub mod memory;
pub mod metrics;
pub mod milestone;
pub mod node;
pub mod node_secrets;
pub mod order;
pub mod prime;
pub mod publish;
pub mod queue;
pub mod reconciler;
pub mod refusal;
pub mod registration;
pub mod report;
pub mod resolution;
pub mod status;
pub mod steering;
pub mod watches;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use arguments::Arguments;

use crate::telemetry::Telemetry;
use context::{Context, Key};
use leadership::Leadership;
use memory::Memory;
use metrics::Metrics;
use queue::Queue;
use resolution::Listings;

/// For how long work that is under way may go on when the process is to stop.
const STOP: Duration = Duration::from_secs(10);

/// Why the controller ended.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another replica leads now, or nobody could be asked.
    #[error("leadership was lost; this process ends so that only one replica acts")]
    LeadershipLost,
    /// A watch ended.
    #[error("a watch ended that never should; this process ends to begin afresh")]
    WatchEnded,
}

/// Why the controller did not start.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// A flag makes no sense.
    #[error(transparent)]
    Arguments(#[from] arguments::ArgumentsError),
    /// It is not known where the API server is, or with what credentials to speak to it.
    #[error("no API server is known: {0}; run in a pod with a ServiceAccount, or set KUBECONFIG")]
    Cluster(#[from] kube::config::InferConfigError),
    /// The credentials for the API server cannot be used.
    #[error("the API server cannot be spoken to: {0}; check KUBECONFIG")]
    Client(#[from] kube::Error),
}

/// Waits to lead, and leads until `stop`.
pub async fn run(
    arguments: Arguments,
    telemetry: &Telemetry,
    stop: CancellationToken,
) -> Result<(), Error> {
    arguments.check().map_err(StartError::from)?;
    let config = kube::Config::infer().await.map_err(StartError::from)?;
    let client = Client::try_from(config).map_err(StartError::from)?;
    let metrics = Metrics::new(telemetry);
    let queue = Arc::new(Queue::default());
    metrics::show_depth(telemetry, &queue);
    let identity = arguments.identity();
    tracing::info!(identity, namespace = arguments.namespace, "waiting to lead");
    let mut leadership = Leadership::new(client.clone(), &arguments.namespace, identity);
    if !leadership.acquire(&stop).await {
        return Ok(());
    }
    tracing::info!("leading");
    metrics.leading.set(1);
    let led = tokio::select! {
        led = lead(&arguments, client, queue, metrics, &stop) => led,
        () = leadership.hold() => Err(Error::LeadershipLost),
    };
    if led.is_ok() {
        leadership.release().await;
    }
    led
}

/// Works until `stop`.
async fn lead(
    arguments: &Arguments,
    client: Client,
    queue: Arc<Queue<Key>>,
    metrics: Metrics,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let memory = Arc::new(Memory::default());
    let mut watches = JoinSet::new();
    let watched = watches::Watched {
        namespace: &arguments.namespace,
        grants: arguments.cross_namespace,
    };
    let stores = watches::start(&client, &watched, &queue, &memory, &mut watches);
    let ready = tokio::select! {
        ready = stores.ready() => ready,
        () = stop.cancelled() => return Ok(()),
    };
    ready.map_err(|_| Error::WatchEnded)?;
    tracing::info!("all watches have begun");
    let mut registration = JoinSet::new();
    registration.spawn(registration::register(client.clone()));
    let context = Arc::new(Context {
        client,
        namespace: arguments.namespace.clone(),
        drivers: arguments.drivers().into(),
        listings: Listings::default(),
        cross_namespace: arguments.cross_namespace,
        cordoned: node::Cordoned::default(),
        reach: arguments.reach(),
        url_lifetime: arguments.url_lifetime,
        stores,
        queue,
        memory,
        metrics,
    });
    let mut work = JoinSet::new();
    let ended = tokio::select! {
        never = take_work(&context, arguments.concurrency, &mut work) => match never {},
        _ = watches.join_next() => Err(Error::WatchEnded),
        () = stop.cancelled() => Ok(()),
    };
    let rest = async { while work.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP, rest).await.is_err() {
        tracing::warn!("work under way was cut off; it is taken up again after the next start");
    }
    ended
}

/// Works on what the queue gives, on so many at a time.
async fn take_work(
    context: &Arc<Context>,
    concurrency: u16,
    work: &mut JoinSet<()>,
) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(concurrency.into()));
    loop {
        while work.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            continue;
        };
        let key = context.queue.next().await;
        let context = Arc::clone(context);
        work.spawn(async move {
            let _done = Done {
                context: &context,
                key: &key,
            };
            match &key {
                Key::Claim(claim) => reconciler::reconcile(&context, claim).await,
                Key::Steering(claim) => steering::reconcile(&context, claim).await,
                Key::Backup { namespace, name } => {
                    status::look_at_backup(&context, namespace, name).await;
                }
                Key::Cached { namespace, name } => cached::tell(&context, namespace, name).await,
                Key::Leftover { volume } => leftover::reclaim(&context, volume).await,
                Key::Store { namespace, name } => {
                    status::look_at_store(&context, namespace, name).await;
                }
            }
            drop(place);
        });
    }
}

/// Gives a key back to the queue, even after a panic: or nobody would ever work on it again.
struct Done<'a> {
    context: &'a Context,
    key: &'a Key,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.context.queue.done(self.key);
        if std::thread::panicking() {
            self.context.queue.add_after(self.key.clone(), STOP);
        }
    }
}
