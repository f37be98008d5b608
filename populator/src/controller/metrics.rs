//! The controller's figures.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crds::volume_restore::Phase;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::telemetry::Telemetry;

/// The controller's figures.
#[derive(Debug)]
pub struct Metrics {
    restores: Family<PhaseLabel, Gauge>,
    failures: Family<ReasonLabel, Counter>,
    restored_bytes: Counter,
    /// PVCs for which the node of their source was chosen, each time.
    pub steered: Counter,
    seconds: Histogram,
    /// The phase of each restore, by PVC UID, behind the gauge.
    phases: Mutex<HashMap<String, Phase>>,
    /// 1 in the replica that leads.
    pub leading: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

impl Metrics {
    /// Registers the figures.
    pub fn new(telemetry: &Telemetry) -> Self {
        let metrics = Self {
            restores: Family::default(),
            failures: Family::default(),
            restored_bytes: Counter::default(),
            steered: Counter::default(),
            // 1 s to about 9 h.
            seconds: Histogram::new(exponential_buckets(1.0, 2.0, 16)),
            phases: Mutex::default(),
            leading: Gauge::default(),
        };
        telemetry.register(|registry| {
            registry.register("restores", "Restores by phase", metrics.restores.clone());
            registry.register(
                "restore_failures",
                "Distinct failures of restores that were told to people, by reason",
                metrics.failures.clone(),
            );
            registry.register(
                "restored_bytes",
                "Bytes written into volumes by restores that are complete",
                metrics.restored_bytes.clone(),
            );
            registry.register(
                "claims_steered",
                "Choices of the node where the source of a PVC (a snapshot, another PVC) lies",
                metrics.steered.clone(),
            );
            registry.register(
                "restore_seconds",
                "Seconds from the first byte fetched to the last byte durable",
                metrics.seconds.clone(),
            );
            registry.register(
                "leading",
                "Whether this replica of the controller leads",
                metrics.leading.clone(),
            );
        });
        metrics
    }

    /// A restore is in this phase now.
    pub fn phase(&self, uid: &str, phase: Phase) {
        self.change(uid, Some(phase));
    }

    /// A restore is no more.
    pub fn gone(&self, uid: &str) {
        self.change(uid, None);
    }

    /// A failure was told.
    pub fn failed(&self, reason: &str) {
        let label = ReasonLabel {
            reason: reason.to_owned(),
        };
        self.failures.get_or_create(&label).inc();
    }

    /// A restore was completed.
    pub fn completed(&self, bytes: i64, seconds: i64) {
        self.restored_bytes
            .inc_by(u64::try_from(bytes).unwrap_or(0));
        let seconds = u32::try_from(seconds).unwrap_or(0);
        self.seconds.observe(f64::from(seconds));
    }

    fn change(&self, uid: &str, phase: Option<Phase>) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match phase {
            Some(phase) => phases.insert(uid.to_owned(), phase),
            None => phases.remove(uid),
        };
        if before == phase {
            return;
        }
        for (phase, by) in [(before, -1), (phase, 1)] {
            if let Some(phase) = phase {
                let label = PhaseLabel { phase: name(phase) };
                self.restores.get_or_create(&label).inc_by(by);
            }
        }
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Provisioning => "Provisioning",
        Phase::Restoring => "Restoring",
        Phase::Publishing => "Publishing",
        Phase::Completed => "Completed",
        Phase::Failed => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_counts_in_one_phase() {
        let metrics = Metrics::new(&Telemetry::default());
        let count = |phase| metrics.restores.get_or_create(&PhaseLabel { phase }).get();
        metrics.phase("a", Phase::Pending);
        metrics.phase("a", Phase::Pending);
        metrics.phase("b", Phase::Pending);
        metrics.phase("a", Phase::Restoring);
        assert_eq!((count("Pending"), count("Restoring")), (1, 1));
        metrics.gone("a");
        metrics.gone("a");
        assert_eq!((count("Pending"), count("Restoring")), (1, 0));
    }
}
