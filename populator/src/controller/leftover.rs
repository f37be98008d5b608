//! PersistentVolumes that were made for a prime PVC and are nobody's: a provisioner ends what it has begun, even
//! when the prime PVC is gone by then, and a prime PVC may be deleted by hand. Under a StorageClass that says
//! Retain they would stay for ever; but what was never handed over is no user's.
//!
//! Nothing is remembered: whatever there is when a leader begins is found like what comes later.

use std::sync::Arc;
use std::time::Duration;

use crds::restore_order::{RestoreOrder, State};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt as _};

use super::claim::volume_name;
use super::context::{Context, Key};
use super::prime;
use super::publish;
use super::queue::Queue;
use super::watches::Stores;

/// After an attempt to have one deleted.
const AGAIN: Duration = Duration::from_secs(10);

/// Looks at all PersistentVolumes, keeping none of them, until the process ends.
pub async fn watch(client: Client, namespace: String, queue: Arc<Queue<Key>>) {
    let mut volumes = watcher(
        Api::<PersistentVolume>::all(client),
        watcher::Config::default(),
    )
    .default_backoff()
    .boxed();
    loop {
        match volumes.try_next().await {
            Ok(Some(watcher::Event::Apply(volume) | watcher::Event::InitApply(volume))) => {
                if left_by(&volume, &namespace).is_some() {
                    let volume = volume.name_any();
                    queue.add(Key::Leftover { volume });
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the watch of PersistentVolumes failed and begins again");
            }
        }
    }
}

/// Has a PersistentVolume deleted, if it is left over.
pub async fn reclaim(context: &Context, volume: &str) {
    if let Err(error) = try_to_reclaim(context, volume).await {
        tracing::warn!(volume, %error, "a volume that is nobody's cannot be reclaimed yet");
        let volume = volume.to_owned();
        context.queue.add_after(Key::Leftover { volume }, AGAIN);
    }
}

async fn try_to_reclaim(context: &Context, name: &str) -> Result<(), kube::Error> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let Some(volume) = volumes.get_opt(name).await? else {
        return Ok(());
    };
    let Some(claim) = left_by(&volume, &context.namespace) else {
        return Ok(());
    };
    let order = claim.order(&context.namespace, &context.stores);
    if order.is_some_and(|order| is_in_use(&order, name)) {
        let volume = name.to_owned();
        context.queue.add_after(Key::Leftover { volume }, AGAIN);
        return Ok(());
    }
    let there = context
        .own::<PersistentVolumeClaim>()
        .get_metadata_opt(&claim.name)
        .await?;
    if there.and_then(|it| it.uid()) == Some(claim.uid) {
        return Ok(());
    }
    tracing::info!(
        volume = name,
        claim = claim.name,
        "has a volume that is nobody's deleted"
    );
    let change = Patch::Merge(publish::reclaiming(&volume, "Delete"));
    volumes
        .patch(name, &PatchParams::default(), &change)
        .await?;
    Ok(())
}

/// A prime PVC that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gone {
    name: String,
    uid: String,
}

impl Gone {
    /// The order that it was made for, or one after that.
    fn order(&self, namespace: &str, stores: &Stores) -> Option<Arc<RestoreOrder>> {
        let user = prime::claim_of(&self.name)?;
        stores.order(namespace, &volume_name(user))
    }
}

/// Whether an agent may still have the volume mounted.
fn is_in_use(order: &RestoreOrder, volume: &str) -> bool {
    let given = order.spec.provisioned.as_ref();
    let state = order.status.as_ref().map(|status| status.state);
    given.is_some_and(|given| given.persistent_volume_name == volume)
        && state != Some(State::Deleted)
}

/// Which prime PVC of this namespace has left a PersistentVolume that would be retained, if one has: nobody
/// else's can be taken for one, whatever it is called.
fn left_by(volume: &PersistentVolume, namespace: &str) -> Option<Gone> {
    let spec = volume.spec.as_ref()?;
    let claim = spec.claim_ref.as_ref()?;
    let phase = volume.status.as_ref()?.phase.as_deref();
    let (name, uid) = (claim.name.clone()?, claim.uid.clone()?);
    let is_left = phase == Some("Released")
        && volume.metadata.deletion_timestamp.is_none()
        && spec.persistent_volume_reclaim_policy.as_deref() == Some("Retain")
        && claim.namespace.as_deref() == Some(namespace)
        && prime::claim_of(&name).is_some_and(|user| user.parse::<uuid::Uuid>().is_ok())
        && volume.metadata.name == Some(volume_name(&uid))
        && prime::was_made(volume)
        && !publish::is_restored(volume);
    is_left.then_some(Gone { name, uid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn left(change: impl FnOnce(&mut Value)) -> bool {
        let mut volume = json!({
            "metadata": {
                "name": "pvc-22222222-2222-4222-8222-222222222222",
                "annotations": {"pv.kubernetes.io/provisioned-by": "d"},
            },
            "spec": {
                "csi": {"driver": "d", "volumeHandle": "h"},
                "claimRef": {
                    "kind": "PersistentVolumeClaim", "namespace": "ours",
                    "name": "prime-11111111-1111-4111-8111-111111111111",
                    "uid": "22222222-2222-4222-8222-222222222222",
                },
                "persistentVolumeReclaimPolicy": "Retain",
            },
            "status": {"phase": "Released"},
        });
        change(&mut volume);
        let volume = serde_json::from_value(volume).unwrap();
        left_by(&volume, "ours").is_some()
    }

    #[test]
    fn only_what_was_made_for_a_prime_pvc_that_is_gone_is_left_over() {
        assert!(left(|_| ()));
        // In use, or about to be handed over.
        assert!(!left(|it| it["status"]["phase"] = json!("Bound")));
        // A user's.
        assert!(!left(
            |it| it["spec"]["claimRef"]["namespace"] = json!("team")
        ));
        assert!(!left(
            |it| it["spec"]["claimRef"]["name"] = json!("prime-data")
        ));
        assert!(!left(
            |it| it["metadata"]["name"] = json!("pvc-of-an-administrator")
        ));
        assert!(!left(|it| it["spec"]["csi"]["driver"] = json!("e")));
        let restored = |it: &mut Value| {
            it["metadata"]["annotations"]["backup.example.com/restored-for"] = json!("u1");
        };
        assert!(!left(restored));
        // It was there before, and belongs to whoever made it.
        let found = |it: &mut Value| {
            it["metadata"]["annotations"]["pv.kubernetes.io/bound-by-controller"] = json!("yes");
        };
        assert!(!left(found));
        assert!(!left(|it| it["metadata"]["annotations"] = json!({})));
        // Its provisioner deletes it without us.
        let deleted =
            |it: &mut Value| it["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete");
        assert!(!left(deleted));
        assert!(!left(
            |it| it["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
        ));
        assert!(!left(|it| it["spec"]["claimRef"] = Value::Null));
    }
}
