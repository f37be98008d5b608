//! The prime way: the driver's own provisioner makes the volume, for a PVC in the populator's namespace, the
//! prime PVC; an agent fills it; then its PersistentVolume is pointed to the user's PVC.
//!
//! What is made for it, and how what others answer is read. All of it carries the label [`CLAIM`], by which
//! it is watched.

use std::collections::BTreeMap;

use crds::restore_order::{
    MadeVolume, NodeSecrets, OrderVolume, Prime, Provisioned, RestoreOrder, SecretName, VolumeMode,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Event, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, SecretReference, VolumeResourceRequirements,
};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::core::SelectorExt as _;
use kube::{Resource as _, ResourceExt as _};
use sha2::{Digest as _, Sha256};

use super::claim::{Claim, SELECTED_NODE};
use super::context::ClaimKey;
use super::publish::PROVISIONED_BY;
use super::refusal::Refusal;
use super::steering::source;
use crate::units;

/// The label with the UID of the PVC that an object was made for.
pub const CLAIM: &str = "backup.example.com/claim-uid";

/// The annotations with its namespace and name, which labels cannot hold.
const CLAIM_NAMESPACE: &str = "backup.example.com/claim-namespace";
const CLAIM_NAME: &str = "backup.example.com/claim-name";

/// The annotation with the UID of the order that it was made for: an order removed by force may be followed
/// by another of its name.
const ORDER: &str = "backup.example.com/order-uid";

/// What kube-controller-manager writes on a PersistentVolume that it has found for a PVC.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// By how much clocks may differ.
const CLOCKS: SignedDuration = SignedDuration::from_secs(30);

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
    /// Whether the order's node cannot reach that.
    pub elsewhere: bool,
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
    /// The UID of the order that it was made for.
    pub order: String,
    /// The PersistentVolume that it is of.
    pub volume: String,
    /// Since when it is being made, or deleted.
    pub since: Option<Timestamp>,
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
}

/// The name of the prime PVC for the PVC of this UID.
pub fn name(uid: &str) -> String {
    format!("prime-{uid}")
}

/// The UID of the PVC whose prime PVC is called so.
pub fn claim_of(name: &str) -> Option<&str> {
    name.strip_prefix(&self::name(""))
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
    let mut modes = volume.access_modes.clone();
    modes.retain(|mode| mode != "ReadOnlyMany");
    if modes.is_empty() {
        modes.push("ReadWriteOnce".to_owned());
    }
    modes
}

fn made_for(order: &RestoreOrder) -> ObjectMeta {
    let claim = &order.spec.claim;
    ObjectMeta {
        labels: Some([(CLAIM.to_owned(), claim.uid.clone())].into()),
        annotations: Some(
            [
                (CLAIM_NAMESPACE.to_owned(), claim.namespace.clone()),
                (CLAIM_NAME.to_owned(), claim.name.clone()),
                (ORDER.to_owned(), order.uid().unwrap_or_default()),
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
        let deleted = attachment.metadata.deletion_timestamp.clone();
        Self {
            name: attachment.name_any(),
            uid: attachment.uid().unwrap_or_default(),
            order: attachment
                .annotations()
                .get(ORDER)
                .cloned()
                .unwrap_or_default(),
            volume: attachment
                .spec
                .source
                .persistent_volume_name
                .clone()
                .unwrap_or_default(),
            since: deleted
                .or(attachment.creation_timestamp())
                .map(|time| time.0),
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
    if !is_for_prime || !was_made(volume) || is_older(volume, prime) {
        return Err(Unfit::Found);
    }
    let capacity = spec.capacity.as_ref().and_then(|it| it.get("storage"));
    let capacity = capacity.and_then(|quantity| units::quantity(&quantity.0));
    Ok(Provisioned {
        persistent_volume_name: volume.name_any(),
        claim_uid: prime.uid.clone(),
        secrets: node_secrets(&csi),
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

/// The Secrets that a volume is staged and published with, not yet sealed for anybody.
fn node_secrets(csi: &CSIPersistentVolumeSource) -> Option<NodeSecrets> {
    let named = |reference: &Option<SecretReference>| {
        let reference = reference.clone()?;
        Some(SecretName {
            namespace: reference.namespace.unwrap_or_default(),
            name: reference.name.unwrap_or_default(),
        })
    };
    let secrets = NodeSecrets {
        stage: named(&csi.node_stage_secret_ref),
        publish: named(&csi.node_publish_secret_ref),
        sealed: String::new(),
    };
    (secrets != NodeSecrets::default()).then_some(secrets)
}

/// Whether a PersistentVolume was made by its driver's provisioner, for its PVC: a provisioner says beforehand
/// whom a volume is for, and kube-controller-manager writes down that it has found one.
pub fn was_made(volume: &PersistentVolume) -> bool {
    let notes = volume.annotations();
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.is_some_and(|csi| notes.get(PROVISIONED_BY) == Some(&csi.driver))
        && !notes.contains_key(BOUND_BY_CONTROLLER)
}

/// Whether a volume was there before the prime PVC, whatever the difference of the clocks of API servers.
fn is_older(volume: &PersistentVolume, prime: &PrimeClaim) -> bool {
    let made = volume.creation_timestamp().map(|time| time.0);
    made.zip(prime.created)
        .is_some_and(|(made, asked)| made + CLOCKS < asked)
}

/// Whether a PersistentVolume says that it cannot be reached from a node with these labels.
pub fn is_elsewhere(volume: &PersistentVolume, labels: &BTreeMap<String, String>) -> bool {
    let affinity = volume
        .spec
        .as_ref()
        .and_then(|it| it.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|it| it.required.as_ref()) else {
        return false;
    };
    // A term that is not understood may be one that the node fulfils.
    required
        .node_selector_terms
        .iter()
        .all(|term| source::selector(term).is_some_and(|selector| !selector.matches(labels)))
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
mod tests;
