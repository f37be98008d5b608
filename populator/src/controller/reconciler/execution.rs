//! Executing one step. Each is idempotent: after a crash at any point it is decided and executed
//! once more, or found to be done.

use std::sync::Arc;
use std::time::Instant;

use crds::restore_order::{Goal, RestoreOrder};
use crds::volume_restore::{ClaimRef, VolumeRestore, VolumeRestoreSpec};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::{looks, observation, prime};
use crate::controller::claim::{Claim, SELECTED_NODE};
use crate::controller::context::{ClaimKey, Context};
use crate::controller::decision::{
    ClaimSight, NodeSight, Observed, Stance, Step, VolumeSight, has_finalizer,
};
use crate::controller::events::{self, Kind, Notice};
use crate::controller::memory::{Remembered, Reported};
use crate::controller::refusal::Trouble;
use crate::controller::{api, order, publish, report, resolution};
use crate::failpoint;
use crate::store::SignedUrl;

/// A URL that is good for this long still is good enough for another attempt.
const URL_REST: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

/// Does `step`, and adds to `observed` what it showed.
pub(super) async fn execute(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
    step: &Step,
    stance: Option<&Stance>,
) -> Result<(), Trouble> {
    match step {
        Step::LookAtClaim => looks::at_claim(context, key, observed).await,
        Step::LookAtClass => looks::at_class(context, observed).await,
        Step::LookAtVolume => looks::at_volume(context, observed).await,
        Step::LookAtNode => looks::at_node(context, observed).await,
        Step::LookAtCordoned => looks::at_cordoned(context, observed).await,
        Step::LookAtDriver => prime::look_at_driver(context, observed).await,
        Step::LookAtPrime => prime::look(context, key, observed).await,
        Step::LookAtProvisioned => prime::look_at_provisioned(context, key, observed).await,
        Step::LookAtGrants => looks::at_grants(context, observed).await,
        Step::Resolve => looks::resolve(context, key, observed).await,
        Step::CreateRestore => create_restore(context, key, observed).await,
        Step::ReplaceRestore => replace_restore(context, key, observed).await,
        Step::CreateOrder { node } => create_order(context, key, observed, node).await,
        Step::RenewAccess => renew_access(context, observed).await,
        Step::Retry => retry(context, observed).await,
        Step::Pause(paused) => pause(context, observed, *paused).await,
        Step::ClearNode => {
            remember_full(context, key, observed, stance);
            clear_node(context, key, observed).await
        }
        Step::RecordPublishing => record_publishing(context, observed).await,
        Step::CreateVolume => create_volume(context, key, observed).await,
        Step::CreatePrime => prime::create(context, observed).await,
        Step::Attach => prime::attach(context, observed).await,
        Step::Adopt => prime::adopt(context, observed).await,
        Step::Reprovide => prime::reprovide(context, observed).await,
        Step::Detach => prime::detach(context, key, observed).await,
        Step::Rebind => prime::rebind(context, key, observed).await,
        Step::DropPrime { volume_too } => prime::discard(context, observed, *volume_too).await,
        Step::Discard => {
            remember_full(context, key, observed, stance);
            discard(context, observed).await
        }
        Step::DropOrder => drop_order(context, key, observed).await,
        Step::Wait(_) => Ok(()),
    }
}

/// Whether nothing is left of the PVC and its restore.
pub(super) fn is_over(observed: &Observed) -> bool {
    matches!(observed.claim, ClaimSight::Gone | ClaimSight::NotCached) && observed.order.is_none()
}

async fn create_restore(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(claim) = claim(observed) else {
        return Ok(());
    };
    let mut restore = VolumeRestore::new(
        &claim.name,
        VolumeRestoreSpec {
            persistent_volume_claim: ClaimRef {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            },
            volume_backup_name: claim.backup.clone(),
            volume_backup_namespace: claim.is_crossing().then(|| claim.backup_namespace.clone()),
            paused: false,
        },
    );
    restore.owner_references_mut().push(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "PersistentVolumeClaim".to_owned(),
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(false),
    });
    let restores = context.of::<VolumeRestore>(&key.namespace);
    failpoint::reached("controller.create-restore.before");
    let created = restores.create(&PostParams::default(), &restore).await;
    failpoint::reached("controller.create-restore.after");
    let restore = match created {
        Ok(created) => created,
        Err(error) if api::already_exists(&error) => restores.get(&claim.name).await?,
        Err(error) => return Err(error.into()),
    };
    // It says nothing yet, and what comes within a moment need not be told one by one.
    let remembered = context.memory.update(&key.uid, |remembered| {
        remembered.reported = Some(Reported {
            restore: restore.uid().unwrap_or_default(),
            status: restore.status.clone().unwrap_or_default(),
            at: Instant::now(),
        });
        remembered.clone()
    });
    observed.restore = Some(observation::view(&restore, &remembered));
    Ok(())
}

