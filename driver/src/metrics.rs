//! What can be watched from outside, in OpenMetrics' text format.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use crate::operations::health::Trouble;
use crate::pool::Pool;

/// Bounds of the histogram's buckets, in seconds: from a look at the mount table to a stuck disk.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OneVolume {
    volume: String,
}

/// All metrics, prefixed `fastcopy_`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<Call, Histogram>,
    capacity: Gauge,
    used: Gauge,
    promised: Gauge,
    pinned: Gauge,
    volumes: Gauge,
    longest_freeze: Gauge<f64, AtomicU64>,
    extents: Family<OneVolume, Gauge>,
    troubles: Family<Reason, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let calls: Family<Call, Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let [capacity, used, promised, pinned, volumes] = <[Gauge; 5]>::default();
        let longest_freeze = Gauge::<f64, AtomicU64>::default();
        let mut registry = Registry::with_prefix("fastcopy");
        let unit = || Unit::Seconds;
        registry.register_with_unit(
            "rpc",
            "CSI calls, by method and gRPC code",
            unit(),
            calls.clone(),
        );
        let help = "What the pool's file system has in all";
        registry.register_with_unit("pool_capacity", help, Unit::Bytes, capacity.clone());
        let help = "What is in use in the pool's file system";
        registry.register_with_unit("pool_used", help, Unit::Bytes, used.clone());
        let help = "What is in use by snapshots, or shared, and no volume's alone";
        registry.register_with_unit("pool_pinned", help, Unit::Bytes, pinned.clone());
        let help = "The longest time for which a snapshot or clone had writers wait";
        registry.register_with_unit("longest_freeze", help, unit(), longest_freeze.clone());
        let help = "What is promised to volumes, whether or not they have filled it";
        registry.register_with_unit("pool_promised", help, Unit::Bytes, promised.clone());
        registry.register("volumes", "Volumes in the pool", volumes.clone());
        let extents = Family::<OneVolume, Gauge>::default();
        let help = "In how many pieces a volume lay when it was copied or measured last";
        registry.register("volume_extents", help, extents.clone());
        let troubles = Family::<Reason, Gauge>::default();
        let help = "What is wrong with the pool and its volumes, counted by reason";
        registry.register("troubles", help, troubles.clone());
        Self {
            registry,
            calls,
            capacity,
            used,
            promised,
            pinned,
            volumes,
            longest_freeze,
            extents,
            troubles,
        }
    }
}

impl Metrics {
    /// Counts a call that has ended.
    pub fn observe(&self, method: &'static str, code: Code, elapsed: Duration) {
        let call = Call {
            method,
            code: format!("{code:?}"),
        };
        self.calls
            .get_or_create(&call)
            .observe(elapsed.as_secs_f64());
    }

    /// Takes what is wrong in place of what was.
    pub fn set_troubles(&self, troubles: &[Trouble]) {
        self.troubles.clear();
        for trouble in troubles {
            let reason = trouble.finding.reason;
            self.troubles.get_or_create(&Reason { reason }).inc();
        }
    }

    /// All metrics as text, the pool's figures as of now. A pool that does not tell its capacity
    /// keeps the last figure; that it fails is what `/healthz` says.
    pub fn text(&self, pool: &Pool) -> Result<String, std::fmt::Error> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match pool.space() {
            Ok(space) => {
                self.capacity.set(number(space.total));
                self.used.set(number(space.used));
            }
            Err(error) => tracing::warn!("{error}"),
        }
        let totals = pool.books.totals();
        self.promised.set(number(totals.promised));
        self.pinned.set(number(totals.pinned));
        self.volumes.set(number(totals.volumes as u64));
        self.longest_freeze
            .set(pool.freezes.longest().as_secs_f64());
        self.extents.clear();
        for (id, extents) in pool.fragments.all() {
            let volume = id.to_string();
            let one = self.extents.get_or_create(&OneVolume { volume });
            one.set(number(extents));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
