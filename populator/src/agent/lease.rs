//! The agent's Lease: that it lives, what it serves, and whether it may write.
//!
//! A Lease that cannot be renewed will be taken for dead, and its orders may go to another node. So
//! writing stops some time before that: fencing from within.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::lease::{self as contract, Drivers, Snapshots};

/// How often the Lease is renewed.
const RENEW: Duration = Duration::from_secs(contract::RENEW_SECONDS);

/// How long a renewal may take.
const CALL: Duration = Duration::from_secs(5);

/// The pause after a renewal that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Writing stops when this much of the Lease is left: time to cancel, unmount and be sure of it.
const MARGIN: Duration = Duration::from_secs(10);

/// For how long after a renewal was begun this agent may write.
const HELD: Duration =
    Duration::from_secs(contract::DURATION_SECONDS.unsigned_abs() as u64).saturating_sub(MARGIN);

/// The Lease of one node's agent.
pub struct Keeper {
    /// Leases of the populator's namespace.
    pub leases: Api<Lease>,
    /// The node.
    pub node: String,
    /// Who holds it.
    pub identity: String,
    /// What is served, as it changes.
    pub drivers: watch::Receiver<Drivers>,
    /// What is kept for others, as it changes.
    pub snapshots: watch::Receiver<Snapshots>,
    /// With what to seal what is for it alone.
    pub sealing_key: String,
    /// Where it is told whether writing is forbidden; true at the beginning.
    pub fenced: watch::Sender<bool>,
}

impl Keeper {
    /// Renews until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        let acquired = Timestamp::now();
        let mut held_until = Instant::now();
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let drivers = self.drivers.borrow_and_update().clone();
            let snapshots = self.snapshots.borrow_and_update().clone();
            let renewal = timeout(CALL, self.renew(acquired, &drivers, &snapshots));
            let next = match fencing(&self.fenced, held_until, renewal).await {
                Ok(Ok(_)) => {
                    held_until = begun + HELD;
                    // The renewal may have taken as long as it was good for.
                    let fenced = Instant::now() >= held_until;
                    if self.fenced.send_replace(fenced) && !fenced {
                        tracing::info!(node = self.node, "the Lease is held");
                    }
                    begun + RENEW
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the Lease could not be renewed");
                    begun + AGAIN
                }
                Err(_) => {
                    tracing::warn!("the API server did not answer in {CALL:?}");
                    begun + CALL
                }
            };
            let pause = async {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = other_drivers(&mut self.drivers, &drivers) => {}
                    // Where it ends is told with the next renewal.
                    Ok(()) = self.snapshots.changed() => {}
                    () = stop.cancelled() => {}
                }
            };
            fencing(&self.fenced, held_until, pause).await;
        }
    }

    async fn renew(
        &self,
        acquired: Timestamp,
        drivers: &Drivers,
        snapshots: &Snapshots,
    ) -> Result<Lease, kube::Error> {
        let name = contract::name(&self.node);
        let times = (acquired, Timestamp::now());
        let notes = notes(drivers, snapshots, &self.sealing_key);
        let object = lease(&name, &self.identity, times, &notes);
        let parameters = PatchParams::apply("populator-agent").force();
        self.leases
            .patch(&name, &parameters, &Patch::Apply(object))
            .await
    }
}

/// Waits for `future`, and forbids writing when the Lease runs out meanwhile.
async fn fencing<T>(
    fenced: &watch::Sender<bool>,
    held_until: Instant,
    future: impl Future<Output = T>,
) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        let held = !*fenced.borrow();
        tokio::select! {
            done = &mut future => return done,
            () = sleep_until(held_until), if held => {
                tracing::warn!("the Lease runs out: nothing is written until it is renewed");
                fenced.send_replace(true);
            }
        }
    }
}

/// Waits until other drivers are served than `known`; how much room they have can wait.
async fn other_drivers(drivers: &mut watch::Receiver<Drivers>, known: &Drivers) {
    let other = |now: &Drivers| !now.keys().eq(known.keys());
    if drivers.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What its annotations say.
fn notes(drivers: &Drivers, snapshots: &Snapshots, sealing_key: &str) -> Value {
    json!({
        contract::DRIVERS: json!(drivers).to_string(),
        contract::SNAPSHOTS: json!(snapshots).to_string(),
        contract::SEALING_KEY: sealing_key,
    })
}

fn lease(
    name: &str,
    identity: &str,
    (acquired, now): (Timestamp, Timestamp),
    notes: &Value,
) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "labels": {contract::COMPONENT: contract::AGENT},
            "annotations": notes,
        },
        "spec": {
            "holderIdentity": identity,
            "leaseDurationSeconds": contract::DURATION_SECONDS,
            "acquireTime": format!("{acquired:.6}"),
            "renewTime": format!("{now:.6}"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Room;

    #[test]
    fn the_lease_says_what_was_agreed() {
        let room = Room {
            makes_volumes: true,
            available_bytes: 7,
            maximum_volume_bytes: None,
        };
        let drivers = Drivers::from([("d.example.com".to_owned(), room)]);
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        let notes = notes(&drivers, &Snapshots::new(), "age1");
        let made = lease("agent-n", "pod", (now, now), &notes);
        let read: Lease = serde_json::from_value(made).unwrap();
        let (spec, metadata) = (read.spec.unwrap(), read.metadata);
        assert_eq!(spec.renew_time.unwrap().0, now);
        assert_eq!(
            spec.lease_duration_seconds,
            Some(contract::DURATION_SECONDS)
        );
        assert_eq!(spec.holder_identity.as_deref(), Some("pod"));
        let notes = metadata.annotations.unwrap();
        assert_eq!(
            notes[contract::DRIVERS],
            r#"{"d.example.com":{"availableBytes":7}}"#
        );
        assert_eq!(notes[contract::SEALING_KEY], "age1");
        assert_eq!(
            metadata.labels.unwrap()[contract::COMPONENT],
            contract::AGENT
        );
    }

    #[tokio::test]
    async fn writing_is_forbidden_when_the_lease_runs_out() {
        let fenced = watch::Sender::new(false);
        let until = Instant::now() + Duration::from_millis(300);
        fencing(
            &fenced,
            until,
            tokio::time::sleep(Duration::from_millis(10)),
        )
        .await;
        assert!(!*fenced.borrow());
        fencing(
            &fenced,
            until,
            sleep_until(until + Duration::from_millis(50)),
        )
        .await;
        assert!(*fenced.borrow());
        assert!(HELD < Duration::from_secs(40) && HELD > RENEW + CALL);
    }
}
