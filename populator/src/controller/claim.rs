//! A PVC as far as a restore is concerned, and which of its wishes cannot be met.

use std::collections::BTreeMap;

use crds::restore_order::VolumeMode;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;

use super::milestone::PROGRESS;
use super::refusal::Refusal;
use crate::units;

/// Set by the scheduler on a PVC of a WaitForFirstConsumer class, once it has chosen a node.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Set by people on a PVC whose restore has failed for good, to another value each time.
pub const RETRY: &str = "backup.example.com/retry";

/// Set by people on a PVC: how urgent its restore is among those of its namespace on a node, 0 by default.
pub const PRIORITY: &str = "backup.example.com/priority";

/// A PVC whose data source is a VolumeBackup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The version that was seen, as a precondition for changes.
    pub resource_version: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The VolumeBackup that it names.
    pub backup: String,
    /// The namespace of that.
    pub backup_namespace: String,
    /// Whether it wants a file system or a device.
    pub volume_mode: VolumeMode,
    /// Its StorageClass.
    pub class: Option<String>,
    /// The PersistentVolume that Kubernetes gave it.
    pub volume: Option<String>,
    /// Whether Kubernetes has finished binding it.
    pub bound: bool,
    /// The scheduler's choice.
    pub selected_node: Option<String>,
    /// Bytes asked for.
    pub required_bytes: u64,
    /// Bytes allowed at most, where the PVC says so.
    pub limit_bytes: Option<u64>,
    /// As Kubernetes names them.
    pub access_modes: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation by which a person asks for another try.
    pub retry: Option<String>,
    /// How urgent it is among those of its namespace.
    pub priority: i64,
    /// How far the PVC itself says that the restore is.
    pub progress: Option<String>,
    /// A wish that this program cannot meet.
    pub refusal: Option<Refusal>,
}

/// Whether `claim` is to be filled from a VolumeBackup.
pub fn is_ours(claim: &PersistentVolumeClaim) -> bool {
    claim
        .spec
        .as_ref()
        .and_then(|spec| spec.data_source_ref.as_ref())
        .is_some_and(|source| {
            source.api_group.as_deref() == Some(crds::GROUP) && source.kind == "VolumeBackup"
        })
}

/// The namespace of what `claim` is to be made from, where that is not its own.
pub fn other_namespace(claim: &PersistentVolumeClaim) -> Option<&str> {
    let source = claim.spec.as_ref()?.data_source_ref.as_ref()?;
    let named = source.namespace.as_deref()?;
    let is_own = claim.metadata.namespace.as_deref() == Some(named);
    (!named.is_empty() && !is_own).then_some(named)
}

