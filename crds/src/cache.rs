//! Snapshots that nodes keep of restored volumes: what people allow, what an order passes on, and what is
//! told of those that there are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Snapshots that nodes may keep of volumes that were restored, for the next PVCs from the same VolumeBackup.
#[derive(KubeSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// For how many seconds a snapshot is kept.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub time_to_live_seconds: i64,

    /// How many a node keeps of this VolumeBackup; the oldest goes first.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub count: i64,
}

fn one() -> i64 {
    1
}

/// A snapshot that a node keeps.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CachedSnapshot {
    /// The node, where alone it is of use.
    pub node_name: String,
    /// When it is deleted.
    pub expires: Time,
    /// The smallest volume that can be made from it, for people.
    pub human_size: String,
}

/// What a volume will hold when it is complete. Orders of one content on one node share one download, and
/// what is kept of one serves the others.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// SHA-256, in hexadecimal, of the archive's identity and of everything that changes what becomes of it.
    pub key: String,
    /// `NAMESPACE/NAME` of the VolumeBackup.
    pub backup: String,
    /// What may be kept of it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}
