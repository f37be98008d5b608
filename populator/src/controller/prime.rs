//! The prime way: the driver's own provisioner makes the volume, for a PVC in the populator's namespace, the
//! prime PVC; an agent fills it; then its PersistentVolume is pointed to the user's PVC.
//!
//! What is made for it, and how what others answer is read. All of it carries the label [`CLAIM`], by which
//! it is watched.

use std::collections::BTreeMap;

use crds::restore_order::{MadeVolume, OrderVolume, Prime, Provisioned, RestoreOrder, VolumeMode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Event, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    VolumeResourceRequirements,
};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use sha2::{Digest as _, Sha256};

use super::claim::{Claim, SELECTED_NODE};
use super::context::ClaimKey;
use super::publish::PROVISIONED_BY;
use super::refusal::Refusal;
use crate::units;

/// The label with the UID of the PVC that an object was made for.
pub const CLAIM: &str = "backup.example.com/claim-uid";

/// The annotations with its namespace and name, which labels cannot hold.
const CLAIM_NAMESPACE: &str = "backup.example.com/claim-namespace";
const CLAIM_NAME: &str = "backup.example.com/claim-name";

/// What kube-controller-manager writes on a PersistentVolume that it has found for a PVC.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// How a driver wants its volumes used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverWishes {
    /// What can be done for it.
    pub prime: Prime,
    /// What only kubelet can do for it.
    pub unmet: Option<&'static str>,
}

impl DriverWishes {
    /// Reads a CSIDriver object. Without one, volumes are attached (CSIDriverSpec, `attachRequired`).
    pub fn read(driver: Option<&CSIDriver>) -> Self {
        let spec = driver.map(|driver| &driver.spec);
        let tokens = spec.and_then(|spec| spec.token_requests.as_ref());
        let republish = spec.and_then(|spec| spec.requires_republish);
        let unmet = if tokens.is_some_and(|tokens| !tokens.is_empty()) {
            Some("service account tokens (tokenRequests)")
        } else if republish == Some(true) {
            Some("to be called again and again (requiresRepublish)")
        } else {
            None
        };
        Self {
            prime: Prime {
                attach_required: spec.and_then(|it| it.attach_required).unwrap_or(true),
                pod_info_on_mount: spec.and_then(|it| it.pod_info_on_mount).unwrap_or(false),
            },
            unmet,
        }
    }

    /// What speaks against restores into its volumes.
    pub fn refusal(&self, driver: &str) -> Option<Refusal> {
        self.unmet.map(|wish| Refusal::DriverWishes {
            driver: driver.to_owned(),
            wish,
        })
    }
}

/// The one that counts, of several attachments: what is still on its way out must be waited for.
pub fn foremost(attachments: impl IntoIterator<Item = Attachment>) -> Option<Attachment> {
    attachments.into_iter().max_by_key(|it| it.deleting)
}

/// What is known of what was made for one restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The prime PVC.
    pub claim: Option<PrimeClaim>,
    /// Its volume's attachment to the node.
    pub attachment: Option<Attachment>,
    /// Whether the API server has just said so: what a watch does not show may exist all the same.
    pub live: bool,
    /// What the provisioner last complained of.
    pub complaint: Option<String>,
    /// What it made, once that was looked at.
    pub provisioned: Option<Result<Provisioned, Unfit>>,
}

/// A prime PVC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimeClaim {
    /// Its UID.
    pub uid: String,
    /// The UID of the order that it was made for.
    pub order: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the volume that it had is gone.
    pub lost: bool,
    /// The PersistentVolume that Kubernetes has bound it to.
    pub volume: Option<String>,
    /// The node that its volume is made for, unless the provisioner has found no room there.
    pub selected_node: Option<String>,
}

/// A VolumeAttachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The PersistentVolume that it is of.
    pub volume: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the volume is attached.
    pub attached: bool,
    /// What the attacher last failed for.
    pub error: Option<String>,
    /// What the driver answered.
    pub publish_context: BTreeMap<String, String>,
}

/// Why a volume that was provisioned cannot be filled.
#[derive(thiserror::Error, strum::EnumDiscriminants, Debug, Clone, PartialEq, Eq)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum Unfit {
    /// Nobody has made it for this.
    #[error(
        "it was there before, and what is in it is left alone; see that no PersistentVolume without a \
         claim fits the PVC"
    )]
    Found,
    /// No volume of CSI, or of another driver.
    #[error("it is not a volume of the CSI driver of its StorageClass; use another StorageClass")]
    OtherDriver,
    /// It is mounted with Secrets.
    #[error(
        "its driver wants Secrets on the node, where the populator keeps none; use a StorageClass \
         without csi.storage.k8s.io/node-stage-secret-name and node-publish-secret-name"
    )]
    Secrets,
}

