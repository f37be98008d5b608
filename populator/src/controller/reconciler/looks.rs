//! Asking the API server and the store what a decision wants to know.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;

use super::execution::claim;
use crate::controller::claim::Claim;
use crate::controller::class::Class;
use crate::controller::context::{ClaimKey, Context};
use crate::controller::decision::{ClaimSight, ClassSight, NodeSight, Observed, VolumeSight};
use crate::controller::grants::{self, GrantSight};
use crate::controller::memory::Remembered;
use crate::controller::refusal::Trouble;
use crate::controller::{node, publish, resolution};

pub(super) async fn at_claim(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let claim = context
        .of::<PersistentVolumeClaim>(&key.namespace)
        .get_opt(&key.name)
        .await?;
    observed.claim = claim
        .and_then(|claim| Claim::read(&claim))
        .filter(|claim| claim.uid == key.uid)
        .map_or(ClaimSight::Gone, ClaimSight::Live);
    Ok(())
}

pub(super) async fn at_class(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let Some(name) = claim(observed).and_then(|claim| claim.class.clone()) else {
        return Ok(());
    };
    let class = Api::<StorageClass>::all(context.client.clone())
        .get_opt(&name)
        .await?;
    observed.class = class.map_or(ClassSight::Absent, |class| {
        ClassSight::Known(Class::read(&class))
    });
    Ok(())
}

pub(super) async fn at_volume(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let order = observed.order.clone();
    let given = order.as_ref().and_then(|it| it.spec.provisioned.as_ref());
    let bound = claim(observed).and_then(|claim| claim.volume.clone());
    let name = match (given, &order) {
        (Some(given), _) => Some(given.persistent_volume_name.clone()),
        (None, Some(order)) => Some(order.spec.volume.name.clone()),
        (None, None) => bound,
    };
    let Some(name) = name else {
        return Ok(());
    };
    let volume = Api::<PersistentVolume>::all(context.client.clone())
        .get_opt(&name)
        .await?;
    let is_ours = |volume: &PersistentVolume| match (&order, claim(observed)) {
        (Some(order), _) => publish::is_of(order, volume),
        (None, Some(claim)) => publish::is_restored_for(&claim.uid, volume),
        (None, None) => false,
    };
    observed.volume = match volume {
        Some(volume) if is_ours(&volume) => VolumeSight::Ours,
        // It is not the user's before it is pointed to the PVC.
        Some(_) if given.is_some() => VolumeSight::Absent,
        Some(_) => VolumeSight::Foreign,
        None => VolumeSight::Absent,
    };
    Ok(())
}

pub(super) async fn at_node(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    let chosen = || claim(observed)?.selected_node.clone();
    let order = observed.order.as_ref();
    let Some(name) = order
        .map(|order| order.spec.node_name.clone())
        .or_else(chosen)
    else {
        return Ok(());
    };
    let node = Api::<Node>::all(context.client.clone())
        .get_opt(&name)
        .await?;
    observed.node = match node {
        Some(found) if node::is_down(&found, observed.now) => NodeSight::Down,
        Some(_) => NodeSight::Present,
        None => NodeSight::Absent,
    };
    Ok(())
}

pub(super) async fn at_cordoned(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    observed.cordoned = Some(context.cordoned.look(&context.client).await?);
    Ok(())
}

pub(super) async fn at_grants(context: &Context, observed: &mut Observed) -> Result<(), Trouble> {
    observed.grant = match claim(observed).and_then(grants::reference) {
        Some(reference) => GrantSight::Live(grants::look(context, &reference).await?),
        None => GrantSight::Own,
    };
    Ok(())
}

pub(super) async fn resolve(
    context: &Context,
    key: &ClaimKey,
    observed: &mut Observed,
) -> Result<(), Trouble> {
    let Some(claim) = claim(observed) else {
        return Ok(());
    };
    let pinned = match resolution::resolve(context, &claim.backup_namespace, &claim.backup).await {
        Ok(pinned) => {
            context.memory.update(&key.uid, Remembered::looked);
            Ok(pinned)
        }
        Err(Trouble::Refused(refusal)) => Err(refusal),
        Err(error) => return Err(error),
    };
    observed.archive = Some(pinned);
    Ok(())
}
