//! Building the PersistentVolume by which Kubernetes gets a complete volume.

use crds::restore_order::{MadeVolume, Provisioned, RestoreOrder, VolumeMode};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    ObjectReference, PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use super::order::RECLAIM_POLICY;
use crate::units;

/// By this annotation external-provisioner knows the volumes that it is to delete.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// By this finalizer external-provisioner keeps the object until the volume is deleted.
const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// Tells people where the data came from.
const RESTORED_FROM: &str = "backup.example.com/restored-from";

/// The UID of the PVC that it was restored for, on a PersistentVolume that the driver's own provisioner made.
const RESTORED_FOR: &str = "backup.example.com/restored-for";

/// The change that points a PersistentVolume, as it was seen, to the order's PVC (RFC 7396).
pub fn rebinding(order: &RestoreOrder, volume: &PersistentVolume) -> serde_json::Value {
    let claim = &order.spec.claim;
    serde_json::json!({
        "metadata": {
            "uid": volume.metadata.uid,
            "resourceVersion": volume.metadata.resource_version,
            "annotations": {
                RESTORED_FROM: order.spec.archive.url,
                RESTORED_FOR: claim.uid,
            },
        },
        "spec": { "accessModes": order.spec.volume.access_modes, "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace,
            "name": claim.name,
            "uid": claim.uid,
            "resourceVersion": null,
        }},
    })
}

/// The change of what becomes of a PersistentVolume, as it was seen, when its PVC goes (RFC 7396).
pub fn reclaiming(volume: &PersistentVolume, policy: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": {
            "uid": volume.metadata.uid,
            "resourceVersion": volume.metadata.resource_version,
        },
        "spec": { "persistentVolumeReclaimPolicy": policy },
    })
}

/// Whether a PersistentVolume is the one that was filled, and nobody's but the prime PVC's, or the user's
/// already.
pub fn can_be_handed_over(
    order: &RestoreOrder,
    given: &Provisioned,
    volume: &PersistentVolume,
) -> bool {
    let spec = volume.spec.as_ref();
    let phase = volume.status.as_ref().and_then(|it| it.phase.as_deref());
    let claim = spec.and_then(|it| it.claim_ref.as_ref()?.uid.as_ref());
    let is_the_one = spec.and_then(|it| it.csi.as_ref()).is_some_and(|csi| {
        csi.driver == order.spec.volume.driver && csi.volume_handle == given.volume.handle
    });
    let is_primes =
        claim == Some(&given.claim_uid) && !matches!(phase, Some("Released" | "Failed"));
    is_the_one
        && volume.metadata.deletion_timestamp.is_none()
        && (is_primes || claim == Some(&order.spec.claim.uid))
}

/// Whether a PersistentVolume was ever complete, and handed over.
pub fn is_restored(volume: &PersistentVolume) -> bool {
    let notes = volume.annotations();
    notes.contains_key(RESTORED_FOR) || notes.contains_key(RESTORED_FROM)
}

/// Whether a PersistentVolume was pointed to this PVC once it was complete.
pub fn is_restored_for(claim: &str, volume: &PersistentVolume) -> bool {
    volume.annotations().get(RESTORED_FOR).map(String::as_str) == Some(claim)
}

/// The PersistentVolume for the order's volume, bound beforehand to the order's PVC by UID, just as
/// external-provisioner would have made it.
pub fn build(order: &RestoreOrder, class: Option<&str>, made: &MadeVolume) -> PersistentVolume {
    let spec = &order.spec;
    let volume = &spec.volume;
    let capacity = match made.capacity_bytes {
        0 => volume.required_bytes,
        capacity => capacity,
    };
    let capacity = units::to_quantity(u64::try_from(capacity).unwrap_or(0));
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume.name.clone()),
            annotations: Some(
                [
                    (PROVISIONED_BY.to_owned(), volume.driver.clone()),
                    (RESTORED_FROM.to_owned(), spec.archive.url.clone()),
                ]
                .into(),
            ),
            finalizers: Some(vec![PROVISIONER_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: Some([("storage".to_owned(), Quantity(capacity))].into()),
            access_modes: Some(volume.access_modes.clone()),
            volume_mode: Some(
                match volume.volume_mode {
                    VolumeMode::Filesystem => "Filesystem",
                    VolumeMode::Block => "Block",
                }
                .to_owned(),
            ),
            storage_class_name: class.map(ToOwned::to_owned),
            mount_options: (!volume.mount_options.is_empty()).then(|| volume.mount_options.clone()),
            persistent_volume_reclaim_policy: Some(
                order
                    .annotations()
                    .get(RECLAIM_POLICY)
                    .cloned()
                    .unwrap_or_else(|| "Delete".to_owned()),
            ),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: Some(spec.claim.namespace.clone()),
                name: Some(spec.claim.name.clone()),
                uid: Some(spec.claim.uid.clone()),
                ..ObjectReference::default()
            }),
            csi: Some(CSIPersistentVolumeSource {
                driver: volume.driver.clone(),
                volume_handle: made.handle.clone(),
                fs_type: (!volume.fs_type.is_empty()).then(|| volume.fs_type.clone()),
                volume_attributes: (!made.context.is_empty()).then(|| made.context.clone()),
                ..CSIPersistentVolumeSource::default()
            }),
            node_affinity: affinity(made),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// One term for each topology: the volume can be used where any of them holds in full.
