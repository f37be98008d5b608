//! What restores that have ended are like: whole, or explained; and gone when they are deleted.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    ends::End,
    round::{Round, WAIT},
    step::Step,
    watch::{self, Outcome},
};

impl Round<'_> {
    /// Looks into every volume and at every sentence, and then takes all away.
    pub async fn judge(&self, outcomes: &mut BTreeMap<Step, Outcome>) -> Result<()> {
        let bound = outcomes
            .iter()
            .filter(|(_, it)| matches!(it, Ok((End::Complete | End::Replaced, _))));
        let bound: Vec<_> = bound.map(|(step, _)| *step).collect();
        self.read(&bound).await?;
        for (step, outcome) in outcomes.iter_mut() {
            let Ok((end, _)) = *outcome else {
                continue;
            };
            if let Err(error) = self.look_at(*step, end).await {
                *outcome = Err(format!("{end}: {error:#}"));
            }
        }
        self.delete_pods().await?;
        let claims = self.tenant.api::<PersistentVolumeClaim>();
        for claim in claims.list(&ListParams::default()).await? {
            self.tenant.delete_claim(&claim.name_any()).await?;
        }
        if !self.node().is_up() {
            self.bury().await?;
        }
        for (step, outcome) in outcomes {
            let withdrawn = self.tenant.withdrawn(&self.claims[step], WAIT);
            if let Err(error) = withdrawn.await {
                *outcome = Err(format!("{error:#}"));
            }
        }
        Ok(())
    }

    async fn look_at(&self, step: Step, end: End) -> Result<()> {
        match end {
            End::Complete => self.compare(step, &self.archives.original).await,
            End::Replaced => self.compare(step, &self.archives.other).await,
            End::Over(reason) => {
                watch::in_manual(reason)?;
                let claim = &self.claims[&step];
                self.tenant.no_objects_left(claim, WAIT).await
            }
            End::Waits(reason) => watch::in_manual(reason),
            End::Stranded | End::Gone => Ok(()),
        }
    }

    /// Takes away the PVs of volumes that lay on the node that is gone, as an administrator does: no
    /// provisioner can delete such a volume.
    async fn bury(&self) -> Result<()> {
        let volumes: Api<PersistentVolume> = Api::all(self.world.cluster.client());
        let there = json!(self.node().name());
        for volume in volumes.list(&ListParams::default()).await? {
            let terms = json!(
                volume
                    .spec
                    .as_ref()
                    .and_then(|it| it.node_affinity.as_ref())
            );
            let values =
                &terms["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"];
            if values[0] != there {
                continue;
            }
            let name = volume.name_any();
            let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            volumes.delete(&name, &DeleteParams::default()).await?;
            // That it is gone already is what was wanted.
            let _ = volumes.patch(&name, &PatchParams::default(), &free).await;
        }
        Ok(())
    }
}