/// The name of the prime PVC for the PVC of this UID.
pub fn name(uid: &str) -> String {
    format!("prime-{uid}")
}

/// Whom something made for a restore concerns.
pub fn concerned(metadata: &ObjectMeta) -> Option<ClaimKey> {
    let uid = metadata.labels.as_ref()?.get(CLAIM)?;
    let annotations = metadata.annotations.as_ref()?;
    Some(ClaimKey {
        namespace: annotations.get(CLAIM_NAMESPACE)?.clone(),
        name: annotations.get(CLAIM_NAME)?.clone(),
        uid: uid.clone(),
    })
}

/// The prime PVC of an order: as the user's, in the order's namespace, for the order's node. It goes with
/// the order, should that be removed by force.
pub fn claim(order: &RestoreOrder, claim: &Claim) -> PersistentVolumeClaim {
    let volume = &order.spec.volume;
    let storage = |bytes: u64| [("storage".to_owned(), Quantity(units::to_quantity(bytes)))];
    let mut metadata = made_for(order);
    metadata.name = Some(name(&order.spec.claim.uid));
    metadata.namespace = order.namespace();
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in &claim.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    metadata
        .annotations
        .get_or_insert_default()
        .insert(SELECTED_NODE.to_owned(), order.spec.node_name.clone());
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: RestoreOrder::api_version(&()).into_owned(),
        kind: RestoreOrder::kind(&()).into_owned(),
        name: order.name_any(),
        uid: order.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    }]);
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(writable(volume)),
            resources: Some(VolumeResourceRequirements {
                requests: Some(storage(claim.required_bytes).into()),
                limits: claim.limit_bytes.map(|limit| storage(limit).into()),
            }),
            storage_class_name: claim.class.clone(),
            volume_mode: Some(
                match volume.volume_mode {
                    VolumeMode::Filesystem => "Filesystem",
                    VolumeMode::Block => "Block",
                }
                .to_owned(),
            ),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The user's access modes, or one by which the volume can be filled. Both together external-attacher
/// refuses; the PersistentVolume gets the user's when it is handed over.
fn writable(volume: &OrderVolume) -> Vec<String> {
    if volume
        .access_modes
        .iter()
        .all(|mode| mode == "ReadOnlyMany")
    {
        return vec!["ReadWriteOnce".to_owned()];
    }
    volume.access_modes.clone()
}

fn made_for(order: &RestoreOrder) -> ObjectMeta {
    let claim = &order.spec.claim;
    ObjectMeta {
        labels: Some([(CLAIM.to_owned(), claim.uid.clone())].into()),
        annotations: Some(
            [
                (CLAIM_NAMESPACE.to_owned(), claim.namespace.clone()),
                (CLAIM_NAME.to_owned(), claim.name.clone()),
            ]
            .into(),
        ),
        ..ObjectMeta::default()
    }
}

/// Has the volume attached to the order's node, under the name that kube-controller-manager would give and
/// kubelet looks for.
///
/// Source: kubernetes, `pkg/volume/csi/csi_attacher.go`, `getAttachmentName`.
pub fn attachment(order: &RestoreOrder, provisioned: &Provisioned) -> VolumeAttachment {
    let (driver, node) = (&order.spec.volume.driver, &order.spec.node_name);
    let digest = Sha256::digest(format!("{}{driver}{node}", provisioned.volume.handle));
    let mut metadata = made_for(order);
    metadata.name = Some(format!("csi-{}", hex::encode(digest)));
    VolumeAttachment {
        metadata,
        spec: VolumeAttachmentSpec {
            attacher: driver.clone(),
            node_name: node.clone(),
            source: VolumeAttachmentSource {
                persistent_volume_name: Some(provisioned.persistent_volume_name.clone()),
                ..VolumeAttachmentSource::default()
            },
        },
        status: None,
    }
}

impl PrimeClaim {
    /// Reads a prime PVC.
    pub fn read(claim: &PersistentVolumeClaim) -> Self {
        let phase = claim.status.as_ref().and_then(|it| it.phase.as_deref());
        let owner = claim.owner_references().first();
        let volume = claim.spec.as_ref().and_then(|it| it.volume_name.clone());
        Self {
            uid: claim.uid().unwrap_or_default(),
            order: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            created: claim.creation_timestamp().map(|time| time.0),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            lost: phase == Some("Lost"),
            volume: volume.filter(|_| phase == Some("Bound")),
            selected_node: claim.annotations().get(SELECTED_NODE).cloned(),
        }
    }
}

