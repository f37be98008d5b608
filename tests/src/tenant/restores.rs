//! What the populator does and says about a PVC that it fills, and what it leaves behind: nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crds::{RestoreOrder, VolumeRestore};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};

use super::{Claim, Tenant, traces};
use crate::{product::NAMESPACE, wait::eventually};

impl Tenant<'_> {
    /// Waits until the PVC is bound and its VolumeRestore says that it is complete.
    pub async fn completed(&self, claim: &str, within: Duration) -> Result<VolumeRestore> {
        eventually(
            &format!("PVC {claim} is filled and bound"),
            within,
            || async {
                let restore = self.api::<VolumeRestore>().get(claim).await?;
                let status = restore.status.clone().unwrap_or_default();
                ensure!(
                    status.phase == crds::volume_restore::Phase::Completed,
                    "the VolumeRestore is {:?}: {:?}",
                    status.phase,
                    status.conditions
                );
                ensure!(self.phase(claim).await? == "Bound", "the PVC is not bound");
                Ok(restore)
            },
        )
        .await
    }

    /// Waits for the one Warning event of the populator about a PVC whose reason is `reason`, and
    /// for the same words in the VolumeRestore's condition; the PVC is still Pending. Returns them.
    pub async fn warned(&self, claim: &Claim, reason: &str, within: Duration) -> Result<String> {
        eventually(
            &format!("PVC {} is refused: {reason}", claim.name),
            within,
            || async {
                let warnings = self.warnings(claim).await?;
                let said = warnings.iter().map(|event| {
                    let reason = event.reason.clone().unwrap_or_default();
                    (reason, event.message.clone().unwrap_or_default())
                });
                let said: Vec<_> = said.collect();
                let restore = self.api::<VolumeRestore>().get(&claim.name).await?;
                let status = restore.status.unwrap_or_default();
                let ready = status
                    .conditions
                    .iter()
                    .find(|condition| condition.type_ == crds::READY);
                let ready = ready.context("the VolumeRestore has no Ready condition")?;
                ensure!(
                    ready.reason == reason,
                    "its condition is {}: {}",
                    ready.reason,
                    ready.message
                );
                ensure!(ready.status == "False", "its condition is {}", ready.status);
                let same = said
                    .iter()
                    .filter(|(_, message)| *message == ready.message)
                    .count();
                ensure!(
                    same == 1,
                    "the condition says {:?}, the events {said:?}",
                    ready.message
                );
                ensure!(said.len() == 1, "there is more than one Warning: {said:?}");
                ensure!(
                    self.phase(&claim.name).await? == "Pending",
                    "the PVC is not Pending"
                );
                Ok(ready.message.clone())
            },
        )
        .await
    }

    /// The populator's Warning events about a PVC.
    pub async fn warnings(&self, claim: &Claim) -> Result<Vec<Event>> {
        let mut events = self.told(claim).await?;
        events.retain(|event| event.type_.as_deref() == Some("Warning"));
        Ok(events)
    }

    /// The populator's events about a PVC.
    pub async fn told(&self, claim: &Claim) -> Result<Vec<Event>> {
        let selector = format!("involvedObject.uid={}", claim.uid);
        let events = self
            .api::<Event>()
            .list(&ListParams::default().fields(&selector))
            .await?;
        let ours = |event: &Event| {
            let source = event
                .source
                .as_ref()
                .and_then(|source| source.component.as_deref());
            [event.reporting_component.as_deref(), source].contains(&Some("populator"))
        };
        Ok(events.items.into_iter().filter(ours).collect())
    }

    /// Waits until bytes are being written for the PVC.
    pub async fn restoring(&self, claim: &str, within: Duration) -> Result<RestoreOrder> {
        self.written(claim, 1, within).await
    }

    /// Waits until so many bytes are written into a PVC's volume; its order then.
    pub async fn written(&self, claim: &str, bytes: i64, within: Duration) -> Result<RestoreOrder> {
        let uid = self
            .api::<PersistentVolumeClaim>()
            .get(claim)
            .await?
            .uid()
            .context("a UID")?;
        let orders = Api::<RestoreOrder>::namespaced(self.cluster.client(), NAMESPACE);
        eventually(&format!("PVC {claim} is being filled"), within, || async {
            let order = orders.get(&format!("pvc-{uid}")).await?;
            let status = order.status.clone().unwrap_or_default();
            let progress = status.progress.unwrap_or_default();
            ensure!(
                progress.bytes_written >= bytes,
                "the order is {:?}: {progress:?}",
                status.state
            );
            Ok(order)
        })
        .await
    }

    /// Waits for a Warning of the populator about a PVC, whatever it says by now.
    pub async fn was_told(&self, claim: &Claim, reason: &str, within: Duration) -> Result<()> {
        let what = format!("PVC {} was told {reason}", claim.name);
        eventually(&what, within, || async {
            let told = self.warnings(claim).await?;
            let mut reasons = told.iter().filter_map(|event| event.reason.as_deref());
            ensure!(reasons.any(|it| it == reason), "{told:?}");
            Ok(())
        })
        .await
    }

    /// Pauses a restore, and waits until it says so and its agent has nothing mounted for it.
    pub async fn pause(&self, claim: &str, within: Duration) -> Result<()> {
        self.set_paused(claim, true).await?;
        let uid = self.api::<PersistentVolumeClaim>().get(claim).await?;
        let uid = uid.uid().context("a UID")?;
        eventually(&format!("PVC {claim} is paused"), within, || async {
            let restore = self.api::<VolumeRestore>().get(claim).await?;
            let status = restore.status.unwrap_or_default();
            let reasons: Vec<_> = status.conditions.iter().map(|it| &it.reason).collect();
            ensure!(reasons.iter().any(|it| *it == "Paused"), "{reasons:?}");
            let orders = Api::<RestoreOrder>::namespaced(self.cluster.client(), NAMESPACE);
            let order = orders.get(&format!("pvc-{uid}")).await?;
            let order_uid = order.uid().context("a UID")?;
            let table = std::fs::read_to_string("/proc/self/mounts")?;
            ensure!(!table.contains(&order_uid), "something is mounted");
            Ok(())
        })
        .await
    }

    /// Has a paused restore go on.
    pub async fn resume(&self, claim: &str) -> Result<()> {
        self.set_paused(claim, false).await
    }

    async fn set_paused(&self, claim: &str, paused: bool) -> Result<()> {
        let change = serde_json::json!({"spec": {"paused": paused}});
        self.api::<VolumeRestore>()
            .patch(claim, &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        Ok(())
    }

    /// Waits until a deleted PVC and its VolumeRestore are gone, and nothing is left of them.
    pub async fn forgotten(&self, claim: &Claim, within: Duration) -> Result<()> {
        self.deleted(claim, within).await?;
        self.nothing_left(claim, within).await
    }

    /// [`Self::forgotten`] as far as the API server knows, while other restores go on.
    pub async fn withdrawn(&self, claim: &Claim, within: Duration) -> Result<()> {
        self.deleted(claim, within).await?;
        self.no_objects_left(claim, within).await
    }

    async fn deleted(&self, claim: &Claim, within: Duration) -> Result<()> {
        let what = format!("PVC {} is gone", claim.name);
        eventually(&what, within, || async {
            let claims = self.api::<PersistentVolumeClaim>();
            let there = claims.get_opt(&claim.name).await?;
            ensure!(there.is_none(), "the PVC is there");
            let restores = self.api::<VolumeRestore>();
            let there = restores.get_opt(&claim.name).await?;
            ensure!(there.is_none(), "the VolumeRestore is there");
            Ok(())
        })
        .await
    }

    /// Waits until nothing of a restore is left: no object, and on no node a volume in the pool, a loop
    /// device on it, or a mount of the agent's.
    pub async fn nothing_left(&self, claim: &Claim, within: Duration) -> Result<()> {
        let name = format!("pvc-{}", claim.uid);
        eventually(&format!("nothing is left of {name}"), within, || async {
            self.look_for_objects(claim).await?;
            for node in self.cluster.nodes() {
                let traces = traces::of(node, &name)?;
                ensure!(traces.is_empty(), "on {}: {traces:?}", node.name());
            }
            Ok(())
        })
        .await
    }

    /// Waits until no object of a restore is left: no order, no PV, no prime PVC, no VolumeAttachment.
    pub async fn no_objects_left(&self, claim: &Claim, within: Duration) -> Result<()> {
        let what = format!("no object is left of PVC {}", claim.name);
        eventually(&what, within, || self.look_for_objects(claim)).await
    }

    async fn look_for_objects(&self, claim: &Claim) -> Result<()> {
        let name = format!("pvc-{}", claim.uid);
        let client = self.cluster.client();
        let orders = Api::<RestoreOrder>::namespaced(client.clone(), NAMESPACE);
        if let Some(order) = orders.get_opt(&name).await? {
            bail!(
                "RestoreOrder: goal {:?}, status {:?}",
                order.spec.goal,
                order.status
            );
        }
        let primes = Api::<PersistentVolumeClaim>::namespaced(client.clone(), NAMESPACE);
        let prime = primes.get_opt(&format!("prime-{}", claim.uid)).await?;
        ensure!(prime.is_none(), "the prime PVC is there");
        let label = format!("backup.example.com/claim-uid={}", claim.uid);
        let attachments = Api::<VolumeAttachment>::all(client.clone());
        let attached = attachments
            .list(&ListParams::default().labels(&label))
            .await?;
        ensure!(attached.items.is_empty(), "it is attached");
        let volumes: Api<PersistentVolume> = Api::all(client);
        ensure!(volumes.get_opt(&name).await?.is_none(), "the PV is there");
        Ok(())
    }
}
