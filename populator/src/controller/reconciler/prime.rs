//! Executing the steps of the prime way.

use std::time::Instant;

use crds::restore_order::{NodeSecrets, Provisioned, RestoreOrder};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::execution::{claim, patch, volume_made, wrote};
use crate::controller::claim::volume_name;
use crate::controller::context::{ClaimKey, Context};
use crate::controller::decision::{Observed, VolumeSight};
use crate::controller::prime::{self, Attachment, DriverWishes, PrimeClaim, Sight};
use crate::controller::refusal::{Refusal, Trouble};
use crate::controller::{api, node_secrets, publish};
use crate::failpoint;

/// Asks how the class's driver wants its volumes used.
pub(super) async fn look_at_driver(
    context: &Context,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(class) = observed.class.known() else {
        return Ok(());
    };
    let driver = Api::<CSIDriver>::all(context.client.clone())
        .get_opt(&class.driver)
        .await?;
    observed.wishes = Some(DriverWishes::read(driver.as_ref()));
    Ok(())
}

/// Asks what there is of the prime PVC, and what its provisioner complains of.
pub(super) async fn look(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let claim = context
        .own::<PersistentVolumeClaim>()
        .get_opt(&prime::name(&key.uid))
        .await?;
    let claim = claim.as_ref().map(PrimeClaim::read);
    let ours = ListParams::default().labels(&format!("{}={}", prime::CLAIM, key.uid));
    let attachments = Api::<VolumeAttachment>::all(context.client.clone())
        .list(&ours)
        .await?;
    let complaint = match &claim {
        Some(unbound) if unbound.volume.is_none() => {
            let about =
                ListParams::default().fields(&format!("involvedObject.uid={}", unbound.uid));
            prime::complaint(context.own::<Event>().list(&about).await?)
        }
        Some(_) | None => None,
    };
    observed.prime = Sight {
        claim,
        attachment: prime::foremost(attachments.items.iter().map(Attachment::read)),
        live: true,
        complaint,
        ..Sight::default()
    };
    Ok(())
}

/// Asks what the provisioner has made: once, since where it lies and what it is do not change.
pub(super) async fn look_at_provisioned(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let (Some(order), Some(prime)) = (observed.order.clone(), observed.prime.claim.clone()) else {
        return Ok(());
    };
    let name = prime.volume.as_deref().unwrap_or_default();
    let volume = volumes(context).get(name).await?;
    let node = Api::<Node>::all(context.client.clone())
        .get_metadata_opt(&order.spec.node_name)
        .await?;
    observed.prime.elsewhere = node.is_some_and(|node| prime::is_elsewhere(&volume, node.labels()));
    let made = prime::provisioned(&volume, &prime, &order.spec.volume);
    if let (Ok(made), false) = (&made, observed.prime.elsewhere) {
        let made = made.clone();
        context
            .memory
            .update(&key.uid, |remembered| remembered.provisioned = Some(made));
    }
    observed.prime.provisioned = Some(made);
    Ok(())
}

pub(super) async fn create(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let (Some(order), Some(claim)) = (observed.order.clone(), claim(observed)) else {
        return Ok(());
    };
    let claims = context.own::<PersistentVolumeClaim>();
    let wanted = prime::claim(&order, claim);
    failpoint::reached("controller.create-prime.before");
    let created = claims.create(&PostParams::default(), &wanted).await;
    failpoint::reached("controller.create-prime.after");
    let made = match created {
        Err(error) if api::already_exists(&error) => claims.get(&wanted.name_any()).await?,
        created => created?,
    };
    let made = PrimeClaim::read(&made);
    context.memory.update(&order.spec.claim.uid, |remembered| {
        // What is on its way out goes unseen.
        remembered.prime = (!made.deleting).then(|| (Instant::now(), made.clone()));
    });
    observed.prime.claim = Some(made);
    Ok(())
}

pub(super) async fn attach(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let (Some(order), Some(Ok(made))) = (&observed.order, &observed.prime.provisioned) else {
        return Ok(());
    };
    let attachments = Api::<VolumeAttachment>::all(context.client.clone());
    let wanted = prime::attachment(order, made);
    failpoint::reached("controller.attach.before");
    let created = attachments.create(&PostParams::default(), &wanted).await;
    failpoint::reached("controller.attach.after");
    let made = match created {
        Err(error) if api::already_exists(&error) => attachments.get(&wanted.name_any()).await?,
        created => created?,
    };
    observed.prime.attachment = Some(Attachment::read(&made));
    Ok(())
}

/// Gives the volume to the agent.
pub(super) async fn adopt(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let (Some(order), Some(Ok(made))) = (&observed.order, &observed.prime.provisioned) else {
        return Ok(());
    };
    let attachment = observed.prime.attachment.as_ref();
    let mut given = Provisioned {
        attachment_uid: attachment.map(|it| it.uid.clone()),
        publish_context: attachment.map_or_else(Default::default, |it| it.publish_context.clone()),
        ..made.clone()
    };
    if let Some(secrets) = &mut given.secrets {
        secrets.sealed = sealed(context, observed, order, secrets).await?;
    }
    failpoint::reached("controller.adopt.before");
    let patched = patch(context, order, json!({ "provisioned": given })).await?;
    failpoint::reached("controller.adopt.after");
    wrote(context, observed, patched);
    Ok(())
}

