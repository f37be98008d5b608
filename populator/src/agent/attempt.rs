//! One attempt at an order: from nothing to a volume that is complete, durable and mounted nowhere.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use archive::{Losses, Options, Outcome, Progress};
use crds::restore_order::{MadeVolume, RestoreOrder, RestoreOrderStatus, SignedAccess, State};
use crds::volume_restore::RestoreResult;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::failure::{AttemptError, made_nothing};
use super::mount;
use super::node::Node;
use super::progress::{Meter, signed};
use super::record::{Filled, Made, Record};
use super::source::SignedSource;
use super::volume::{self, Abilities};
use super::{plugin::Plugin, teardown};
use crate::choices;
use crate::failpoint;

/// How often figures are made.
const TICK: Duration = Duration::from_secs(1);

/// One order being carried out.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// With what.
    pub node: &'a Node,
    /// The order.
    pub order: &'a RestoreOrder,
    /// How the archive may be read, renewed now and then.
    pub access: watch::Receiver<SignedAccess>,
    /// What the order's status shall say.
    pub status: &'a watch::Sender<RestoreOrderStatus>,
    /// Bytes that earlier attempts have fetched.
    pub fetched_before: u64,
    /// Given up, it ends within a second, and leaves nothing mounted.
    pub cancel: CancellationToken,
}

/// A volume that is mounted, and proven to be.
struct Mounted {
    volume: MadeVolume,
    root: OwnedFd,
}