impl Attachment {
    /// Reads a VolumeAttachment.
    pub fn read(attachment: &VolumeAttachment) -> Self {
        let status = attachment.status.clone().unwrap_or_default();
        let error = status.detach_error.or(status.attach_error);
        Self {
            name: attachment.name_any(),
            uid: attachment.uid().unwrap_or_default(),
            volume: attachment
                .spec
                .source
                .persistent_volume_name
                .clone()
                .unwrap_or_default(),
            created: attachment.creation_timestamp().map(|time| time.0),
            deleting: attachment.metadata.deletion_timestamp.is_some(),
            attached: status.attached,
            error: error.and_then(|error| error.message),
            publish_context: status.attachment_metadata.unwrap_or_default(),
        }
    }
}

/// What a PersistentVolume to which the prime PVC `prime` is bound holds.
pub fn provisioned(
    volume: &PersistentVolume,
    prime: &PrimeClaim,
    order: &OrderVolume,
) -> Result<Provisioned, Unfit> {
    let spec = volume.spec.clone().unwrap_or_default();
    let Some(csi) = spec.csi.filter(|csi| csi.driver == order.driver) else {
        return Err(Unfit::OtherDriver);
    };
    let is_for_prime = spec.claim_ref.and_then(|it| it.uid).as_deref() == Some(&*prime.uid);
    let notes = volume.annotations();
    let is_provisioned = notes.get(PROVISIONED_BY) == Some(&order.driver);
    // A provisioner says beforehand whom a volume is for.
    let was_found = notes.contains_key(BOUND_BY_CONTROLLER)
        || volume.creation_timestamp().map(|time| time.0) < prime.created;
    if !is_for_prime || !is_provisioned || was_found {
        return Err(Unfit::Found);
    }
    if csi.node_stage_secret_ref.is_some() || csi.node_publish_secret_ref.is_some() {
        return Err(Unfit::Secrets);
    }
    let capacity = spec.capacity.as_ref().and_then(|it| it.get("storage"));
    let capacity = capacity.and_then(|quantity| units::quantity(&quantity.0));
    Ok(Provisioned {
        persistent_volume_name: volume.name_any(),
        claim_uid: prime.uid.clone(),
        volume: MadeVolume {
            handle: csi.volume_handle,
            capacity_bytes: i64::try_from(capacity.unwrap_or(0)).unwrap_or(i64::MAX),
            volume_mode: order.volume_mode,
            context: csi.volume_attributes.unwrap_or_default(),
            // From where it can be reached, the PersistentVolume says itself.
            topology: Vec::new(),
        },
        fs_type: csi.fs_type.unwrap_or_default(),
        mount_options: spec.mount_options.unwrap_or_default(),
        attachment_uid: None,
        publish_context: BTreeMap::new(),
    })
}