fn affinity(made: &MadeVolume) -> Option<VolumeNodeAffinity> {
    let terms: Vec<NodeSelectorTerm> = made
        .topology
        .iter()
        .filter(|segments| !segments.is_empty())
        .map(|segments| NodeSelectorTerm {
            match_expressions: Some(
                segments
                    .iter()
                    .map(|(key, value)| NodeSelectorRequirement {
                        key: key.clone(),
                        operator: "In".to_owned(),
                        values: Some(vec![value.clone()]),
                    })
                    .collect(),
            ),
            match_fields: None,
        })
        .collect();
    (!terms.is_empty()).then_some(VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: terms,
        }),
    })
}

/// Whether a PersistentVolume that exists holds the volume of this order, for its PVC.
pub fn is_of(order: &RestoreOrder, existing: &PersistentVolume) -> bool {
    let Some(spec) = &existing.spec else {
        return false;
    };
    let given = order.spec.provisioned.as_ref().map(|given| &given.volume);
    let reported = order
        .status
        .as_ref()
        .and_then(|status| status.volume.as_ref());
    let handle = given.or(reported).map(|made| made.handle.as_str());
    let holds_it = spec.csi.as_ref().is_some_and(|csi| {
        csi.driver == order.spec.volume.driver && Some(csi.volume_handle.as_str()) == handle
    });
    let for_claim = spec
        .claim_ref
        .as_ref()
        .is_some_and(|claim| claim.uid.as_deref() == Some(&order.spec.claim.uid));
    holds_it && for_claim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::decision::tests::order;
    use crds::restore_order::RestoreOrderStatus;
    use std::collections::BTreeMap;

    fn made() -> MadeVolume {
        MadeVolume {
            volume_mode: VolumeMode::Filesystem,
            handle: "handle-1".to_owned(),
            capacity_bytes: 0,
            context: BTreeMap::from([("pool".to_owned(), "p".to_owned())]),
            topology: vec![BTreeMap::from([(
                "topology/node".to_owned(),
                "n1".to_owned(),
            )])],
        }
    }

    #[test]
    fn it_is_as_external_provisioner_would_make_it() {
        let mut order = order(|_| ());
        order
            .annotations_mut()
            .insert(RECLAIM_POLICY.to_owned(), "Retain".to_owned());
        let volume = build(&order, Some("fast"), &made());
        let json = serde_json::to_value(&volume).unwrap();
        assert_eq!(json["metadata"]["name"], "pvc-u1");
        assert_eq!(json["metadata"]["annotations"][PROVISIONED_BY], "d");
        assert_eq!(json["metadata"]["finalizers"][0], PROVISIONER_FINALIZER);
        let spec = &json["spec"];
        assert_eq!(
            spec["capacity"]["storage"], "1000",
            "0 means what was asked for"
        );
        assert_eq!(spec["claimRef"]["uid"], "u1");
        assert_eq!(spec["claimRef"]["namespace"], "default");
        assert_eq!(spec["claimRef"]["name"], "restored-database");
        assert_eq!(spec["storageClassName"], "fast");
        assert_eq!(spec["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(spec["csi"]["volumeHandle"], "handle-1");
        assert_eq!(spec["csi"]["volumeAttributes"]["pool"], "p");
        let term = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0];
        assert_eq!(term["matchExpressions"][0]["key"], "topology/node");
        assert_eq!(term["matchExpressions"][0]["values"][0], "n1");
    }

    #[test]
    fn a_volume_without_topology_goes_anywhere() {
        let mut made = made();
        made.topology.clear();
        let spec = build(&order(|_| ()), None, &made).spec.unwrap();
        assert_eq!(spec.node_affinity, None);
    }

    #[test]
    fn only_the_same_handle_for_the_same_claim_is_ours() {
        let order = order(|order| {
            order.status = Some(RestoreOrderStatus {
                volume: Some(made()),
                ..RestoreOrderStatus::default()
            });
        });
        let ours = build(&order, None, &made());
        assert!(is_of(&order, &ours));
        let change = |change: fn(&mut PersistentVolumeSpec)| {
            let mut volume = ours.clone();
            change(volume.spec.as_mut().unwrap());
            volume
        };
        let handle = change(|spec| spec.csi.as_mut().unwrap().volume_handle = "x".to_owned());
        assert!(!is_of(&order, &handle));
        let claim = change(|spec| spec.claim_ref.as_mut().unwrap().uid = Some("u2".to_owned()));
        assert!(!is_of(&order, &claim));
        assert!(!is_of(&order, &PersistentVolume::default()));
    }
}
