//! Says in an order's status how things stand: at most once a second, except for ends, which go at
//! once and are repeated until they arrive.

use std::sync::Arc;
use std::time::Duration;

use crds::restore_order::{RestoreOrder, RestoreOrderStatus, State};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::failpoint;

/// The least time between two patches of one order.
const EVERY: Duration = Duration::from_secs(1);

/// The first and the longest pause before a patch is repeated.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The field manager that owns an order's status.
const MANAGER: &str = "populator-agent";

/// Whom to report to: this order, and none that bears its name later.
#[derive(Debug, Clone)]
pub struct Order {
    /// The orders of the populator's namespace.
    pub api: Api<RestoreOrder>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Option<String>,
}

/// The status of one order on its way to the API server. Dropping it ends the reporting.
#[derive(Debug)]
pub struct Reporter {
    to: Order,
    desired: watch::Sender<RestoreOrderStatus>,
    sent: Arc<watch::Sender<RestoreOrderStatus>>,
    /// Held while a patch is on its way, so that they arrive in order; when the last one did.
    gate: Arc<Mutex<Option<Instant>>>,
    _forwarding: AbortOnDropHandle<()>,
}

impl Reporter {
    /// Reports to an order whose status is `known`.
    pub fn start(to: Order, known: RestoreOrderStatus) -> Self {
        let desired = watch::Sender::new(known.clone());
        let sent = Arc::new(watch::Sender::new(known));
        let gate = Arc::new(Mutex::new(None));
        let forwarding = Forwarding {
            to: to.clone(),
            desired: desired.subscribe(),
            sent: Arc::clone(&sent),
            gate: Arc::clone(&gate),
        };
        Self {
            to,
            desired,
            sent,
            gate,
            _forwarding: AbortOnDropHandle::new(tokio::spawn(forwarding.run())),
        }
    }

    /// What the status shall be: whatever is put here is on its way.
    pub fn status(&self) -> &watch::Sender<RestoreOrderStatus> {
        &self.desired
    }

    /// Waits until the status is what it shall be.
    pub async fn settled(&self) {
        let mut sent = self.sent.subscribe();
        // The sender is this reporter's own, so waiting cannot fail.
        let _ = sent.wait_for(|sent| *sent == *self.desired.borrow()).await;
    }

    /// Makes `status` true in the API before this returns; with `version`, only if the order is
    /// still the one of that resource version. To be called when all is [settled](Self::settled).
    pub async fn announce(
        &self,
        status: RestoreOrderStatus,
        version: Option<&str>,
    ) -> Result<(), kube::Error> {
        let mut last = self.gate.lock().await;
        patch(&self.to, &status, version).await?;
        *last = Some(Instant::now());
        self.desired.send_replace(status.clone());
        self.sent.send_replace(status);
        Ok(())
    }
}

struct Forwarding {
    to: Order,
    desired: watch::Receiver<RestoreOrderStatus>,
    sent: Arc<watch::Sender<RestoreOrderStatus>>,
    gate: Arc<Mutex<Option<Instant>>>,
}

impl Forwarding {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        // Ends when the reporter is dropped.
        loop {
            let sent = Arc::clone(&self.sent);
            if self
                .desired
                .wait_for(|desired| *desired != *sent.borrow())
                .await
                .is_err()
            {
                return;
            }
            let last = *self.gate.lock().await;
            tokio::select! {
                () = sleep_until(last.map_or_else(Instant::now, |last| last + EVERY)) => {}
                urgent = self.desired.wait_for(|desired| urgent(desired, &sent.borrow())) => {
                    if urgent.is_err() {
                        return;
                    }
                }
            }
            let mut last = self.gate.lock().await;
            let desired = self.desired.borrow_and_update().clone();
            if desired == *self.sent.borrow() {
                continue;
            }
            match patch(&self.to, &desired, None).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {
                    tracing::debug!(order = self.to.name, "nobody is left to report to");
                }
                Err(error) => {
                    drop(last);
                    tracing::warn!(order = self.to.name, %error, "the status is reported again soon");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                    continue;
                }
            }
            pause = PAUSES.0;
            *last = Some(Instant::now());
            self.sent.send_replace(desired);
        }
    }
}

/// Whether it is an end, which somebody waits for.
fn urgent(desired: &RestoreOrderStatus, sent: &RestoreOrderStatus) -> bool {
    let end = is_end(desired.state);
    end && (desired.state, desired.attempt, &desired.failure)
        != (sent.state, sent.attempt, &sent.failure)
}

fn is_end(state: State) -> bool {
    match state {
        State::Filled | State::Failed | State::Deleted => true,
        State::Waiting | State::Provisioning | State::Restoring => false,
    }
}

/// Server-side apply: what is not in `status` any more goes from the object too.
async fn patch(
    to: &Order,
    status: &RestoreOrderStatus,
    version: Option<&str>,
) -> Result<(), kube::Error> {
    let mut object = json!({
        "apiVersion": format!("{}/{}", crds::GROUP, crds::VERSION),
        "kind": "RestoreOrder",
        "metadata": {"name": to.name, "uid": to.uid},
        "status": status,
    });
    if let Some(version) = version {
        object["metadata"]["resourceVersion"] = version.into();
    }
    let parameters = PatchParams::apply(MANAGER).force();
    if is_end(status.state) {
        failpoint::reached("agent.report.before");
    }
    to.api
        .patch_status(&to.name, &parameters, &Patch::Apply(object))
        .await?;
    if is_end(status.state) {
        failpoint::reached("agent.report.after");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ends_are_urgent() {
        let sent = RestoreOrderStatus::default();
        let with = |state, attempt| RestoreOrderStatus {
            state,
            attempt,
            ..RestoreOrderStatus::default()
        };
        assert!(!urgent(&with(State::Restoring, 1), &sent));
        assert!(urgent(&with(State::Filled, 1), &sent));
        assert!(urgent(&with(State::Failed, 2), &with(State::Failed, 1)));
        assert!(!urgent(&with(State::Failed, 1), &with(State::Failed, 1)));
    }
}