/// Adds to the change of an order what its driver wants on the node, as it is now.
pub(super) async fn seal_anew(
    context: &Context,
    observed: &Observed,
    order: &RestoreOrder,
    change: &mut serde_json::Value,
) -> Result<(), Refusal> {
    let given = order.spec.provisioned.as_ref();
    if let Some(secrets) = given.and_then(|given| given.secrets.as_ref()) {
        let sealed = sealed(context, observed, order, secrets).await?;
        change["provisioned"] = json!({ "secrets": { "sealed": sealed } });
    }
    Ok(())
}

async fn sealed(
    context: &Context,
    observed: &Observed,
    order: &RestoreOrder,
    secrets: &NodeSecrets,
) -> Result<String, Refusal> {
    let whom = node_secrets::For {
        agents: &observed.agents,
        node: &order.spec.node_name,
        driver: &order.spec.volume.driver,
    };
    node_secrets::sealed(context, secrets, whom).await
}

/// Takes the volume from the agent; the attempt after begins when it is given again.
pub(super) async fn reprovide(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let change = json!({ "attempt": order.spec.attempt + 1, "provisioned": null });
    failpoint::reached("controller.reprovide.before");
    let patched = patch(context, &order, change).await?;
    failpoint::reached("controller.reprovide.after");
    wrote(context, observed, patched);
    Ok(())
}

pub(super) async fn detach(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(attachment) = &mut observed.prime.attachment else {
        return Ok(());
    };
    failpoint::reached("controller.detach.before");
    let deleted = Api::<VolumeAttachment>::all(context.client.clone())
        .delete(&attachment.name, &only(&attachment.uid))
        .await;
    failpoint::reached("controller.detach.after");
    let uid = attachment.uid.clone();
    match deleted {
        Err(error) if !api::not_found(&error) => return Err(error.into()),
        Ok(left) if left.is_left() => attachment.deleting = true,
        Ok(_) | Err(_) => observed.prime.attachment = None,
    }
    context
        .memory
        .update(&key.uid, |remembered| remembered.detached = Some(uid));
    Ok(())
}

/// Points the PersistentVolume to the user's PVC, if it is still the one that was seen.
pub(super) async fn rebind(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(order) = observed.order.clone() else {
        return Ok(());
    };
    let Some(given) = &order.spec.provisioned else {
        return Ok(());
    };
    let volumes = volumes(context);
    let volume = volumes.get_opt(&given.persistent_volume_name).await?;
    let Some(volume) = volume.filter(|it| publish::can_be_handed_over(&order, given, it)) else {
        observed.volume = VolumeSight::Foreign;
        return Ok(());
    };
    if !publish::is_of(&order, &volume) {
        let change = publish::rebinding(&order, &volume);
        failpoint::reached("controller.rebind.before");
        volumes
            .patch(
                &volume.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&change),
            )
            .await?;
        failpoint::reached("controller.rebind.after");
    }
    volume_made(context, key, observed);
    Ok(())
}

/// Deletes the prime PVC; and with `volume_too` what was provisioned for it, whatever the class would have
/// done with a user's.
pub(super) async fn discard(
    context: &Context,
    observed: &mut Observed,
    volume_too: bool,
) -> Result<(), Trouble> {
    let (Some(order), Some(prime)) = (observed.order.clone(), observed.prime.claim.clone()) else {
        return Ok(());
    };
    let claims = context.own::<PersistentVolumeClaim>();
    let live = claims.get_opt(&prime::name(&order.spec.claim.uid)).await?;
    // Though it may not be bound yet, or not know it; then by the name that provisioners give.
    let volume = live
        .and_then(|live| live.spec?.volume_name)
        .or_else(|| Some(volume_name(&prime.uid)));
    if volume_too && let Some(name) = &volume {
        let volumes = volumes(context);
        let volume = volumes.get_opt(name).await?;
        if let Some(change) = volume.and_then(|it| reclaimed(&order, &prime, &it)) {
            failpoint::reached("controller.reclaim-prime.before");
            volumes
                .patch(name, &PatchParams::default(), &Patch::Merge(&change))
                .await?;
            failpoint::reached("controller.reclaim-prime.after");
        }
    }
    failpoint::reached("controller.drop-prime.before");
    let deleted = claims
        .delete(&prime::name(&order.spec.claim.uid), &only(&prime.uid))
        .await;
    failpoint::reached("controller.drop-prime.after");
    match (deleted, &mut observed.prime.claim) {
        (Err(error), _) if !api::not_found(&error) => return Err(error.into()),
        (Ok(left), Some(prime)) if left.is_left() => prime.deleting = true,
        (_, claim) => *claim = None,
    }
    context
        .memory
        .update(&order.spec.claim.uid, |remembered| remembered.prime = None);
    // What is not there any more was perhaps made again: only a look can tell.
    observed.prime.live = false;
    Ok(())
}

/// What must become of a volume when the prime PVC goes, if it is not so already: what was made for it is
/// deleted, what was there before is kept.
fn reclaimed(
    order: &RestoreOrder,
    prime: &PrimeClaim,
    volume: &PersistentVolume,
) -> Option<serde_json::Value> {
    let spec = volume.spec.as_ref()?;
    if spec.claim_ref.as_ref()?.uid.as_ref() != Some(&prime.uid) {
        return None;
    }
    let wanted = match prime::provisioned(volume, prime, &order.spec.volume) {
        Err(prime::Unfit::Found | prime::Unfit::OtherDriver) => "Retain",
        Ok(_) => "Delete",
    };
    let is_so = spec.persistent_volume_reclaim_policy.as_deref() == Some(wanted);
    (!is_so).then(|| publish::reclaiming(volume, wanted))
}

fn only(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    })
}

fn volumes(context: &Context) -> Api<PersistentVolume> {
    Api::all(context.client.clone())
}
