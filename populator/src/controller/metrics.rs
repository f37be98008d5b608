//! The controller's figures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crds::volume_restore::Phase;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::context::Key;
use super::queue::Queue;
use crate::telemetry::Telemetry;

/// The controller's figures.
#[derive(Debug)]
pub struct Metrics {
    restores: Family<PhaseLabels, Gauge>,
    failures: Family<ReasonLabels, Counter>,
    finished: Family<OutcomeLabels, Counter>,
    restored_bytes: Family<Subject, Counter>,
    /// PVCs for which the node of their source was chosen, each time.
    pub steered: Counter,
    seconds: Family<Subject, Histogram>,
    oldest: Gauge,
    /// What stands behind the gauges, by PVC UID.
    standing: Mutex<HashMap<String, Standing>>,
    /// 1 in the replica that leads.
    pub leading: Gauge,
}

/// Whose restore, from where and onto what.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Subject {
    /// The PVC's namespace.
    pub namespace: String,
    /// The BackupStore, if one was found.
    pub store: String,
    /// The CSI driver, if one was found.
    pub driver: String,
}

/// A restore as the gauges show it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    namespace: String,
    phase: Phase,
    /// Seconds since 1970 at its beginning.
    since: i64,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    namespace: String,
    phase: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    namespace: String,
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    namespace: String,
    store: String,
    driver: String,
    outcome: String,
}

/// Has `telemetry` show how many keys of `queue` wait: counted when somebody asks, since keys come to be
/// due by themselves.
pub fn show_depth(telemetry: &Telemetry, queue: &Arc<Queue<Key>>) {
    let depth = Depth(Arc::clone(queue));
    telemetry.register(|registry| registry.register_collector(Box::new(depth)));
}

#[derive(Debug)]
struct Depth(Arc<Queue<Key>>);

impl Collector for Depth {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let depth = ConstGauge::new(i64::try_from(self.0.depth()).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "queue_depth",
            "PVCs, VolumeBackups and BackupStores that wait to be looked at",
            None,
            depth.metric_type(),
        )?;
        depth.encode(metric)
    }
}

