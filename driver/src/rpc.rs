//! CSI's services: requests become operations of the driver, and errors become gRPC's codes.

mod attachments;
mod controller;
mod group_controller;
mod health;
mod identity;
mod node;
mod request;
mod snapshot_metadata;
mod snapshots;
mod volumes;

use std::sync::Arc;
use std::time::Instant;

use csi::v1::Topology;
use tokio_util::task::TaskTracker;
use tonic::{Code, Response, Status};
use tracing::Instrument as _;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::operations::Coded;
use crate::pool::Pool;

/// All services; what each needs to answer.
#[derive(Debug, Clone)]
pub struct Services {
    /// The driver's name.
    pub name: String,
    /// The volumes.
    pub pool: Arc<Pool>,
    /// The half of CSI that is served at this socket, if it is not all of it.
    pub half: Option<Half>,
    /// Whether volumes grow by ControllerExpandVolume as well.
    pub controller_expansion: bool,
    /// Whether the driver can work.
    pub health: Arc<Health>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// The calls that are under way.
    pub calls: TaskTracker,
}

/// One of the two parts that CSI lets be served apart (CSI 1.13, "Architecture").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// What external-provisioner and the like call.
    Controller,
    /// What kubelet calls.
    Node,
}

impl Services {
    /// The key of the one topology segment, whose value is the node's name.
    fn topology_key(&self) -> String {
        format!("topology.{}/node", self.name)
    }

    /// Where this driver's volumes can be used: on its node.
    fn topology(&self) -> Topology {
        let segment = (self.topology_key(), self.pool.node.as_str().to_owned());
        Topology {
            segments: [segment].into(),
        }
    }

    /// The node that a topology names, if it does.
    fn node_in(&self, topology: &Topology) -> Option<String> {
        topology.segments.get(&self.topology_key()).cloned()
    }

    /// Runs a call in a span with its volume, and counts and logs its end.
    async fn answer<T>(
        &self,
        method: &'static str,
        volume: &str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let span = tracing::info_span!("rpc", method, volume.id = volume);
        let begun = Instant::now();
        let _under_way = self.calls.token();
        let result = call.instrument(span.clone()).await;
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.observe(method, code, begun.elapsed());
        span.in_scope(|| match &result {
            Ok(_) => tracing::debug!(elapsed = ?begun.elapsed(), "done"),
            Err(status) => tracing::warn!(?code, "{}", status.message()),
        });
        result.map(Response::new)
    }

    /// Runs an operation where it may block. It runs to its end even if the caller goes away.
    async fn run<T, E>(
        &self,
        operation: impl FnOnce(&Pool) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        E: Coded + Send + 'static,
    {
        let pool = Arc::clone(&self.pool);
        let span = tracing::Span::current();
        let task = move || span.in_scope(|| operation(&pool));
        match tokio::task::spawn_blocking(task).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Status::new(error.code(), error.to_string())),
            Err(panic) => Err(Status::internal(format!(
                "the operation ended by a bug: {panic}"
            ))),
        }
    }
}

/// For CSI's signed fields. Sizes never come near the difference.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