impl Claim {
    /// Reads a PVC; `None` where it is not to be filled from a VolumeBackup.
    pub fn read(claim: &PersistentVolumeClaim) -> Option<Self> {
        if !is_ours(claim) {
            return None;
        }
        let spec = claim.spec.as_ref()?;
        let source = spec.data_source_ref.as_ref()?;
        let quantity = |of: Option<&BTreeMap<String, _>>| {
            of.and_then(|map| map.get("storage")).map(
                |quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity| {
                    units::quantity(&quantity.0)
                },
            )
        };
        let resources = spec.resources.as_ref();
        let required = quantity(resources.and_then(|resources| resources.requests.as_ref()));
        let limit = quantity(resources.and_then(|resources| resources.limits.as_ref()));
        let priority = claim.annotations().get(PRIORITY);
        let priority = priority.map(|text| text.parse::<i64>().map_err(|_| text.clone()));
        let refusal = if spec.selector.is_some() {
            Some(Refusal::Selector)
        } else if spec.volume_attributes_class_name.is_some() {
            Some(Refusal::AttributesClass)
        } else if !matches!(required, Some(Some(1..))) || limit == Some(None) {
            Some(Refusal::Size)
        } else if let Some(Err(value)) = &priority {
            let value = value.clone();
            Some(Refusal::Priority { value })
        } else {
            None
        };
        let namespace = claim.namespace()?;
        let backup_namespace = other_namespace(claim).unwrap_or(&namespace).to_owned();
        Some(Self {
            namespace,
            name: claim.name_any(),
            uid: claim.uid()?,
            resource_version: claim.resource_version(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            backup: source.name.clone(),
            backup_namespace,
            volume_mode: match spec.volume_mode.as_deref() {
                Some("Block") => VolumeMode::Block,
                _ => VolumeMode::Filesystem,
            },
            class: spec
                .storage_class_name
                .clone()
                .filter(|class| !class.is_empty()),
            volume: spec.volume_name.clone().filter(|name| !name.is_empty()),
            bound: claim
                .status
                .as_ref()
                .is_some_and(|status| status.phase.as_deref() == Some("Bound")),
            selected_node: claim
                .annotations()
                .get(SELECTED_NODE)
                .filter(|node| !node.is_empty())
                .cloned(),
            required_bytes: required.flatten().unwrap_or(0),
            limit_bytes: limit.flatten(),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            labels: claim.labels().clone(),
            retry: claim.annotations().get(RETRY).cloned(),
            priority: priority.and_then(Result::ok).unwrap_or(0),
            progress: claim.annotations().get(PROGRESS).cloned(),
            refusal,
        })
    }

    /// Whether its VolumeBackup is of another namespace.
    pub fn is_crossing(&self) -> bool {
        self.backup_namespace != self.namespace
    }

    /// Its VolumeBackup, as people are told of it.
    pub fn backup_told(&self) -> String {
        if self.is_crossing() {
            format!("{}/{}", self.backup_namespace, self.backup)
        } else {
            self.backup.clone()
        }
    }

    /// The name of its volume in CSI, of its PersistentVolume, and of its order, all as
    /// external-provisioner would name the first two.
    pub fn volume_name(&self) -> String {
        volume_name(&self.uid)
    }
}

/// `pvc-<uid>`.
pub fn volume_name(uid: &str) -> String {
    format!("pvc-{uid}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn example() -> serde_json::Value {
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "restored-database", "namespace": "default", "uid": "u1",
                "resourceVersion": "7",
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "50Gi"}},
                "storageClassName": "fast-csi-storage",
                "volumeMode": "Filesystem",
                "dataSourceRef": {
                    "apiGroup": "backup.example.com",
                    "kind": "VolumeBackup",
                    "name": "database-backup-v1",
                },
            },
        })
    }

    fn read(change: impl FnOnce(&mut serde_json::Value)) -> Option<Claim> {
        let mut value = example();
        change(&mut value);
        Claim::read(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn the_example_is_ours() {
        let claim = read(|_| ()).unwrap();
        assert_eq!(claim.refusal, None);
        assert_eq!(claim.required_bytes, 50 << 30);
        assert_eq!(claim.backup, "database-backup-v1");
        assert_eq!(claim.volume_name(), "pvc-u1");
        assert!(!claim.bound && !claim.deleting && claim.volume.is_none());
    }

    #[test]
    fn a_device_is_told_from_a_file_system() {
        assert_eq!(read(|_| ()).unwrap().volume_mode, VolumeMode::Filesystem);
        let device = read(|pvc| pvc["spec"]["volumeMode"] = json!("Block")).unwrap();
        assert_eq!(
            (device.volume_mode, device.refusal),
            (VolumeMode::Block, None)
        );
    }

    #[test]
    fn a_namespace_that_is_named_is_its_own_or_another() {
        let named = |namespace: serde_json::Value| {
            read(|pvc| pvc["spec"]["dataSourceRef"]["namespace"] = namespace).unwrap()
        };
        for own in [json!(null), json!(""), json!("default")] {
            let claim = named(own);
            assert!(!claim.is_crossing());
            assert_eq!(claim.backup_namespace, "default");
            assert_eq!(claim.backup_told(), "database-backup-v1");
        }
        let other = named(json!("other"));
        assert!(other.is_crossing());
        assert_eq!(other.backup_told(), "other/database-backup-v1");
        assert_eq!(
            other.refusal, None,
            "whether it may is not the PVC's matter"
        );
    }

    #[test]
    fn urgency_is_a_number() {
        let urgent = |text: &str| {
            let annotations = json!({PRIORITY: text});
            read(|pvc| pvc["metadata"]["annotations"] = annotations).unwrap()
        };
        assert_eq!((urgent("-7").priority, urgent("-7").refusal), (-7, None));
        assert!(matches!(
            urgent("high").refusal,
            Some(Refusal::Priority { .. })
        ));
    }

    #[test]
    fn other_sources_are_not() {
        assert!(read(|pvc| pvc["spec"]["dataSourceRef"]["kind"] = json!("Other")).is_none());
        assert!(read(|pvc| pvc["spec"]["dataSourceRef"]["apiGroup"] = json!(null)).is_none());
        assert!(read(|pvc| pvc["spec"]["dataSourceRef"] = json!(null)).is_none());
    }

    #[test]
    fn wishes_that_cannot_be_met() {
        for (path, value, refusal) in [
            (
                "/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                Refusal::Selector,
            ),
            (
                "/spec/volumeAttributesClassName",
                json!("gold"),
                Refusal::AttributesClass,
            ),
            (
                "/spec/resources/requests/storage",
                json!("0"),
                Refusal::Size,
            ),
        ] {
            let claim = read(|pvc| {
                let (parent, key) = path.rsplit_once('/').unwrap();
                pvc.pointer_mut(parent).unwrap()[key] = value;
            });
            assert_eq!(claim.unwrap().refusal, Some(refusal), "{path}");
        }
    }
}