/// What is said last in Warnings about a prime PVC.
pub fn complaint(events: impl IntoIterator<Item = Event>) -> Option<String> {
    let warnings = events
        .into_iter()
        .filter(|event| event.type_.as_deref() == Some("Warning"));
    let said = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        let one = event.event_time.as_ref().map(|time| time.0);
        last.or(one).or(event
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0))
    };
    warnings.max_by_key(said).and_then(|event| event.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::claim::tests::example;
    use crate::controller::decision::tests::order;
    use serde_json::{Value, json};

    fn volume(change: impl FnOnce(&mut Value)) -> PersistentVolume {
        let mut value = json!({
            "metadata": {
                "name": "pvc-prime", "annotations": {PROVISIONED_BY: "d"},
                "creationTimestamp": "2026-01-01T00:00:01Z",
            },
            "spec": {
                "capacity": {"storage": "1Ki"},
                "claimRef": {"uid": "p1"},
                "mountOptions": ["noatime"],
                "csi": {"driver": "d", "volumeHandle": "h", "fsType": "xfs",
                        "volumeAttributes": {"a": "b"}},
            },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn prime() -> PrimeClaim {
        PrimeClaim {
            uid: "p1".to_owned(),
            order: "o1".to_owned(),
            created: Some("2026-01-01T00:00:01Z".parse().unwrap()),
            deleting: false,
            lost: false,
            volume: Some("pvc-prime".to_owned()),
            selected_node: None,
        }
    }

    #[test]
    fn what_was_provisioned_is_taken_over() {
        let wanted = order(|_| ()).spec.volume;
        let made = provisioned(&volume(|_| ()), &prime(), &wanted).unwrap();
        assert_eq!(made.volume.handle, "h");
        assert_eq!(made.volume.capacity_bytes, 1024);
        assert_eq!(
            (made.fs_type.as_str(), &made.mount_options[..]),
            ("xfs", &["noatime".to_owned()][..])
        );
        for (pointer, value, unfit) in [
            ("/spec/claimRef/uid", json!("other"), Unfit::Found),
            ("/metadata/annotations", json!({}), Unfit::Found),
            (
                "/metadata/annotations",
                json!({PROVISIONED_BY: "d", BOUND_BY_CONTROLLER: "yes"}),
                Unfit::Found,
            ),
            (
                "/metadata/creationTimestamp",
                json!("2026-01-01T00:00:00Z"),
                Unfit::Found,
            ),
            ("/spec/csi/driver", json!("e"), Unfit::OtherDriver),
            ("/spec/csi", Value::Null, Unfit::OtherDriver),
            (
                "/spec/csi/nodeStageSecretRef",
                json!({"name": "s"}),
                Unfit::Secrets,
            ),
        ] {
            let volume = volume(|volume| {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                volume.pointer_mut(parent).unwrap()[key] = value;
            });
            assert_eq!(
                provisioned(&volume, &prime(), &wanted),
                Err(unfit),
                "{pointer}"
            );
        }
    }

    #[test]
    fn the_prime_claim_is_the_users_for_the_node_of_the_order() {
        let mut users = example();
        users["metadata"]["labels"] = json!({"team": "a", CLAIM: "forged"});
        let users = Claim::read(&serde_json::from_value(users).unwrap()).unwrap();
        let order = order(|order| order.spec.volume.access_modes = vec!["ReadOnlyMany".into()]);
        let made = claim(&order, &users);
        assert_eq!(made.name_any(), "prime-u1");
        assert_eq!(made.namespace().as_deref(), Some("populator"));
        assert_eq!(made.labels()["team"], "a");
        assert_eq!(made.labels()[CLAIM], "u1");
        let key = concerned(&made.metadata).unwrap();
        assert_eq!(
            (key.namespace.as_str(), key.uid.as_str()),
            ("default", "u1")
        );
        assert_eq!(PrimeClaim::read(&made).selected_node.as_deref(), Some("n1"));
        let spec = made.spec.unwrap();
        assert_eq!(spec.storage_class_name.as_deref(), Some("fast-csi-storage"));
        assert_eq!(spec.access_modes.unwrap(), ["ReadWriteOnce"]);
        assert_eq!(spec.data_source_ref, None);
    }

    #[test]
    fn attachments_have_the_name_that_kubelet_looks_for() {
        let given = provisioned(&volume(|_| ()), &prime(), &order(|_| ()).spec.volume).unwrap();
        let made = attachment(&order(|_| ()), &given);
        // printf 'hdn1' | sha256sum
        let digest = hex::encode(Sha256::digest(b"hdn1"));
        assert_eq!(made.name_any(), format!("csi-{digest}"));
        assert!(!Attachment::read(&made).attached);
    }

    #[test]
    fn drivers_say_what_they_want() {
        let read = |spec: Value| {
            let driver = json!({"metadata": {"name": "d"}, "spec": spec});
            DriverWishes::read(Some(&serde_json::from_value(driver).unwrap()))
        };
        assert!(DriverWishes::read(None).prime.attach_required);
        let plain = read(json!({"attachRequired": false, "podInfoOnMount": true}));
        assert!(!plain.prime.attach_required && plain.prime.pod_info_on_mount);
        assert_eq!(plain.refusal("d"), None);
        assert!(
            read(json!({"requiresRepublish": true}))
                .refusal("d")
                .is_some()
        );
        let tokens = read(json!({"tokenRequests": [{"audience": "a"}]}));
        assert!(tokens.refusal("d").is_some());
    }

    #[test]
    fn the_last_warning_counts() {
        let event = |kind: &str, time: &str, message: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {}, "type": kind, "message": message,
                "lastTimestamp": time,
            }))
            .unwrap()
        };
        let said = complaint([
            event("Warning", "2026-01-01T00:00:02Z", "no room"),
            event("Warning", "2026-01-01T00:00:01Z", "an older one"),
            event("Normal", "2026-01-01T00:00:03Z", "waiting"),
        ]);
        assert_eq!(said.as_deref(), Some("no room"));
        assert_eq!(complaint([]), None);
    }
}
