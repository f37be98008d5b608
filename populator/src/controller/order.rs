//! Building an order.

use crds::restore_order::{
    Goal, OrderClaim, OrderVolume, Prime, RestoreOrder, RestoreOrderSpec, STORE, STORE_NAMESPACE,
    SignedAccess, VolumeMode,
};
use crds::volume_restore::Basis;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::claim::Claim;
use super::class::Class;
use super::content;
use super::resolution::Pinned;
use crate::store::SignedUrl;

/// Keeps an order until its agent has deleted what it made, or Kubernetes owns it.
pub const CLEAN_UP: &str = "backup.example.com/clean-up";

/// The class's reclaim policy, for the PersistentVolume, even when the class is gone.
pub const RECLAIM_POLICY: &str = "backup.example.com/reclaim-policy";

/// The order for one PVC, on `node`; with `prime` where the driver's own provisioner makes the volume.
pub fn build(
    claim: &Claim,
    class: &Class,
    pinned: &Pinned,
    node: &str,
    prime: Option<Prime>,
) -> RestoreOrder {
    let name = claim.volume_name();
    let mut order = RestoreOrder::new(
        &name,
        RestoreOrderSpec {
            goal: Goal::Filled,
            attempt: 1,
            paused: false,
            priority: claim.priority,
            node_name: node.to_owned(),
            claim: OrderClaim {
                namespace: claim.namespace.clone(),
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            },
            volume: OrderVolume {
                driver: class.driver.clone(),
                name: name.clone(),
                required_bytes: i64::try_from(claim.required_bytes).unwrap_or(i64::MAX),
                limit_bytes: claim
                    .limit_bytes
                    .map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX)),
                volume_mode: claim.volume_mode,
                fs_type: of_files(claim, &class.fs_type),
                mount_options: of_files(claim, &class.mount_options),
                access_modes: claim.access_modes.clone(),
                parameters: class.parameters.clone(),
            },
            prime,
            provisioned: None,
            archive: pinned.archive.clone(),
            options: pinned.options.clone(),
            // What a driver's own provisioner makes, an agent can neither copy nor keep.
            content: match prime {
                None => content::of(claim, class, pinned),
                Some(_) => None,
            },
            basis: Some(Basis {
                retry: claim.retry.clone(),
                ..pinned.basis.clone()
            }),
            access: access(&pinned.signed),
        },
    );
    order.finalizers_mut().push(CLEAN_UP.to_owned());
    let annotations = order.annotations_mut();
    annotations.insert(STORE.to_owned(), pinned.store.clone());
    if claim.is_crossing() {
        let namespace = claim.backup_namespace.clone();
        annotations.insert(STORE_NAMESPACE.to_owned(), namespace);
    }
    annotations.insert(RECLAIM_POLICY.to_owned(), class.reclaim_policy.clone());
    order
}

/// What means nothing to a device.
fn of_files<T: Clone + Default>(claim: &Claim, value: &T) -> T {
    match claim.volume_mode {
        VolumeMode::Filesystem => value.clone(),
        VolumeMode::Block => T::default(),
    }
}

/// The same as a change of an order (RFC 7396), in which what is not named stays.
pub fn access_change(signed: &SignedUrl) -> serde_json::Value {
    serde_json::json!({
        "url": signed.url,
        "signed": Time(signed.signed),
        "expires": Time(signed.expires),
        "caBundle": signed.ca_bundle,
        "bytesPerSecond": signed.bytes_per_second,
    })
}

/// A signed URL as an order carries it.
pub fn access(signed: &SignedUrl) -> SignedAccess {
    SignedAccess {
        url: signed.url.clone(),
        signed: Time(signed.signed),
        expires: Time(signed.expires),
        ca_bundle: signed.ca_bundle.clone(),
        bytes_per_second: signed.bytes_per_second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::decision::ClaimSight;
    use crate::controller::decision::tests::{observed, pinned};

    #[test]
    fn a_store_is_of_the_namespace_of_the_backup() {
        let observed = observed(|_| ());
        let (ClaimSight::Cached(mut claim), Some(class)) =
            (observed.claim.clone(), observed.class.known())
        else {
            unreachable!()
        };
        let own = build(&claim, class, &pinned(), "n1", None);
        assert_eq!(own.store(), ("default", "store"));
        assert!(!own.annotations().contains_key(STORE_NAMESPACE));
        claim.backup_namespace = "backups".to_owned();
        let other = build(&claim, class, &pinned(), "n1", None);
        assert_eq!(other.store(), ("backups", "store"));
        assert_eq!(other.spec.claim.namespace, "default");
    }
}
