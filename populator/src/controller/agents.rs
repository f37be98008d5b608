//! The agents that are alive, what they serve, and which of them has room.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

use super::cached;
use crate::lease::{self, Drivers};

/// The agents with a Lease, by node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agents(BTreeMap<String, Agent>);

/// One agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Whether its Lease was renewed in time.
    pub alive: bool,
    /// What it serves.
    pub drivers: Drivers,
    /// What it keeps, which may be much, and is read when it matters.
    lease: Arc<Lease>,
}

impl Agents {
    /// Reads the Leases of the populator's namespace, as of `now`.
    pub fn read(leases: impl IntoIterator<Item = Arc<Lease>>, now: Timestamp) -> Self {
        Self(
            leases
                .into_iter()
                .filter_map(|lease| Some((cached::node(&lease)?, Agent::read(lease, now))))
                .collect(),
        )
    }

    /// Whether the agent of `node` is alive.
    pub fn is_alive(&self, node: &str) -> bool {
        self.0.get(node).is_some_and(|agent| agent.alive)
    }

    /// Whether the agent of `node` is alive and serves `driver`.
    pub fn serves(&self, node: &str, driver: &str) -> bool {
        self.0
            .get(node)
            .is_some_and(|agent| agent.alive && agent.drivers.contains_key(driver))
    }

    /// Whether the agent of `node` is alive, and `driver` makes volumes there.
    pub fn makes(&self, node: &str, driver: &str) -> bool {
        let agent = self.0.get(node).filter(|agent| agent.alive);
        let room = agent.and_then(|agent| agent.drivers.get(driver));
        room.is_some_and(|room| room.makes_volumes)
    }

    /// With what to seal what is for the agent of `node` alone.
    pub fn sealing_key(&self, node: &str) -> Option<&str> {
        let notes = self.0.get(node)?.lease.annotations();
        notes.get(lease::SEALING_KEY).map(String::as_str)
    }

    /// Whether any agent alive serves `driver`.
    pub fn any_serves(&self, driver: &str) -> bool {
        self.0.keys().any(|node| self.serves(node, driver))
    }

    /// One of the nodes that serve `driver` and pass `allowed`: for different `seeds`, different ones.
    pub fn any_of(&self, driver: &str, seed: &str, allowed: impl Fn(&str) -> bool) -> Option<&str> {
        let serving = self.0.keys().map(String::as_str);
        let serving: Vec<_> = serving
            .filter(|node| self.serves(node, driver) && allowed(node))
            .collect();
        let sum: usize = seed.bytes().map(usize::from).sum();
        serving.get(sum.checked_rem(serving.len())?).copied()
    }

    /// A node that keeps this, of those that can make a volume of it and pass `allowed`.
    pub fn keeping(
        &self,
        driver: &str,
        kept: Kept<'_>,
        allowed: impl Fn(&str) -> bool,
    ) -> Option<&str> {
        let keeps = |node: &str| self.0.get(node).is_some_and(|agent| agent.keeps(kept));
        self.roomiest(driver, kept.required, |node| keeps(node) && allowed(node))
    }

    /// The node with the most room for `driver`, of those that can make a volume of `required`
    /// bytes and pass `allowed`.
    pub fn roomiest(
        &self,
        driver: &str,
        required: u64,
        allowed: impl Fn(&str) -> bool,
    ) -> Option<&str> {
        let required = i64::try_from(required).unwrap_or(i64::MAX);
        self.0
            .iter()
            .filter(|(node, agent)| agent.alive && allowed(node))
            .filter_map(|(node, agent)| Some((node, agent.drivers.get(driver)?)))
            .filter(|(_, room)| {
                room.makes_volumes
                    && room.available_bytes >= required
                    && room
                        .maximum_volume_bytes
                        .is_none_or(|most| most >= required)
            })
            .max_by_key(|(_, room)| room.available_bytes)
            .map(|(node, _)| node.as_str())
    }
}

/// What a node must keep to be chosen for it.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// The key of the content.
    pub content: &'a str,
    /// Bytes of the volume.
    pub required: u64,
    /// The time.
    pub now: Timestamp,
}

impl Agent {
    fn keeps(&self, kept: Kept<'_>) -> bool {
        cached::told(&self.lease).iter().any(|it| {
            it.content == kept.content
                && it.expires > kept.now
                && it.size_bytes.unsigned_abs() <= kept.required
        })
    }

    fn read(lease: Arc<Lease>, now: Timestamp) -> Self {
        let alive = lease.spec.as_ref().is_some_and(|spec| {
            let seconds = spec
                .lease_duration_seconds
                .unwrap_or(lease::DURATION_SECONDS);
            spec.holder_identity
                .as_deref()
                .is_some_and(|holder| !holder.is_empty())
                && spec.renew_time.as_ref().is_some_and(|renewed| {
                    now.duration_since(renewed.0) < SignedDuration::from_secs(seconds.into())
                })
        });
        let drivers = lease
            .annotations()
            .get(lease::DRIVERS)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        Self {
            alive,
            drivers,
            lease,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) const NOW: &str = "2026-01-01T00:01:00Z";

    pub(crate) fn agents(list: &[(&str, &str, i64)]) -> Agents {
        let leases = list
            .iter()
            .map(|(node, renewed, available)| {
                let lease: Lease = serde_json::from_value(json!({
                    "metadata": {
                        "name": format!("agent-{node}"),
                        "annotations": {
                            lease::DRIVERS: format!(r#"{{"d": {{"availableBytes": {available}, "maximumVolumeBytes": 100}}}}"#)
                        },
                    },
                    "spec": {
                        "holderIdentity": "pod", "leaseDurationSeconds": 40, "renewTime": renewed,
                    },
                }))
                .unwrap();
                Arc::new(lease)
            });
        Agents::read(leases, NOW.parse().unwrap())
    }

    #[test]
    fn only_agents_alive_count() {
        let agents = agents(&[
            ("a", "2026-01-01T00:00:50.000000Z", 50),
            ("b", "2026-01-01T00:00:10.000000Z", 500),
        ]);
        assert!(agents.serves("a", "d") && !agents.serves("a", "other"));
        assert!(!agents.is_alive("b") && !agents.serves("b", "d") && !agents.is_alive("c"));
        assert!(agents.any_serves("d") && !agents.any_serves("other"));
    }

    #[test]
    fn the_roomiest_is_chosen() {
        let renewed = "2026-01-01T00:00:50.000000Z";
        let agents = agents(&[("a", renewed, 50), ("b", renewed, 70), ("c", renewed, 9)]);
        assert_eq!(agents.roomiest("d", 10, |_| true), Some("b"));
        assert_eq!(agents.roomiest("d", 10, |node| node != "b"), Some("a"));
        assert_eq!(agents.roomiest("d", 80, |_| true), None);
        assert_eq!(
            agents.roomiest("d", 101, |_| true),
            None,
            "above the most for one volume"
        );
        assert_eq!(agents.roomiest("other", 1, |_| true), None);
        let any = |seed| agents.any_of("d", seed, |node| node != "b");
        assert_eq!([any("a"), any("b")].map(Option::unwrap), ["c", "a"]);
        assert_eq!(agents.any_of("other", "a", |_| true), None);
    }
}