async fn replace_restore(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(restore) = &observed.restore else {
        return Ok(());
    };
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: Some(restore.uid.clone()),
        resource_version: None,
    });
    failpoint::reached("controller.replace-restore.before");
    let deleted = context
        .of::<VolumeRestore>(&key.namespace)
        .delete(&key.name, &parameters)
        .await;
    failpoint::reached("controller.replace-restore.after");
    match deleted {
        Err(error) if !api::not_found(&error) => return Err(error.into()),
        Ok(_) | Err(_) => observed.restore = None,
    }
    Ok(())
}

async fn create_order(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
    node: &str,
) -> Result<(), Trouble> {
    let (Some(claim), Some(class), Some(Ok(pinned))) =
        (claim(observed), observed.class.known(), &observed.archive)
    else {
        return Ok(());
    };
    let prime = observed.wishes.map(|wishes| wishes.prime);
    let order = order::build(claim, class, pinned, node, prime);
    let orders = context.own::<RestoreOrder>();
    failpoint::reached("controller.create-order.before");
    let created = orders.create(&PostParams::default(), &order).await;
    failpoint::reached("controller.create-order.after");
    let order = match created {
        Ok(created) => {
            let notice = report::pinned(pinned, claim, node);
            events::publish(
                &context.client,
                events::about_claim(key, claim.resource_version.clone()),
                &notice,
            )
            .await;
            created
        }
        Err(error) if api::already_exists(&error) => orders.get(&claim.volume_name()).await?,
        Err(error) => return Err(error.into()),
    };
    context.memory.update(&key.uid, Remembered::looked);
    wrote(context, observed, order);
    Ok(())
}

async fn renew_access(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let signed = resolution::renew(context, &order).await?;
    failpoint::reached("controller.renew-access.before");
    let patched = patch(
        context,
        &order,
        json!({ "access": order::access_change(&signed) }),
    )
    .await?;
    failpoint::reached("controller.renew-access.after");
    wrote(context, observed, patched);
    Ok(())
}

async fn retry(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let signed = match resolution::renew(context, &order).await {
        Ok(signed) => signed,
        Err(_) if order.spec.access.expires.0 > observed.now + URL_REST => SignedUrl {
            url: order.spec.access.url.clone(),
            signed: order.spec.access.signed.0,
            expires: order.spec.access.expires.0,
            ca_bundle: order.spec.access.ca_bundle.clone(),
            bytes_per_second: order.spec.access.bytes_per_second,
        },
        Err(trouble) => return Err(trouble),
    };
    let mut spec =
        json!({ "attempt": order.spec.attempt + 1, "access": order::access_change(&signed) });
    prime::seal_anew(context, observed, &order, &mut spec).await?;
    failpoint::reached("controller.retry.before");
    let patched = patch(context, &order, spec).await?;
    failpoint::reached("controller.retry.after");
    wrote(context, observed, patched);
    Ok(())
}

async fn pause(context: &Context, observed: &mut Observed, paused: bool) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let mut spec = json!({ "paused": paused });
    if !paused {
        prime::seal_anew(context, observed, &order, &mut spec).await?;
    }
    failpoint::reached("controller.pause.before");
    let patched = patch(context, &order, spec).await?;
    failpoint::reached("controller.pause.after");
    wrote(context, observed, patched);
    Ok(())
}

/// A node that had no room is left alone for a while.
fn remember_full(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
    stance: Option<&Stance>,
) {
    let (Some(Stance::Moving(_)), Some(order)) = (stance, &observed.order) else {
        return;
    };
    let node = &order.spec.node_name;
    let known = observed.full_nodes.get(node);
    if known.is_none_or(|until| *until <= observed.now) {
        observed.full_nodes = context.memory.update(&key.uid, |remembered| {
            remembered.full(node, observed.now);
            remembered.full_nodes()
        });
    }
}

/// As external-provisioner does: without the annotation the scheduler chooses anew.
async fn clear_node(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(claim) = claim(observed) else {
        return Ok(());
    };
    let change = json!({ "metadata": {
        "uid": claim.uid,
        "resourceVersion": claim.resource_version,
        "annotations": { SELECTED_NODE: null },
    }});
    failpoint::reached("controller.clear-node.before");
    let patched = context
        .of::<PersistentVolumeClaim>(&key.namespace)
        .patch(&key.name, &PatchParams::default(), &Patch::Merge(&change))
        .await?;
    failpoint::reached("controller.clear-node.after");
    observed.claim = Claim::read(&patched).map_or(ClaimSight::Gone, ClaimSight::Live);
    Ok(())
}

async fn record_publishing(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    failpoint::reached("controller.record-publishing.before");
    let patched = patch(context, &order, json!({ "goal": Goal::Published })).await?;
    failpoint::reached("controller.record-publishing.after");
    wrote(context, observed, patched);
    Ok(())
}

