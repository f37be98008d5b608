//! Carries one order out, from when it is first seen until nothing of it is left here.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crds::restore_order::{RestoreOrder, RestoreOrderStatus, State};
use kube::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::attempt::Attempt;
use super::decision::{self, Observed, Step};
use super::failure::AttemptError;
use super::node::Node;
use super::places::Wish;
use super::record::{Filled, Record};
use super::report::{self, Reporter};
use super::snapshots::{self, Kept, Share};
use super::teardown;
use super::turns::Turn;
use crate::failpoint;

/// The first and the longest pause after a step that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// For how long a last report is waited for when the process ends.
const LAST_REPORT: Duration = Duration::from_secs(2);

/// An order as last seen; `None` once it is gone.
pub type Sight = Option<Arc<RestoreOrder>>;

/// What goes on around a worker.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The order, as it changes.
    pub sight: watch::Receiver<Sight>,
    /// Whether the Lease is not certainly held.
    pub fenced: watch::Receiver<bool>,
    /// Told when the process is to end.
    pub stop: CancellationToken,
}

impl Surroundings {
    /// Waits until one of them changes.
    async fn changed(&mut self) {
        // A sender that is gone has said its last word.
        async fn next<T>(receiver: &mut watch::Receiver<T>) {
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        tokio::select! {
            () = next(&mut self.sight) => {}
            () = next(&mut self.fenced) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Why a step was not taken to its end. It is decided anew then.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    #[error("the order has changed meanwhile")]
    Stale,
}

/// One order's worker.
#[derive(Debug)]
pub struct Worker {
    node: Arc<Node>,
    orders: Api<RestoreOrder>,
    around: Surroundings,
    record: Option<Record>,
    reporter: Reporter,
    /// A place in the line for its content, taken before anybody else's.
    line: Option<Turn>,
}

impl Worker {
    /// A worker for the order `name`.
    pub fn new(
        node: Arc<Node>,
        orders: Api<RestoreOrder>,
        name: &str,
        around: Surroundings,
        record: Option<Record>,
    ) -> Self {
        let seen = around.sight.borrow().clone();
        let known = seen.as_ref().and_then(|order| order.status.clone());
        let recorded = record.as_ref().map(|record| record.uid.clone());
        let to = report::Order {
            api: orders.clone(),
            name: name.to_owned(),
            uid: seen
                .and_then(|order| order.metadata.uid.clone())
                .or(recorded),
        };
        let reporter = Reporter::start(to, known.unwrap_or_default());
        Self {
            node,
            orders,
            around,
            record,
            reporter,
            line: None,
        }
    }

    /// Works until there is nothing left to do, once it is its `turn`; with a place in the `line` for its
    /// content, if it has one already.
    pub async fn run(self, turn: Turn, line: Option<Turn>) {
        // The VolumeRestore has the PVC's name.
        let sight = self.around.sight.borrow().clone();
        let spec = sight.as_ref().map(|order| &order.spec);
        let span = tracing::info_span!(
            "restore",
            namespace = spec.map(|spec| &*spec.claim.namespace),
            claim = spec.map(|spec| &*spec.claim.name),
            node = spec.map(|spec| &*spec.node_name),
        );
        self.work(turn, line).instrument(span).await;
    }

    async fn work(mut self, turn: Turn, line: Option<Turn>) {
        self.line = line;
        let stop = self.around.stop.clone();
        let Some(_turn) = stop.run_until_cancelled(turn.held()).await else {
            return;
        };
        let mut pause = PAUSES.0;
        loop {
            let sight = self.around.sight.borrow_and_update().clone();
            let fenced = *self.around.fenced.borrow_and_update();
            let (status, record) = (self.reporter.status().borrow().clone(), self.record.clone());
            let step = decision::next(&Observed {
                order: sight.as_deref(),
                status: &status,
                record: record.as_ref(),
                fenced,
                stopping: self.around.stop.is_cancelled(),
            });
            // Whoever does not fill a volume keeps nobody waiting. Fenced, it is not known yet what is to be done.
            if !fenced && !matches!(step, Step::Fill(_)) {
                self.line = None;
            }
            let done = match step {
                Step::End => break,
                Step::Rest => {
                    self.around.changed().await;
                    continue;
                }
                Step::Fill(order) => self.fill(order).await,
                Step::ReportFilled(order, filled) => {
                    self.report_filled(order, filled);
                    Ok(())
                }
                Step::ReportWaiting(order) => {
                    self.reporter.status().send_modify(|status| {
                        status.observed_generation = order.metadata.generation;
                        status.state = State::Waiting;
                        status.failure = None;
                    });
                    Ok(())
                }
                Step::Release => self.release().await,
                Step::LetGo => self.let_go().await,
                Step::Delete(order) => self.delete(order).await,
                Step::Abandon { delete } => self.abandon(delete).await,
            };
            match done {
                Ok(()) => pause = PAUSES.0,
                Err(error) => {
                    tracing::warn!(order = self.name(), %error, "tried again in {pause:?}");
                    // Whatever changes may be what it failed for.
                    let _ = tokio::time::timeout(pause, self.around.changed()).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        if self.around.sight.borrow().is_some() {
            let _ = tokio::time::timeout(LAST_REPORT, self.reporter.settled()).await;
        }
    }

    fn name(&self) -> String {
        let sight = self.around.sight.borrow();
        match (sight.as_ref(), &self.record) {
            (Some(order), _) => order.metadata.name.clone().unwrap_or_default(),
            (None, Some(record)) => record.order.clone(),
            (None, None) => String::new(),
        }
    }

    async fn fill(&mut self, order: &RestoreOrder) -> Result<(), StepError> {
        let cancel = CancellationToken::new();
        // Should this be dropped, the thread that writes must not go on.
        let _end = cancel.clone().drop_guard();
        let (renewed, access) = watch::channel(order.spec.access.clone());
        let mut around = self.around.clone();
        let claim = &order.spec.claim;
        let work = self.attempt(order, access, cancel.clone());
        let mut work = pin!(failpoint::working_for(&claim.namespace, &claim.name, work));
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = around.changed(), if !cancel.is_cancelled() => {}
            }
            let sight = around.sight.borrow_and_update().clone();
            let fenced = *around.fenced.borrow_and_update();
            if let Some(seen) = &sight {
                renewed.send_if_modified(|access| {
                    let new = *access != seen.spec.access;
                    access.clone_from(&seen.spec.access);
                    new
                });
            }
            let attempt = order.spec.attempt;
            if !decision::wanted(
                attempt,
                sight.as_deref(),
                fenced,
                around.stop.is_cancelled(),
            ) {
                cancel.cancel();
            }
        }
    }

    /// One attempt, once there is a place for it.
    async fn attempt(
        &mut self,
        order: &RestoreOrder,
        access: watch::Receiver<crds::restore_order::SignedAccess>,
        cancel: CancellationToken,
    ) -> Result<(), StepError> {
        let node = Arc::clone(&self.node);
        // Before a place is taken: who waits for others holds none.
        let share = self.share(order);
        let Some(share) = cancel.run_until_cancelled(share).await else {
            return Ok(());
        };
        let wish = Wish {
            namespace: order.spec.claim.namespace.clone(),
            priority: order.spec.priority,
        };
        let Some(_place) = cancel.run_until_cancelled(node.places.wait(wish)).await else {
            return Ok(());
        };
        let Some(announced) = cancel.run_until_cancelled(self.announce(order)).await else {
            return Ok(());
        };
        announced?;

        let status = self.reporter.status();
        let fetched_before = u64::try_from(status.borrow().bytes_fetched).unwrap_or(0);
        let attempt = Attempt {
            node: &node,
            order,
            access,
            status,
            fetched_before,
            copy: match &share {
                Share::Copy(kept) => Some(Kept::clone(kept)),
                Share::Alone | Share::First(_) => None,
            },
            cancel,
        };
        node.metrics.running.inc();
        tracing::info!(
            order = self.name(),
            attempt = order.spec.attempt,
            "filling a volume"
        );
        let filled = attempt.fill(&mut self.record).await;
        node.metrics.running.dec();
        node.room_changed.notify_one();
        match filled {
            // The record says so, and the next step reports it.
            Ok(()) => {
                tracing::info!(order = self.name(), "filled");
                self.keep(order, &share).await;
            }
            Err(error) if error.is_cancelled() => tracing::info!(order = self.name(), "given up"),
            Err(error) => self.report_failed(order, &error),
        }
        Ok(())
    }

    /// What it has to do with other orders of its content.
    async fn share(&mut self, order: &RestoreOrder) -> Share {
        let (Some(content), Some(line)) = (&order.spec.content, snapshots::line(order)) else {
            return Share::Alone;
        };
        let kept = &self.node.snapshots;
        let turn = self.line.take().unwrap_or_else(|| kept.line(&line));
        kept.share(content, &order.spec.volume, turn).await
    }

    /// Keeps a snapshot of the volume, before anybody can write to it, where that serves others.
    async fn keep(&self, order: &RestoreOrder, share: &Share) {
        let filled = self.record.as_ref().and_then(|it| it.filled.as_ref());
        let (Some(content), Some(filled)) = (&order.spec.content, filled) else {
            return;
        };
        let is_copy = filled.result.snapshot_handle.is_some();
        if !is_copy && (content.cache.is_some() || share.is_awaited()) {
            snapshots::keep(&self.node, &order.spec.volume.driver, content, filled).await;
        }
    }

    /// Says that an attempt begins, before anything of an earlier one is taken away: from then on
    /// nobody counts on what it may have reported.
    async fn announce(&self, order: &RestoreOrder) -> Result<(), StepError> {
        // Our own reports must not be what makes the look below stale.
        self.reporter.settled().await;
        let old = self.reporter.status().borrow().clone();
        let version = if self.record.is_some() || old.volume.is_some() {
            let name = order.metadata.name.as_deref().unwrap_or_default();
            let live = self.orders.get_opt(name).await?.ok_or(StepError::Stale)?;
            let same = live.metadata.uid == order.metadata.uid
                && (live.spec.goal, live.spec.attempt) == (order.spec.goal, order.spec.attempt);
            if !same {
                return Err(StepError::Stale);
            }
            live.metadata.resource_version
        } else {
            None
        };
        let begun = RestoreOrderStatus {
            observed_generation: order.metadata.generation,
            state: State::Provisioning,
            attempt: order.spec.attempt,
            volume: old.volume,
            bytes_fetched: old.bytes_fetched,
            ..RestoreOrderStatus::default()
        };
        failpoint::reached("agent.announce.before");
        self.reporter.announce(begun, version.as_deref()).await?;
        failpoint::reached("agent.announce.after");
        Ok(())
    }

    fn report_filled(&self, order: &RestoreOrder, filled: &Filled) {
        self.reporter.status().send_modify(|status| {
            status.observed_generation = order.metadata.generation;
            status.state = State::Filled;
            status.attempt = order.spec.attempt;
            status.volume = Some(filled.volume.clone());
            status.bytes_fetched = filled.result.bytes_fetched;
            status.result = Some(filled.result.clone());
            status.failure = None;
        });
    }

    fn report_failed(&self, order: &RestoreOrder, error: &AttemptError) {
        let failure = error.failure();
        tracing::warn!(
            order = self.name(),
            reason = failure.reason,
            "{}",
            failure.message
        );
        self.reporter.status().send_modify(|status| {
            status.observed_generation = order.metadata.generation;
            status.state = State::Failed;
            status.attempt = order.spec.attempt;
            status.failure = Some(failure);
        });
    }

    async fn release(&mut self) -> Result<(), StepError> {
        match &mut self.record {
            Some(record) => Ok(teardown::release(&self.node, record).await?),
            None => Ok(()),
        }
    }

    async fn let_go(&mut self) -> Result<(), StepError> {
        self.release().await?;
        Ok(teardown::forget(&self.node, &mut self.record)?)
    }

    async fn delete(&mut self, order: &RestoreOrder) -> Result<(), StepError> {
        if let Err(error) = self.remove(order).await {
            self.report_failed(order, &error);
            return Err(error.into());
        }
        self.reporter.status().send_modify(|status| {
            *status = RestoreOrderStatus {
                observed_generation: order.metadata.generation,
                state: State::Deleted,
                attempt: order.spec.attempt,
                bytes_fetched: status.bytes_fetched,
                ..RestoreOrderStatus::default()
            };
        });
        Ok(())
    }

    async fn remove(&mut self, order: &RestoreOrder) -> Result<(), AttemptError> {
        let reported = self.reporter.status().borrow().volume.clone();
        if self.record.is_none() && reported.is_some() {
            self.record = Some(Record::recovered(order, reported.as_ref()));
        }
        if let Some(record) = &mut self.record {
            teardown::release(&self.node, record).await?;
            teardown::delete(&self.node, record, reported.as_ref()).await?;
        }
        teardown::forget(&self.node, &mut self.record)
    }

    async fn abandon(&mut self, delete: bool) -> Result<(), StepError> {
        let Some(record) = &mut self.record else {
            return Ok(());
        };
        // A watch may be wrong about what is gone; this look is not.
        let live = self.orders.get_opt(&record.order).await?;
        if live.is_some_and(|live| live.metadata.uid.as_ref() == Some(&record.uid)) {
            return Err(StepError::Stale);
        }
        tracing::warn!(
            order = record.order, volume = ?record.made, delete,
            "the order is gone; what it left on this node is removed, a complete volume apart"
        );
        teardown::release(&self.node, record).await?;
        if delete {
            teardown::delete(&self.node, record, None).await?;
        }
        Ok(teardown::forget(&self.node, &mut self.record)?)
    }
}
