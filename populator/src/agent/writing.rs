//! The archive into the volume, on a thread of its own, and what is told of it meanwhile.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use archive::{ImageOutcome, Losses, Options, Outcome, Progress, Source};
use crds::restore_order::State;
use crds::volume_restore::RestoreResult;
use tokio::runtime::Handle;

use super::attempt::{Attempt, Mounted, Target};
use super::failure::AttemptError;
use super::progress::{Meter, signed};
use super::record::Filled;
use super::source::{FileSource, Intake, SignedSource};
use crate::failpoint;
use crate::store::Scheme;

/// How often figures are made.
const TICK: Duration = Duration::from_secs(1);

/// What was written.
enum Written {
    /// Files.
    Entries(Outcome),
    /// The image of a disk.
    Image(ImageOutcome),
}

impl Written {
    fn syncing(&self) -> Duration {
        match self {
            Self::Entries(outcome) => outcome.syncing,
            Self::Image(outcome) => outcome.syncing,
        }
    }
}

impl Attempt<'_> {
    /// Writes the archive into the volume and closes that.
    pub(super) async fn restore(
        &self,
        mounted: Mounted,
        options: Options,
    ) -> Result<Filled, AttemptError> {
        let Mounted { volume, target, .. } = mounted;
        let (source, fetched) = self.source()?;
        self.status
            .send_modify(|status| status.state = State::Restoring);

        let progress = Arc::new(Progress::default());
        let (cancel, runtime) = (self.cancel.clone(), Handle::current());
        let counters = Arc::clone(&progress);
        let image_file = self.order.spec.options.image_file.clone();
        let mut options = options;
        let (records, uid) = (&self.node.records, self.uid());
        records.begin_writing(uid, self.order.spec.attempt)?;
        failpoint::reached("agent.write.before");
        let mut writing = tokio::task::spawn_blocking(move || {
            let image = match (target, image_file) {
                (Target::Directory(root), None) => {
                    let root = root.as_fd();
                    return archive::restore(source, root, &options, &counters, &cancel, &runtime)
                        .map(Written::Entries);
                }
                (Target::Directory(root), Some(name)) => {
                    let (file, room) = archive::image_file(root.as_fd(), &name, &options)?;
                    options.image_room = Some(room);
                    file
                }
                (Target::Device(device), _) => device,
            };
            let image = image.as_fd();
            archive::restore_image(source, image, &options, &counters, &cancel, &runtime)
                .map(Written::Image)
        });
        let mut ticks = tokio::time::interval(TICK);
        let mut meter = Meter::default();
        let mut counted = 0;
        let written = loop {
            tokio::select! {
                written = &mut writing => break written,
                _ = ticks.tick() => self.show(&progress, &mut meter, &mut counted, &fetched),
            }
        };
        self.show(&progress, &mut meter, &mut counted, &fetched);
        let ended = records.end_writing(uid);
        let written = written??;
        ended?;
        failpoint::reached("agent.write.after");
        self.node
            .metrics
            .syncing
            .observe(written.syncing().as_secs_f64());
        let fetched = self.fetched_before + fetched.load(Ordering::Relaxed);
        let result = match written {
            Written::Entries(outcome) => of_entries(&outcome, fetched, self.fetched_before),
            Written::Image(outcome) => of_image(&outcome, fetched),
        };
        Ok(Filled { volume, result })
    }

    /// The archive, and what counts the bytes that came of it.
    fn source(&self) -> Result<(Arc<dyn Source>, Arc<AtomicU64>), AttemptError> {
        let (node, archive) = (self.node, &self.order.spec.archive);
        let intake = Intake::new(
            Arc::clone(&node.clients),
            &self.store(),
            self.access.clone(),
            node.metrics.fetched.clone(),
        );
        let fetched = intake.fetched();
        let source = match (Scheme::of(&archive.url), &node.files) {
            (Some(Scheme::File), None) => return Err(AttemptError::NoFiles),
            (Some(Scheme::File), Some(root)) => FileSource::new(root.clone(), archive, intake)
                .map(|source| Arc::new(source) as Arc<dyn Source>),
            _ => SignedSource::new(archive, intake).map(|source| Arc::new(source) as _),
        };
        let source = source.ok_or(AttemptError::Order(
            "its archive has no size, or nothing that tells it from others",
        ))?;
        Ok((source, fetched))
    }

    /// What the store is called among all those of the cluster.
    fn store(&self) -> String {
        let (namespace, name) = self.order.store();
        format!("{namespace}/{name}")
    }

    /// Puts the figures into the status and the metrics.
    fn show(&self, progress: &Progress, meter: &mut Meter, counted: &mut u64, fetched: &AtomicU64) {
        let counters = progress.snapshot();
        if counters.length == 0 {
            // It has not begun, and nobody knows from where.
            return;
        }
        let known = (*counted).max(progress.written_before());
        let news = counters.written.saturating_sub(known);
        self.node.metrics.written.inc_by(news);
        *counted = counters.written;
        let figures = meter.read(Instant::now(), &counters);
        let fetched = self.fetched_before + fetched.load(Ordering::Relaxed);
        self.status.send_modify(|status| {
            status.progress = Some(figures);
            status.bytes_fetched = signed(fetched);
        });
    }
}

fn of_entries(outcome: &Outcome, fetched: u64, fetched_before: u64) -> RestoreResult {
    // The checkpoint knows what was in vain of the attempts since it was begun.
    let in_vain = match outcome.resumed_at {
        Some(_) => 0,
        None => fetched_before,
    };
    RestoreResult {
        format: outcome.format.to_string(),
        entries: signed(outcome.entries),
        bytes_written: signed(outcome.bytes_written),
        bytes_fetched: signed(fetched),
        bytes_fetched_again: signed(outcome.fetched_again.saturating_add(in_vain)),
        seconds: seconds(outcome.elapsed),
        verified: outcome.verified.to_string(),
        sha256: outcome.sha256.clone(),
        snapshot_handle: None,
        left_out: signed(outcome.left_out),
        omitted: sentences(&outcome.omitted, "left out of"),
        not_restored: sentences(&outcome.lost, "not restored for"),
    }
}

fn of_image(outcome: &ImageOutcome, fetched: u64) -> RestoreResult {
    RestoreResult {
        format: outcome.format.to_string(),
        bytes_written: signed(outcome.bytes_written),
        bytes_fetched: signed(fetched),
        // Every attempt begins at the image's first byte.
        bytes_fetched_again: signed(fetched.saturating_sub(outcome.bytes_fetched)),
        seconds: seconds(outcome.elapsed),
        verified: outcome.verified.to_string(),
        sha256: outcome.sha256.clone(),
        ..RestoreResult::default()
    }
}

/// Whole seconds, and one at least.
fn seconds(elapsed: Duration) -> i64 {
    signed(u64::try_from(elapsed.as_millis().div_ceil(1000)).unwrap_or(u64::MAX))
}

/// One sentence for each kind.
fn sentences(kinds: &Losses, what: &str) -> Vec<String> {
    kinds
        .iter()
        .map(|(kind, loss)| {
            let (count, examples) = (loss.count, loss.examples.join(", "));
            format!("{kind}: {what} {count} entries, for example {examples}")
        })
        .collect()
}
