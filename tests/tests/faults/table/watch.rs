//! What became of the restores of a round.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use crds::{READY, VolumeRestore, volume_restore::Phase};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt as _, api::ListParams};
use tests::product;

use super::{
    ends::{End, permitted},
    event::Event,
    round::{Round, WAIT},
    step::Step,
};

/// How often everything is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What is seen of one restore.
#[derive(Clone, Debug, Default)]
struct Sight {
    claim: Option<String>,
    phase: Option<Phase>,
    reason: Option<String>,
    message: Option<String>,
}

/// What became of one restore: its end and when, or what was seen in the end.
pub type Outcome = Result<(End, Duration), String>;

/// The reason of a VolumeRestore's condition.
pub fn ready(restore: &VolumeRestore) -> Option<String> {
    let conditions = &restore.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|it| it.type_ == READY)?;
    Some(ready.reason.clone())
}

/// Waits until each restore has come to one of its ends, or cannot any more.
pub async fn ends(round: &Round<'_>, since: Instant) -> BTreeMap<Step, Outcome> {
    let mut outcomes = BTreeMap::new();
    let mut last = BTreeMap::new();
    while outcomes.len() < round.claims.len() && since.elapsed() < WAIT {
        // The API server may be away.
        if let Ok(sights) = look(round).await {
            last = sights;
        }
        for step in round.claims.keys() {
            let Some(sight) = last.get(step).filter(|_| !outcomes.contains_key(step)) else {
                continue;
            };
            if let Some(end) = sight.end(round.event, *step) {
                outcomes.insert(*step, Ok((end, since.elapsed())));
            } else if sight.phase == Some(Phase::Failed) {
                outcomes.insert(*step, Err(sight.to_string()));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    for step in round.claims.keys() {
        let stuck = || {
            Err(last
                .get(step)
                .map_or("never seen".to_owned(), Sight::to_string))
        };
        outcomes.entry(*step).or_insert_with(stuck);
    }
    outcomes
}

async fn look(round: &Round<'_>) -> Result<BTreeMap<Step, Sight>, kube::Error> {
    let (claims, restores) = (
        list::<PersistentVolumeClaim>(&round.tenant.api()).await?,
        list::<VolumeRestore>(&round.tenant.api()).await?,
    );
    let seen = |step: &Step| {
        let name = step.claim();
        let claim = claims.get(&name);
        let status = restores.get(&name).and_then(|it| it.status.clone());
        let condition = status.as_ref().and_then(|status| {
            let ready = status.conditions.iter().find(|it| it.type_ == READY);
            ready.cloned()
        });
        Sight {
            claim: claim.map(|it| {
                it.status
                    .clone()
                    .and_then(|it| it.phase)
                    .unwrap_or_default()
            }),
            phase: restores
                .get(&name)
                .map(|_| status.map(|it| it.phase).unwrap_or_default()),
            reason: condition.as_ref().map(|it| it.reason.clone()),
            message: condition.map(|it| it.message),
        }
    };
    Ok(round
        .claims
        .keys()
        .map(|step| (*step, seen(step)))
        .collect())
}

async fn list<K>(api: &Api<K>) -> Result<BTreeMap<String, K>, kube::Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let all = api.list(&ListParams::default()).await?;
    Ok(all.into_iter().map(|it| (it.name_any(), it)).collect())
}

impl fmt::Display for Sight {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |text: &Option<String>| text.clone().unwrap_or_default();
        write!(
            to,
            "the PVC is {:?}, its VolumeRestore {:?}, {}: {}",
            self.claim,
            self.phase,
            said(&self.reason),
            said(&self.message)
        )
    }
}

impl Sight {
    /// The end that this is, of those that are permitted.
    fn end(&self, event: Event, step: Step) -> Option<End> {
        let is_bound = self.claim.as_deref() == Some("Bound");
        let is = |reason: &str| {
            self.claim.as_deref() == Some("Pending") && self.reason.as_deref() == Some(reason)
        };
        let has_come = |end: &End| match end {
            End::Complete | End::Replaced | End::Stranded => {
                is_bound && self.phase == Some(Phase::Completed)
            }
            End::Over(reason) => is(reason) && self.phase == Some(Phase::Failed),
            End::Waits(reason) => is(reason) && self.phase != Some(Phase::Failed),
            End::Gone => self.claim.is_none() && self.phase.is_none(),
        };
        permitted(event, step).iter().copied().find(has_come)
    }
}

/// Whatever is told stands in the manual, in the column of reasons.
pub fn in_manual(reason: &str) -> Result<()> {
    let manual = product::repository().join("docs/troubleshooting.md");
    let manual = std::fs::read_to_string(manual)?;
    let row = format!("| `{reason}` |");
    ensure!(
        manual.contains(&row),
        "{reason} is not in docs/troubleshooting.md"
    );
    Ok(())
}
