//! RestoreOrder: the work order for one agent, and its answer.
//!
//! It lies in the populator's namespace, where users have no rights: nobody but the controller
//! chooses which volume is made, shown to Kubernetes or deleted. No reader finds credentials in it:
//! URLs are signed for one object, and Secrets sealed for one agent. The controller writes `spec`,
//! the agent of `spec.nodeName` writes `status` (a ValidatingAdmissionPolicy in `deploy/` holds it
//! to that node).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cache::Content;
use crate::restore_options::RestoreOptions;
use crate::volume_backup::ResolvedArchive;
use crate::volume_restore::{Basis, Progress, RestoreResult};

/// The annotation that names the BackupStore in which the archive was found: URLs are renewed from it even when
/// the VolumeBackup is gone.
pub const STORE: &str = "backup.example.com/store";

/// The annotation with the namespace of that BackupStore, where it is not the PVC's: it is the VolumeBackup's.
pub const STORE_NAMESPACE: &str = "backup.example.com/store-namespace";

/// What the agent shall do.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "backup.example.com",
    version = "v1",
    kind = "RestoreOrder",
    plural = "restoreorders",
    shortname = "ro",
    namespaced,
    status = "RestoreOrderStatus",
    selectable = ".spec.nodeName",
    derive = "PartialEq",
    doc = "The populator's own work order for the agent of one node. Do not write it by hand: the VolumeRestore in the PVC's namespace is the object for people.",
    printcolumn(name = "Goal", type_ = "string", json_path = ".spec.goal"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.progress.percent"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".spec.attempt"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claim.namespace"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(
        name = "Failure",
        type_ = "string",
        json_path = ".status.failure.reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.nodeName == oldSelf.spec.nodeName && self.spec.claim == oldSelf.spec.claim && self.spec.volume == oldSelf.spec.volume && self.spec.archive == oldSelf.spec.archive && has(self.spec.prime) == has(oldSelf.spec.prime) && (!has(self.spec.prime) || self.spec.prime == oldSelf.spec.prime) && has(self.spec.options) == has(oldSelf.spec.options) && (!has(self.spec.options) || self.spec.options == oldSelf.spec.options) && has(self.spec.content) == has(oldSelf.spec.content) && (!has(self.spec.content) || self.spec.content == oldSelf.spec.content)")
        .message("claim, nodeName, volume, prime, archive, options and content are fixed; only goal, attempt, paused, access and provisioned may change"),
    validation = Rule::new("!has(self.spec.provisioned) || has(self.spec.prime)").message("provisioned is for orders with prime")
)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOrderSpec {
    /// What shall be reached.
    pub goal: Goal,
    /// Which attempt at filling the volume this is, from 1. Raised by the controller after a
    /// transient failure; the agent begins anew when it differs from `status.attempt`.
    pub attempt: i64,
    /// Whether the agent shall not work on filling the volume for now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How urgent it is among those of its namespace on the node: more before less.
    #[serde(default)]
    pub priority: i64,
    /// The node whose agent does it.
    pub node_name: String,
    /// The PVC that the volume is for.
    pub claim: OrderClaim,
    /// The volume to make.
    pub volume: OrderVolume,
    /// Set where the driver's own provisioner makes the volume, for a prime PVC, and not the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prime: Option<Prime>,
    /// What it made, once the agent may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<Provisioned>,
    /// The archive, pinned.
    pub archive: ResolvedArchive,
    /// How it is restored, as the VolumeBackup had it when the archive was pinned.
    #[serde(default)]
    pub options: RestoreOptions,
    /// What the volume will hold, where another order's may hold the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// What the restore rests on, for the VolumeRestore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// How the agent may read it, for now.
    pub access: SignedAccess,
}

impl RestoreOrderSpec {
    /// Whether the archive shall be the image of a disk.
    pub fn is_of_a_disk(&self) -> bool {
        self.volume.volume_mode == VolumeMode::Block || self.options.image_file.is_some()
    }
}

impl RestoreOrder {
    /// Namespace and name of the BackupStore that it reads from.
    pub fn store(&self) -> (&str, &str) {
        let annotation = |name| {
            let annotations = self.metadata.annotations.as_ref();
            annotations
                .and_then(|all| all.get(name))
                .map(String::as_str)
        };
        let own = self.spec.claim.namespace.as_str();
        let namespace = annotation(STORE_NAMESPACE).unwrap_or(own);
        (namespace, annotation(STORE).unwrap_or_default())
    }
}

/// What an order shall reach. It only ever goes from `Filled` to one of the others; from
/// `Published` to `Deleted` only after a live look has shown that no PV was made.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Goal {
    /// A volume with the archive's data in it, complete, durable and mounted nowhere.
    Filled,
    /// The volume is Kubernetes' own now, or about to be: nothing here may delete it.
    Published,
    /// No volume, no mount, nothing left on the node.
    Deleted,
}

