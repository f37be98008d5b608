//! VolumeRestore: one PVC being filled, as a person sees it.
//!
//! It lies in the namespace of its PVC and bears the PVC's name. Nothing in it is trusted by the
//! controller, since its namespace's users may write it: what counts is in the RestoreOrder.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::volume_backup::ResolvedArchive;

/// Which PVC is filled from which VolumeBackup. Written by the controller, `paused` apart.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "backup.example.com",
    version = "v1",
    kind = "VolumeRestore",
    plural = "volumerestores",
    shortname = "vr",
    category = "backups",
    namespaced,
    status = "VolumeRestoreStatus",
    derive = "PartialEq",
    doc = "The restore of one PersistentVolumeClaim from a VolumeBackup: how far it is, or why it does not go on. Made by the populator, one for each PVC and of the same name; delete it to have a failed restore tried again.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.progress.percent"),
    printcolumn(name = "Restored", type_ = "string", json_path = ".status.progress.restored"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.progress.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.eta"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(
        name = "Backup",
        type_ = "string",
        json_path = ".spec.volumeBackupName",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.persistentVolumeClaim == oldSelf.spec.persistentVolumeClaim && self.spec.volumeBackupName == oldSelf.spec.volumeBackupName && has(self.spec.volumeBackupNamespace) == has(oldSelf.spec.volumeBackupNamespace) && (!has(self.spec.volumeBackupNamespace) || self.spec.volumeBackupNamespace == oldSelf.spec.volumeBackupNamespace)").message("only spec.paused may change; delete the VolumeRestore to have it made anew")
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRestoreSpec {
    /// The PVC, in this namespace.
    pub persistent_volume_claim: ClaimRef,
    /// The VolumeBackup that the PVC names.
    pub volume_backup_name: String,
    /// Its namespace, where that is not this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_backup_namespace: Option<String>,
    /// Whether it shall not go on for now. What is restored already is kept, as far as the last checkpoint,
    /// and nothing is mounted meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// A PVC by name and UID: one of the same name made later is another.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ClaimRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// How far the restore is.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRestoreStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where it stands.
    #[serde(default)]
    pub phase: Phase,

    /// `Ready`: True once the PVC is bound to complete data; otherwise reason and message say what
    /// it waits for or what failed and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// How the volume comes to be, which in both ways is shown to the PVC only when it is complete. `Direct`:
    /// made and filled by the node's agent. `Prime`: made by the driver's own provisioner, for a PVC of the
    /// populator's, and filled by the node's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,

    /// Why in this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_reason: Option<String>,

    /// The node where the volume lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// The archive, pinned for this PVC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ResolvedArchive>,

    /// What the restore rests on. After a failure for good it is tried again when that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,

    /// When its node began with it, or went on after a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// How many times writing was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i64>,

    /// Live figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,

    /// What was restored, once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RestoreResult>,
}

/// What a restore rests on, as it was when the archive was pinned.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Basis {
    /// The UID of the VolumeBackup.
    pub backup_uid: String,
    /// Its `metadata.generation`.
    pub backup_generation: i64,
    /// The PVC's annotation `backup.example.com/retry`, whatever its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}

impl Basis {
    /// Whether a person has changed something since `before`. What a watch shows late is no change.
    pub fn is_newer_than(&self, before: &Self) -> bool {
        self.backup_uid != before.backup_uid
            || self.backup_generation > before.backup_generation
            || (self.retry.is_some() && self.retry != before.retry)
    }
}

/// Where a restore stands.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Phase {
    /// It waits; the `Ready` condition says for what.
    #[default]
    Pending,
    /// The volume is being made and mounted on its node.
    Provisioning,
    /// The archive is being unpacked into the volume.
    Restoring,
    /// The volume is complete and being handed to Kubernetes.
    Publishing,
    /// The PVC is bound to complete data.
    Completed,
    /// It failed for good; the `Ready` condition says why and what to do.
    Failed,
}

/// Live figures of a restore, for programs and for people.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Share of the archive's stored bytes that were unpacked, 0 to 100.
    pub percent: i64,
    /// Stored bytes unpacked so far.
    pub bytes_read: i64,
    /// Stored bytes in all.
    pub bytes_total: i64,
    /// Bytes written into the volume so far.
    pub bytes_written: i64,
    /// Files, directories and links made so far.
    pub entries: i64,
    /// Bytes written a second, of late.
    pub bytes_per_second: i64,
    /// Seconds left at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// `bytesWritten` for people, for example `1.2 GiB`.
    pub restored: String,
    /// `bytesPerSecond` for people, for example `212 MiB/s`.
    pub rate: String,
    /// `etaSeconds` for people, for example `1m20s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
}

/// What a complete restore did.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResult {
    /// The archive's format, for example `tar.gz`.
    pub format: String,
    /// Entries of any kind that were restored; 0 for the image of a disk.
    pub entries: i64,
    /// Bytes of files written.
    pub bytes_written: i64,
    /// Bytes fetched from the store, over all attempts.
    pub bytes_fetched: i64,
    /// Bytes that were fetched more than once, after attempts that did not come to their end.
    #[serde(default)]
    pub bytes_fetched_again: i64,
    /// Seconds from the first byte fetched to the last byte durable, in the attempt that succeeded.
    pub seconds: i64,
    /// How the data were verified: `Sha256` (of the stored object, which was given), `PerFile`
    /// (digests in an archive that `populator pack` made), `Stream` (the format's own checksums) or
    /// `None`.
    pub verified: String,
    /// The CSI handle of the snapshot that it was made from, where nothing was fetched: the other figures
    /// are those of the restore that the snapshot is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// SHA-256 of the stored object, in hexadecimal.
    #[serde(default)]
    pub sha256: String,
    /// Entries that the VolumeBackup did not choose.
    #[serde(default)]
    pub left_out: i64,
    /// What was left out of entries by choice, one sentence for each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<String>,
    /// What the archive held and could not be restored, one sentence for each kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_restored: Vec<String>,
}
