//! Leader election by a Lease: one replica acts, the others wait.
//!
//! The rules are those of client-go: a Lease counts as held for its duration from the moment that
//! *this* process saw it change, so that clocks need not agree. A leader that could not renew in
//! time ends, before another one may begin.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api;

/// The Lease's name.
const NAME: &str = "controller";

/// For how long a renewal counts.
const DURATION: Duration = Duration::from_secs(20);

/// A leader that has not renewed for this long ends: the rest of [`DURATION`] is for what it still
/// has on the way to the API server.
const DEADLINE: Duration = Duration::from_secs(13);

/// How often a leader renews.
const RENEW: Duration = Duration::from_secs(5);

/// How often a replica that waits looks.
const LOOK: Duration = Duration::from_secs(2);

/// No single request may take longer.
const REQUEST: Duration = Duration::from_secs(5);

/// The Lease, as this process sees it.
pub struct Leadership {
    leases: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is ours, or free for us.
    Take,
    /// Another replica holds it.
    Leave,
}

impl Leadership {
    /// Prepares to lead under the name `identity`.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity,
            seen: None,
        }
    }

    /// Waits until this replica leads; false if `stop` came first.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match self.attempt().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    error = api::short(&error),
                    "leadership could not be asked for; it is tried again"
                ),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Keeps leading; returns when leadership is lost.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW.min(DEADLINE.saturating_sub(renewed.elapsed()))).await;
            let asked = Instant::now();
            let left = DEADLINE.saturating_sub(renewed.elapsed()).min(REQUEST);
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = api::short(&error), "leadership was not renewed");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(_) => tracing::warn!("leadership was not renewed in time"),
            }
            if renewed.elapsed() >= DEADLINE {
                return;
            }
        }
    }

    /// Lets another replica lead at once.
    pub async fn release(&mut self) {
        let released = async {
            let mut lease = self.leases.get(NAME).await?;
            let holder = lease
                .spec
                .as_ref()
                .and_then(|spec| spec.holder_identity.as_ref());
            if holder != Some(&self.identity) {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
            }
            self.leases
                .replace(NAME, &PostParams::default(), &lease)
                .await
                .map(drop)
        };
        if let Ok(Err(error)) = tokio::time::timeout(REQUEST, released).await {
            tracing::warn!(error = api::short(&error), "leadership was not handed over");
        }
    }

    /// Takes or renews the Lease; whether it is ours then.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            let lease = self.written(None);
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        match self.judge(&lease, Instant::now()) {
            Verdict::Leave => Ok(false),
            Verdict::Take => {
                let lease = self.written(Some(lease));
                won(self
                    .leases
                    .replace(NAME, &PostParams::default(), &lease)
                    .await)
            }
        }
    }

    fn judge(&mut self, lease: &Lease, now: Instant) -> Verdict {
        let version = lease.metadata.resource_version.clone();
        let at = match &self.seen {
            Some(seen) if seen.version == version => seen.at,
            _ => now,
        };
        self.seen = Some(Seen { version, at });
        let spec = lease.spec.as_ref();
        let seconds = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DURATION, Duration::from_secs);
        match spec.and_then(|spec| spec.holder_identity.as_deref()) {
            None | Some("") => Verdict::Take,
            Some(holder) if holder == self.identity => Verdict::Take,
            Some(_) if now.duration_since(at) > seconds => Verdict::Take,
            Some(_) => Verdict::Leave,
        }
    }

    fn written(&self, before: Option<Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = before.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let before = lease.spec.take().unwrap_or_default();
        let continued = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if continued {
                before.acquire_time
            } else {
                Some(now.clone())
            },
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(!continued))),
            ..LeaseSpec::default()
        });
        lease
    }
}

/// Whoever writes first has it: the other one's version is out of date then.
fn won(written: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if api::meaning(&error) == api::Meaning::Stale => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(holder: &str, version: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": NAME, "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 20},
        }))
        .unwrap()
    }

    fn leadership() -> Leadership {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Leadership::new(Client::try_from(config).unwrap(), "n", "me".to_owned())
    }

    #[tokio::test]
    async fn another_ones_lease_is_free_when_it_has_not_changed_for_its_duration() {
        let mut leadership = leadership();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(
            leadership.judge(&lease("other", "1"), at(0)),
            Verdict::Leave
        );
        assert_eq!(
            leadership.judge(&lease("other", "1"), at(19)),
            Verdict::Leave
        );
        assert_eq!(
            leadership.judge(&lease("other", "2"), at(30)),
            Verdict::Leave,
            "renewed"
        );
        assert_eq!(
            leadership.judge(&lease("other", "2"), at(51)),
            Verdict::Take
        );
    }

    #[tokio::test]
    async fn ones_own_and_nobodys_lease_are_taken_at_once() {
        let mut leadership = leadership();
        let now = Instant::now();
        assert_eq!(leadership.judge(&lease("me", "1"), now), Verdict::Take);
        assert_eq!(leadership.judge(&lease("", "2"), now), Verdict::Take);
    }

    #[tokio::test]
    async fn transitions_count_changes_of_the_holder() {
        let leadership = leadership();
        let transitions = |lease: &Lease| lease.spec.as_ref().unwrap().lease_transitions;
        let taken = leadership.written(Some(lease("other", "1")));
        assert_eq!(transitions(&taken), Some(1));
        let renewed = leadership.written(Some(taken));
        assert_eq!(transitions(&renewed), Some(1));
    }
}
