//! From what the watches show to what a decision rests on.

use std::sync::Arc;
use std::time::Duration;

use crds::restore_order::{Provisioned, State};
use crds::{RestoreOrder, VolumeRestore};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::controller::agents::Agents;
use crate::controller::claim::{Claim, volume_name};
use crate::controller::class::Class;
use crate::controller::context::{ClaimKey, Context};
use crate::controller::decision::{
    ClaimSight, ClassSight, NodeSight, Observed, Restore, VolumeSight,
};
use crate::controller::grants::GrantSight;
use crate::controller::memory::Remembered;
use crate::controller::prime::Sight;
use crate::controller::{grants, resolution};

/// After so long, a watch shows what was made.
const SHOWN: Duration = Duration::from_secs(5);

/// What is known of one PVC without asking anybody.
pub(super) fn observe(context: &Context, key: &ClaimKey) -> Observed {
    let now = Timestamp::now();
    let claim = context
        .stores
        .claim(&key.namespace, &key.name)
        .and_then(|claim| Claim::read(&claim))
        .filter(|claim| claim.uid == key.uid);
    let remembered = context.memory.recall(&key.uid);
    let shown = context
        .stores
        .order(&context.namespace, &volume_name(&key.uid));
    let order = shown.map(|shown| later(shown, remembered.order.as_ref()));
    let class = claim
        .as_ref()
        .and_then(|claim| claim.class.as_deref())
        .and_then(|name| context.stores.class(name))
        .map_or(ClassSight::NotCached, |class| {
            ClassSight::Known(Class::read(&class))
        });
    let failed_attempt = order.as_ref().and_then(|order| {
        let status = order.status.as_ref()?;
        (status.state == State::Failed).then_some(status.attempt)
    });
    let restore = context
        .stores
        .restore(&key.namespace, &key.name)
        .map(|restore| view(&restore, &remembered));
    Observed {
        now,
        restore,
        class,
        grant: claim
            .as_ref()
            .map_or(GrantSight::Own, |claim| grants::shown(context, claim)),
        basis: claim
            .as_ref()
            .and_then(|claim| {
                let namespace = &claim.backup_namespace;
                context.stores.backup(namespace, &claim.backup)
            })
            .map(|backup| resolution::basis(&backup)),
        archive: None,
        wishes: None,
        prime: made_for(context, key, &remembered),
        volume: if remembered.made {
            VolumeSight::Made
        } else {
            VolumeSight::Unknown
        },
        node: NodeSight::Unknown,
        cordoned: context.cordoned.known(),
        agents: Agents::read(context.stores.leases(), now),
        retry_at: failed_attempt.map(|attempt| {
            context
                .memory
                .update(&key.uid, |remembered| remembered.retry_at(attempt, now))
        }),
        renewal_at: remembered.renewal,
        full_nodes: remembered.full_nodes(),
        drivers: context.drivers.clone(),
        claim: claim.map_or(ClaimSight::NotCached, ClaimSight::Cached),
        order,
    }
}

/// An order as a watch shows it, or as this process has written it since.
fn later(shown: Arc<RestoreOrder>, written: Option<&Arc<RestoreOrder>>) -> Arc<RestoreOrder> {
    // Versions of one kind are numbers that grow (KEP-5504); where they are not, the watch decides.
    let version = |order: &RestoreOrder| order.resource_version()?.parse::<u64>().ok();
    // One that goes with its last finalizer has in that answer the version that it had before.
    let is_later = |written: &&Arc<RestoreOrder>| {
        written.uid() == shown.uid()
            && matches!((version(written), version(&shown)), (Some(a), Some(b)) if a >= b)
    };
    written.filter(is_later).cloned().unwrap_or(shown)
}

/// What was made for the prime way, with what this process has done and seen before the watches show it.
fn made_for(context: &Context, key: &ClaimKey, remembered: &Remembered) -> Sight {
    let mut sight = context.stores.made_for(&context.namespace, &key.uid);
    // One that is not shown for longer was deleted by somebody.
    if let (None, Some((made, claim))) = (&sight.claim, &remembered.prime)
        && made.elapsed() < SHOWN
    {
        sight.claim = Some(claim.clone());
    }
    if let Some(attachment) = &mut sight.attachment {
        attachment.deleting |= remembered.detached.as_ref() == Some(&attachment.uid);
    }
    let is_its = |made: &&Provisioned| {
        sight.claim.as_ref().is_some_and(|claim| {
            claim.uid == made.claim_uid
                && claim.volume.as_ref() == Some(&made.persistent_volume_name)
        })
    };
    sight.provisioned = remembered
        .provisioned
        .as_ref()
        .filter(is_its)
        .map(|made| Ok(made.clone()));
    sight
}

/// A VolumeRestore, with the status that this process wrote last: a watch may lag behind it, and a
/// failure that was told must not be forgotten for that.
pub(super) fn view(restore: &VolumeRestore, remembered: &Remembered) -> Restore {
    let uid = restore.uid().unwrap_or_default();
    let status = match &remembered.reported {
        Some(reported) if reported.restore == uid => reported.status.clone(),
        _ => restore.status.clone().unwrap_or_default(),
    };
    Restore {
        uid,
        generation: restore.metadata.generation,
        created: restore.creation_timestamp().map(|time| time.0),
        claim_uid: restore.spec.persistent_volume_claim.uid.clone(),
        deleting: restore.metadata.deletion_timestamp.as_ref().map(|at| at.0),
        paused: restore.spec.paused,
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::decision::tests::order;

    #[test]
    fn what_was_written_counts_until_a_watch_shows_it() {
        let at = |version: &str, uid: &str| {
            Arc::new(order(|order| {
                order.metadata.resource_version = Some(version.to_owned());
                order.metadata.uid = Some(uid.to_owned());
            }))
        };
        let (shown, written) = (at("99", "a"), at("100", "a"));
        let later = |shown: &Arc<RestoreOrder>, written: Option<&Arc<RestoreOrder>>| {
            later(Arc::clone(shown), written).resource_version()
        };
        assert_eq!(later(&shown, Some(&written)).as_deref(), Some("100"));
        assert_eq!(later(&written, Some(&shown)).as_deref(), Some("100"));
        let mut held = RestoreOrder::clone(&shown);
        held.metadata.finalizers = Some(vec!["held".to_owned()]);
        let seen = super::later(Arc::new(held), Some(&shown));
        assert!(seen.finalizers().is_empty(), "it was let go");
        assert_eq!(later(&shown, None).as_deref(), Some("99"));
        assert_eq!(later(&shown, Some(&at("100", "b"))).as_deref(), Some("99"));
        assert_eq!(later(&shown, Some(&at("x", "a"))).as_deref(), Some("99"));
    }
}
