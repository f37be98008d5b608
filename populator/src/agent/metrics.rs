//! What the agent counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::telemetry::Telemetry;

/// Seconds that calls to a driver may take, from a stat to making a large file system; and the end of a
/// restore, from nothing to write out to as much as memory holds.
const BUCKETS: [f64; 9] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 120.0];

/// One kind of call to one driver, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// The driver's name.
    pub driver: String,
    /// The call's name.
    pub call: &'static str,
    /// The gRPC code of its answer, as `tonic` spells it.
    pub code: String,
}

/// The agent's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Volumes being filled now.
    pub running: Gauge,
    /// Bytes received from object stores.
    pub fetched: Counter,
    /// Bytes written into volumes.
    pub written: Counter,
    /// How long calls to CSI drivers took.
    pub calls: Family<Call, Histogram>,
    /// How long restores took at their end to make everything durable, in seconds.
    pub syncing: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            running: Gauge::default(),
            fetched: Counter::default(),
            written: Counter::default(),
            calls: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            syncing: Histogram::new(BUCKETS),
        }
    }
}

impl Metrics {
    /// New metrics, shown by `telemetry`.
    pub fn registered(telemetry: &Telemetry) -> Self {
        let metrics = Self::default();
        telemetry.register(|registry| {
            registry.register(
                "agent_restores_running",
                "Volumes being filled now",
                metrics.running.clone(),
            );
            registry.register(
                "bytes_fetched",
                "Bytes received from object stores",
                metrics.fetched.clone(),
            );
            registry.register(
                "bytes_written",
                "Bytes written into volumes",
                metrics.written.clone(),
            );
            registry.register(
                "csi_call_seconds",
                "How long calls to CSI drivers took, each try by itself",
                metrics.calls.clone(),
            );
            registry.register(
                "sync_seconds",
                "How long restores took at their end to make everything durable",
                metrics.syncing.clone(),
            );
        });
        metrics
    }
}
