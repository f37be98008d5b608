//! How an agent says that it lives and what it serves: the contract of agent and controller.
//!
//! Each agent holds the Lease `agent-<node>` in the populator's namespace. It is alive while the
//! Lease is renewed; what it serves stands in the Lease's annotation [`DRIVERS`], what it keeps in
//! [`SNAPSHOTS`], and with what to seal what is for it alone in [`SEALING_KEY`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The annotation with [`Drivers`] as JSON.
pub const DRIVERS: &str = "backup.example.com/drivers";

/// The annotation with [`Snapshots`] as JSON.
pub const SNAPSHOTS: &str = "backup.example.com/snapshots";

/// The annotation with the public half of the agent's key, see [`crate::seal`].
pub const SEALING_KEY: &str = "backup.example.com/sealing-key";

/// The label that every agent's Lease carries, with [`AGENT`] as its value.
pub const COMPONENT: &str = "backup.example.com/component";

/// The value of [`COMPONENT`] on agents' Leases.
pub const AGENT: &str = "agent";

/// For how long a renewal counts, in seconds: `spec.leaseDurationSeconds`.
pub const DURATION_SECONDS: i32 = 40;

/// How often an agent renews, in seconds.
pub const RENEW_SECONDS: u64 = 10;

/// The name of a node's Lease.
pub fn name(node: &str) -> String {
    format!("agent-{node}")
}

/// CSI driver name to what this node can still make of it.
pub type Drivers = BTreeMap<String, Room>;

/// What a driver says that it can make (CSI GetCapacity).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// Whether it makes volumes at its socket on the node. Agents that do not say so list no others.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub makes_volumes: bool,
    /// Bytes that new volumes may take in all.
    pub available_bytes: i64,
    /// Bytes that one new volume may have at most, where the driver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_volume_bytes: Option<i64>,
}

/// Snapshots from which volumes can be made on this node, those that are there for longest first.
pub type Snapshots = Vec<Snapshot>;

/// What is kept of a volume that was filled.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// What is in it.
    pub content: String,
    /// The VolumeBackup that it is of, `NAMESPACE/NAME`.
    pub backup: String,
    /// Bytes of the smallest volume that can be made from it.
    pub size_bytes: i64,
    /// When it goes.
    pub expires: Timestamp,
}

fn yes() -> bool {
    true
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_true(value: &bool) -> bool {
    *value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_reads_as_agreed() {
        let drivers: Drivers = serde_json::from_str(
            r#"{"fastcopy.csi.example.com": {"availableBytes": 10, "maximumVolumeBytes": 5}, "other": {"availableBytes": 1}}"#,
        )
        .unwrap();
        assert_eq!(drivers["other"].maximum_volume_bytes, None);
        assert_eq!(drivers["fastcopy.csi.example.com"].available_bytes, 10);
        assert_eq!(
            serde_json::to_string(&drivers["other"]).unwrap(),
            r#"{"availableBytes":1}"#
        );
    }
}