async fn create_volume(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let made = order
        .status
        .as_ref()
        .and_then(|status| status.volume.as_ref());
    let (Some(claim), Some(made)) = (claim(observed), made) else {
        return Ok(());
    };
    let volume = publish::build(&order, claim.class.as_deref(), made);
    failpoint::reached("controller.create-volume.before");
    let created = Api::<PersistentVolume>::all(context.client.clone())
        .create(&PostParams::default(), &volume)
        .await;
    failpoint::reached("controller.create-volume.after");
    match created {
        Ok(_) => {}
        Err(error) if api::already_exists(&error) => {
            looks::at_volume(context, observed).await?;
        }
        Err(error) => return Err(error.into()),
    }
    if observed.volume != VolumeSight::Foreign {
        volume_made(context, key, observed);
    }
    Ok(())
}

/// The PersistentVolume is there: by this process, so that no watch is needed to know it.
pub(super) fn volume_made(context: &Context, key: &ClaimKey, observed: &mut Observed) {
    observed.volume = VolumeSight::Made;
    context
        .memory
        .update(&key.uid, |remembered| remembered.made = true);
}

async fn discard(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    failpoint::reached("controller.discard.before");
    let patched = patch(context, &order, json!({ "goal": Goal::Deleted })).await?;
    failpoint::reached("controller.discard.after");
    wrote(context, observed, patched);
    Ok(())
}

/// Deletes the order, and lets it go.
async fn drop_order(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let name = order.name_any();
    // What a provisioner has made, that deletes.
    if order.spec.goal == Goal::Deleted
        && order.spec.prime.is_none()
        && matches!(observed.node, NodeSight::Absent | NodeSight::Down)
    {
        tell_node_gone(context, &order, observed.node).await;
    }
    let orders = context.own::<RestoreOrder>();
    let mut latest = RestoreOrder::clone(&order);
    if latest.metadata.deletion_timestamp.is_none() {
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: latest.uid(),
            resource_version: None,
        });
        failpoint::reached("controller.delete-order.before");
        let deleted = orders.delete(&name, &parameters).await?;
        failpoint::reached("controller.delete-order.after");
        if let Some(deleting) = deleted.left() {
            latest = deleting;
        }
    }
    if has_finalizer(&latest) {
        let finalizers: Vec<&String> = latest
            .finalizers()
            .iter()
            .filter(|finalizer| *finalizer != order::CLEAN_UP)
            .collect();
        let change = json!({ "metadata": {
            "uid": latest.uid(),
            "resourceVersion": latest.resource_version(),
            "finalizers": finalizers,
        }});
        failpoint::reached("controller.release-order.before");
        latest = orders
            .patch(&name, &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        failpoint::reached("controller.release-order.after");
    }
    context.memory.update(&key.uid, |remembered| {
        remembered.made = false;
        remembered.forget_attempts();
        // A watch may show it for a moment yet: nothing is left to do for it then.
        remembered.order = Some(Arc::new(latest));
    });
    observed.order = None;
    observed.volume = VolumeSight::Unknown;
    observed.node = NodeSight::Unknown;
    Ok(())
}

async fn tell_node_gone(context: &Context, order: &RestoreOrder, node: NodeSight) {
    let about = ObjectReference {
        api_version: Some(RestoreOrder::api_version(&()).into_owned()),
        kind: Some(RestoreOrder::kind(&()).into_owned()),
        namespace: Some(context.namespace.clone()),
        name: Some(order.name_any()),
        uid: order.uid(),
        ..ObjectReference::default()
    };
    let notice = Notice {
        kind: Kind::Warning,
        reason: "NodeGone".to_owned(),
        message: format!(
            "node {} {}, so that the volume {} could not be deleted there; the populator's agent deletes it \
             should the node come back, unless it was complete by then",
            order.spec.node_name,
            if node == NodeSight::Absent {
                "no longer exists"
            } else {
                "is down"
            },
            order.spec.volume.name
        ),
    };
    events::publish(&context.client, about, &notice).await;
}

/// An order as the API server has just answered: a watch may show it later.
pub(super) fn wrote(context: &Context, observed: &mut Observed, order: RestoreOrder) {
    let order = Arc::new(order);
    context.memory.update(&order.spec.claim.uid, |remembered| {
        remembered.order = Some(Arc::clone(&order));
    });
    observed.order = Some(order);
}

/// Changes an order, if it is still the one that was seen.
pub(super) async fn patch(
    context: &Context,
    order: &RestoreOrder,
    spec: serde_json::Value,
) -> Result<RestoreOrder, kube::Error> {
    let change = json!({
        "metadata": { "uid": order.uid(), "resourceVersion": order.resource_version() },
        "spec": spec,
    });
    context
        .own::<RestoreOrder>()
        .patch(
            &order.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&change),
        )
        .await
}

pub(super) fn claim(observed: &Observed) -> Option<&Claim> {
    match &observed.claim {
        ClaimSight::Cached(claim) | ClaimSight::Live(claim) => Some(claim),
        ClaimSight::NotCached | ClaimSight::Gone => None,
    }
}