impl Metrics {
    /// Registers the figures.
    pub fn new(telemetry: &Telemetry) -> Self {
        let metrics = Self {
            restores: Family::default(),
            failures: Family::default(),
            finished: Family::default(),
            restored_bytes: Family::default(),
            steered: Counter::default(),
            // 1 s to about 9 h.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 2.0, 16))
            }),
            oldest: Gauge::default(),
            standing: Mutex::default(),
            leading: Gauge::default(),
        };
        telemetry.register(|registry| {
            registry.register(
                "restores",
                "Restores by namespace and phase",
                metrics.restores.clone(),
            );
            registry.register(
                "oldest_unfinished_restore_timestamp_seconds",
                "When the oldest restore began that is neither complete nor failed; 0 if there is none",
                metrics.oldest.clone(),
            );
            registry.register(
                "restores_finished",
                "Restores that came to an end, by how: Completed, or the reason of the failure",
                metrics.finished.clone(),
            );
            registry.register(
                "restore_failures",
                "Distinct failures of restores that were told to people, by reason, those that time cures too",
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

    /// A restore is in this phase now, and began at `since`, in seconds since 1970.
    pub fn phase(&self, uid: &str, namespace: &str, phase: Phase, since: i64) {
        let standing = Standing {
            namespace: namespace.to_owned(),
            phase,
            since,
        };
        self.change(uid, Some(standing));
    }

    /// A restore is no more.
    pub fn gone(&self, uid: &str) {
        self.change(uid, None);
    }

    /// A failure was told.
    pub fn failed(&self, namespace: &str, reason: &str) {
        let labels = ReasonLabels {
            namespace: namespace.to_owned(),
            reason: reason.to_owned(),
        };
        self.failures.get_or_create(&labels).inc();
    }

    /// A restore came to its end, `Completed` or for this reason.
    pub fn finished(&self, subject: &Subject, outcome: &str) {
        let labels = OutcomeLabels {
            namespace: subject.namespace.clone(),
            store: subject.store.clone(),
            driver: subject.driver.clone(),
            outcome: outcome.to_owned(),
        };
        self.finished.get_or_create(&labels).inc();
    }

    /// A restore was completed.
    pub fn completed(&self, subject: &Subject, bytes: i64, seconds: i64) {
        self.finished(subject, name(Phase::Completed));
        self.restored_bytes
            .get_or_create(subject)
            .inc_by(u64::try_from(bytes).unwrap_or(0));
        let seconds = u32::try_from(seconds).unwrap_or(0);
        let observed = f64::from(seconds);
        self.seconds.get_or_create(subject).observe(observed);
    }

    fn change(&self, uid: &str, now: Option<Standing>) {
        let mut all = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match now.clone() {
            Some(now) => all.insert(uid.to_owned(), now),
            None => all.remove(uid),
        };
        if before == now {
            return;
        }
        for (standing, by) in [(before, -1), (now, 1)] {
            if let Some(Standing {
                namespace, phase, ..
            }) = standing
            {
                let phase = name(phase);
                let labels = PhaseLabels { namespace, phase };
                self.restores.get_or_create(&labels).inc_by(by);
            }
        }
        let unfinished = all.values().filter(|it| !is_over(it.phase));
        let oldest = unfinished.map(|it| it.since).min();
        self.oldest.set(oldest.unwrap_or(0));
    }
}

fn is_over(phase: Phase) -> bool {
    matches!(phase, Phase::Completed | Phase::Failed)
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
        let count = |phase| {
            let namespace = "n".to_owned();
            let labels = PhaseLabels { namespace, phase };
            metrics.restores.get_or_create(&labels).get()
        };
        metrics.phase("a", "n", Phase::Pending, 20);
        metrics.phase("a", "n", Phase::Pending, 20);
        metrics.phase("b", "n", Phase::Pending, 10);
        metrics.phase("a", "n", Phase::Restoring, 20);
        assert_eq!((count("Pending"), count("Restoring")), (1, 1));
        assert_eq!(metrics.oldest.get(), 10);
        metrics.phase("b", "n", Phase::Failed, 10);
        assert_eq!(metrics.oldest.get(), 20);
        metrics.gone("a");
        metrics.gone("a");
        assert_eq!((count("Pending"), count("Restoring")), (0, 0));
        assert_eq!((count("Failed"), metrics.oldest.get()), (1, 0));
    }

    #[tokio::test]
    async fn the_depth_of_the_queue_is_that_of_the_moment() {
        let (telemetry, queue) = (Telemetry::default(), Arc::new(Queue::default()));
        show_depth(&telemetry, &queue);
        let shown = || {
            let mut text = String::new();
            telemetry
                .register(|it| prometheus_client::encoding::text::encode(&mut text, it))
                .unwrap();
            text
        };
        assert!(shown().contains("populator_queue_depth 0\n"), "{}", shown());
        queue.add(Key::Store {
            namespace: "n".to_owned(),
            name: "s".to_owned(),
        });
        assert!(shown().contains("populator_queue_depth 1\n"), "{}", shown());
    }

    #[test]
    fn an_end_counts_by_whose_it_is() {
        let metrics = Metrics::new(&Telemetry::default());
        let subject = Subject {
            namespace: "n".to_owned(),
            store: "s".to_owned(),
            driver: "d".to_owned(),
        };
        metrics.completed(&subject, 7, 1);
        metrics.completed(&subject, 8, 1);
        metrics.finished(&subject, "ArchiveTruncated");
        assert_eq!(metrics.restored_bytes.get_or_create(&subject).get(), 15);
        let labels = OutcomeLabels {
            namespace: "n".to_owned(),
            store: "s".to_owned(),
            driver: "d".to_owned(),
            outcome: "Completed".to_owned(),
        };
        assert_eq!(metrics.finished.get_or_create(&labels).get(), 2);
    }
}