impl Attempt<'_> {
    /// Makes and fills the volume. `record` is kept in step with the disk throughout. With success
    /// it says `filled`, and the volume is mounted nowhere.
    ///
    /// Whatever an earlier attempt has made is deleted first: the caller has made sure that the
    /// controller does not count on it.
    pub async fn fill(&self, record: &mut Option<Record>) -> Result<(), AttemptError> {
        let written = self.write(record).await;
        let Some(record) = record else {
            return written.map(drop);
        };
        let released = teardown::release(self.node, record).await;
        match (written, released) {
            (Ok(filled), Ok(())) => {
                record.filled = Some(filled);
                failpoint::reached("agent.complete.before");
                self.node.records.save(record)?;
                failpoint::reached("agent.complete.after");
                Ok(())
            }
            (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            (Err(error), Err(release)) => {
                tracing::warn!(order = record.order, %release, "left mounted for now");
                Err(error)
            }
        }
    }

    async fn write(&self, record: &mut Option<Record>) -> Result<Filled, AttemptError> {
        let options = choices::options(&self.order.spec.options, &self.node.options)?;
        // Every step of the way to the mount may be dropped at any await: the record is ahead of it.
        let mounted = self.cancel.run_until_cancelled(self.mount(record)).await;
        let mounted = mounted.ok_or(AttemptError::Cancelled)??;
        let (volume, outcome, fetched) = self.restore(mounted, options).await?;
        Ok(Filled {
            volume,
            result: result(&outcome, self.fetched_before + fetched),
        })
    }

    async fn mount(&self, kept: &mut Option<Record>) -> Result<Mounted, AttemptError> {
        let spec = &self.order.spec.volume;
        let plugin = self.node.plugin(&spec.driver);
        self.clear(kept).await?;

        let abilities = plugin.abilities().await?;
        if !abilities.makes_volumes {
            return Err(AttemptError::NoController {
                driver: spec.driver.clone(),
            });
        }
        let record = kept.insert(Record::new(self.order));
        failpoint::reached("agent.record.before");
        self.node.records.save(record)?;
        failpoint::reached("agent.record.after");

        let made = self.create(&plugin, &abilities, record).await?;
        self.status
            .send_modify(|status| status.volume = Some(made.clone()));
        volume::fits(&made, spec, &abilities).map_err(|unfit| AttemptError::Unfit {
            driver: spec.driver.clone(),
            unfit,
        })?;
        self.publish(&plugin, &abilities, record, made).await
    }

    /// Takes away what an earlier attempt left.
    async fn clear(&self, kept: &mut Option<Record>) -> Result<(), AttemptError> {
        let reported = self.status.borrow().volume.clone();
        if kept.is_none() && reported.is_none() {
            return Ok(());
        }
        let record = kept.get_or_insert_with(|| Record::recovered(self.order, reported.as_ref()));
        teardown::release(self.node, record).await?;
        // A volume of which nothing was ever heard was never written to: it is found again below.
        if record.made != Made::Perhaps || reported.is_some() {
            teardown::delete(self.node, record, reported.as_ref()).await?;
        }
        self.status.send_modify(|status| status.volume = None);
        Ok(())
    }

    async fn create(
        &self,
        plugin: &Plugin,
        abilities: &Abilities,
        record: &mut Record,
    ) -> Result<MadeVolume, AttemptError> {
        let spec = &self.order.spec.volume;
        failpoint::reached("agent.create.before");
        let answer = match plugin.create(volume::creation(spec, abilities)).await {
            Ok(answer) => answer,
            Err(error) => {
                if made_nothing(&error) {
                    record.made = Made::No;
                    self.node.records.save(record)?;
                }
                return Err(error.into());
            }
        };
        failpoint::reached("agent.create.after");
        self.node.room_changed.notify_one();
        let made = volume::made(answer.as_ref(), spec).map_err(|unfit| AttemptError::Unfit {
            driver: spec.driver.clone(),
            unfit,
        })?;
        record.made = Made::Yes(made.handle.clone());
        record.mounted = true;
        failpoint::reached("agent.adopt.before");
        self.node.records.save(record)?;
        failpoint::reached("agent.adopt.after");
        Ok(made)
    }

    async fn publish(
        &self,
        plugin: &Plugin,
        abilities: &Abilities,
        record: &Record,
        made: MadeVolume,
    ) -> Result<Mounted, AttemptError> {
        let (spec, records) = (&self.order.spec.volume, &self.node.records);
        let (stage, target) = (records.stage(&record.uid), records.target(&record.uid));
        if abilities.stages {
            records.make_stage(&record.uid)?;
            failpoint::reached("agent.stage.before");
            plugin.stage(&made, spec, abilities, text(&stage)?).await?;
            failpoint::reached("agent.stage.after");
        }
        failpoint::reached("agent.publish.before");
        plugin
            .publish(&made, spec, abilities, text(&stage)?, text(&target)?)
            .await?;
        failpoint::reached("agent.publish.after");
        let root = mount::open_root(&records.folder(&record.uid), "target")?;
        Ok(Mounted { volume: made, root })
    }

    /// Writes the archive into the volume, on a thread of its own, and closes the volume.
    async fn restore(
        &self,
        mounted: Mounted,
        options: Options,
    ) -> Result<(MadeVolume, Outcome, u64), AttemptError> {
        let Mounted { volume, root } = mounted;
        let node = self.node;
        let source = SignedSource::new(
            node.http.clone(),
            &self.order.spec.archive,
            self.access.clone(),
            &node.limits,
            node.metrics.fetched.clone(),
        )
        .ok_or(AttemptError::Order(
            "its archive has no possible size or ETag",
        ))?;
        let fetched = source.fetched();
        self.status
            .send_modify(|status| status.state = State::Restoring);

        let progress = Arc::new(Progress::default());
        let (cancel, runtime) = (self.cancel.clone(), Handle::current());
        let counters = Arc::clone(&progress);
        failpoint::reached("agent.write.before");
        let mut writing = tokio::task::spawn_blocking(move || {
            let source = Arc::new(source);
            archive::restore(source, root.as_fd(), &options, &counters, &cancel, &runtime)
        });
        let mut ticks = tokio::time::interval(TICK);
        let mut meter = Meter::default();
        let mut counted = 0;
        let outcome = loop {
            tokio::select! {
                outcome = &mut writing => break outcome,
                _ = ticks.tick() => self.show(&progress, &mut meter, &mut counted, &fetched),
            }
        };
        self.show(&progress, &mut meter, &mut counted, &fetched);
        let outcome = outcome??;
        failpoint::reached("agent.write.after");
        Ok((volume, outcome, fetched.load(Ordering::Relaxed)))
    }

    /// Puts the figures into the status and the metrics.
    fn show(
        &self,
        progress: &Progress,
        meter: &mut Meter,
        counted: &mut u64,
        fetched: &std::sync::atomic::AtomicU64,
    ) {
        let counters = progress.snapshot();
        self.node
            .metrics
            .written
            .inc_by(counters.written.saturating_sub(*counted));
        *counted = counters.written;
        let figures = meter.read(Instant::now(), &counters);
        let fetched = self.fetched_before + fetched.load(Ordering::Relaxed);
        self.status.send_modify(|status| {
            status.progress = Some(figures);
            status.bytes_fetched = signed(fetched);
        });
    }
}

/// A path as CSI takes it.
pub(super) fn text(path: &Path) -> Result<&str, AttemptError> {
    path.to_str().ok_or(AttemptError::Order(
        "the work directory's path is not UTF-8",
    ))
}

fn result(outcome: &Outcome, fetched: u64) -> RestoreResult {
    RestoreResult {
        format: outcome.format.to_string(),
        entries: signed(outcome.entries),
        bytes_written: signed(outcome.bytes_written),
        bytes_fetched: signed(fetched),
        seconds: signed(
            outcome
                .elapsed
                .as_millis()
                .div_ceil(1000)
                .try_into()
                .unwrap_or(u64::MAX),
        ),
        verified: outcome.verified.to_string(),
        sha256: outcome.sha256.clone(),
        left_out: signed(outcome.left_out),
        omitted: sentences(&outcome.omitted, "left out of"),
        not_restored: sentences(&outcome.lost, "not restored for"),
    }
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