/// The PVC that an order serves.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct OrderClaim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The volume to make, as CreateVolume wants it (CSI 1.13).
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OrderVolume {
    /// The CSI driver.
    pub driver: String,
    /// The volume's CSI name, `pvc-<uid>` as external-provisioner would give.
    pub name: String,
    /// Bytes required at least.
    pub required_bytes: i64,
    /// Bytes allowed at most; 0 for no limit.
    #[serde(default)]
    pub limit_bytes: i64,
    /// Whether it has a file system, or is a raw block device that holds the image of a disk.
    #[serde(default)]
    pub volume_mode: VolumeMode,
    /// File system, empty for the driver's default.
    #[serde(default)]
    pub fs_type: String,
    /// Mount options of the StorageClass.
    #[serde(default)]
    pub mount_options: Vec<String>,
    /// The PVC's access modes, as Kubernetes names them.
    pub access_modes: Vec<String>,
    /// The StorageClass's parameters, without the `csi.storage.k8s.io/` ones that are for sidecars.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// How a driver wants its volumes used, as its CSIDriver object says.
#[derive(KubeSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Prime {
    /// Whether they are attached to a node first.
    pub attach_required: bool,
    /// Whether it wants to know of the pod that uses them: of the agent's own, that is.
    pub pod_info_on_mount: bool,
}

/// A volume that a driver's own provisioner has made, as its PersistentVolume says.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Provisioned {
    /// The PersistentVolume.
    pub persistent_volume_name: String,
    /// The UID of the prime PVC that it was made for.
    pub claim_uid: String,
    /// The volume.
    pub volume: MadeVolume,
    /// Its file system, empty for the driver's default.
    #[serde(default)]
    pub fs_type: String,
    /// Its mount options.
    #[serde(default)]
    pub mount_options: Vec<String>,
    /// The UID of the VolumeAttachment by which it is attached, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment_uid: Option<String>,
    /// What attaching it answered (CSI `publish_context`).
    #[serde(default)]
    pub publish_context: BTreeMap<String, String>,
    /// The Secrets that its driver wants on the node, if it wants any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<NodeSecrets>,
}

/// The Secrets for a driver's calls on a node.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeSecrets {
    /// The one for NodeStageVolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<SecretName>,
    /// The one for NodePublishVolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<SecretName>,
    /// What is in them, encrypted for the node's agent alone (age-encryption.org/v1, in base64).
    #[serde(default)]
    pub sealed: String,
}

/// A Secret.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct SecretName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a volume is, as Kubernetes names it.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum VolumeMode {
    /// It is mounted: archives of files go into it.
    #[default]
    Filesystem,
    /// It is a device: images of disks go onto it.
    Block,
}

/// What reads one object for a while, without credentials.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SignedAccess {
    /// The signed URL, read with `Range` and `If-Match`; or of a file, where it lies under the
    /// administrator's directory.
    pub url: String,
    /// When it was signed: at half of its life the controller puts another one here.
    pub signed: Time,
    /// When it stops working.
    pub expires: Time,
    /// Certificates in PEM by which the server is trusted, in place of the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// The most that the node may read from the store, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
}

/// What the agent has reached.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOrderStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the agent is.
    #[serde(default)]
    pub state: State,
    /// The attempt that this status speaks of.
    #[serde(default)]
    pub attempt: i64,
    /// The volume, from the moment that CreateVolume has answered until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<MadeVolume>,
    /// Live figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Bytes fetched from the store over all attempts.
    #[serde(default)]
    pub bytes_fetched: i64,
    /// What was restored, with state `Filled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RestoreResult>,
    /// What went wrong in this attempt, with state `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Where the agent is with an order.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum State {
    /// Not begun.
    #[default]
    Waiting,
    /// The volume is being made, staged and published.
    Provisioning,
    /// The archive is being unpacked.
    Restoring,
    /// Complete, durable, and mounted nowhere.
    Filled,
    /// This attempt failed; `failure` says why. The volume may still exist.
    Failed,
    /// Nothing of the volume is left on the node.
    Deleted,
}

/// A volume that exists.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MadeVolume {
    /// The driver's id for it (CSI `volume_id`, a PV's `volumeHandle`).
    pub handle: String,
    /// Its size in bytes.
    pub capacity_bytes: i64,
    /// What it was made as. An agent that does not know of block volumes says nothing here.
    #[serde(default)]
    pub volume_mode: VolumeMode,
    /// CSI `volume_context`, a PV's `volumeAttributes`.
    #[serde(default)]
    pub context: BTreeMap<String, String>,
    /// From where it can be reached (CSI `accessible_topology`), each a set of segments.
    #[serde(default)]
    pub topology: Vec<BTreeMap<String, String>>,
}

/// Why an attempt failed.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Failure {
    /// One word in CamelCase.
    pub reason: String,
    /// One sentence that says what happened and what to do.
    pub message: String,
    /// What may cure it.
    pub cure: Cure,
}

/// What may cure a failure.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Cure {
    /// Nothing but a change by a person.
    #[default]
    Person,
    /// Trying again later.
    Time,
    /// Another node: this one has no room.
    OtherNode,
}
