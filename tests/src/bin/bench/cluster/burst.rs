//! PVCs made at once, from the first being created to the last being bound.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::ListParams;
use tests::cluster::AuditEvent;
use tests::shared::World;
use tests::tenant::Tenant;
use tests::wait::eventually;

use super::claims::{self, Filled};
use crate::interruption;

/// How long all may take to be bound, and to be gone.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long clients rest after many PVCs: longer than it takes until they may again send as many requests
/// at once as they are shipped with (10 at 5/s, 30 at 20/s, 100 at 50/s).
const REST: Duration = Duration::from_secs(10);

/// How long nobody has asked the API server for anything when all is done.
const QUIET: Duration = Duration::from_secs(3);

/// What it took.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Until all were bound.
    pub seconds: f64,
    /// API requests for each, with what follows when it is bound.
    pub requests: f64,
    /// Pods that were made.
    pub pods: f64,
}

impl Figures {
    /// Each figure by itself.
    pub fn median(all: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = all.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Self {
            seconds: middle(|it| it.seconds),
            requests: middle(|it| it.requests),
            pods: middle(|it| it.pods),
        }
    }
}

/// Makes them, one burst after the other.
pub struct Burst<'a> {
    world: &'a World,
    tenant: &'a Tenant<'a>,
    nodes: Vec<String>,
    made: usize,
}

impl<'a> Burst<'a> {
    /// In the namespace of this tenant.
    pub fn new(world: &'a World, tenant: &'a Tenant<'a>) -> Self {
        let nodes = world.cluster.nodes().iter();
        Self {
            world,
            tenant,
            nodes: nodes.map(|node| node.name().to_owned()).collect(),
            made: 0,
        }
    }

    /// Makes so many at once, and takes them away again.
    pub async fn run(&mut self, filled: &Filled, count: usize) -> Result<Figures> {
        interruption::check()?;
        self.made += 1;
        let names: Vec<String> = (0..count)
            .map(|number| format!("data-{}-{number}", self.made))
            .collect();
        let log = self.world.cluster.audit_log();
        let mark = log.mark()?;
        let begin = Instant::now();
        let count_bound = AtomicUsize::default();
        let made = claims::make(self.tenant, filled, &names, &self.nodes);
        let bound = claims::bound(self.tenant, &names, &count_bound);
        let both = async { tokio::try_join!(made, bound).map(drop) };
        let ended = tokio::time::timeout(PATIENCE, both).await;
        ended.context("not all are bound in time")??;
        let seconds = begin.elapsed().as_secs_f64();
        let counted = || -> Result<Vec<AuditEvent>> {
            let mut events = log.since(mark)?;
            events.retain(|event| filled.counts(event) || event.created("pods"));
            Ok(events)
        };
        let (mut last, mut since) = (counted()?, Instant::now());
        while since.elapsed() < QUIET {
            ensure!(begin.elapsed() < PATIENCE, "it never gets quiet");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = counted()?;
            if now.len() != last.len() {
                (last, since) = (now, Instant::now());
            }
        }
        self.take_away(&names).await?;
        let pods = last.iter().filter(|event| event.created("pods")).count();
        last.retain(|event| filled.counts(event));
        if count > 1 {
            tell(&last, count);
        }
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        Ok(Figures {
            seconds,
            requests: last.len() as f64 / count as f64,
            pods: pods as f64,
        })
    }

    /// The next ones begin where these did.
    async fn take_away(&self, names: &[String]) -> Result<()> {
        try_join_all(names.iter().map(|name| self.tenant.delete_claim(name))).await?;
        let volumes: Api<PersistentVolume> = Api::all(self.world.cluster.client());
        eventually("all volumes are gone", PATIENCE, async || {
            let volumes = volumes.list_metadata(&ListParams::default()).await?;
            let left = volumes.items.len();
            ensure!(left == 0, "{left} PersistentVolumes are left");
            Ok(())
        })
        .await?;
        let rest = if names.len() > 1 { REST } else { QUIET };
        tokio::time::sleep(rest).await;
        Ok(())
    }
}

/// Prints who asked for what, for each PVC.
pub fn tell(events: &[AuditEvent], count: usize) {
    let mut asked: BTreeMap<(&str, &str), BTreeMap<String, usize>> = BTreeMap::new();
    for event in events {
        let user = event.user.rsplit(':').next().unwrap_or_default();
        let program = event.user_agent.split('/').next().unwrap_or_default();
        let subresource = match &*event.subresource {
            "" => String::new(),
            subresource => format!("/{subresource}"),
        };
        let what = format!("{} {}{subresource}", event.verb, event.resource);
        *asked
            .entry((user, program))
            .or_default()
            .entry(what)
            .or_default() += 1;
    }
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    let each = |requests: usize| requests as f64 / count as f64;
    for ((user, program), requests) in asked {
        let all = each(requests.values().sum());
        let requests = requests
            .into_iter()
            .filter(|(_, number)| each(*number) >= 0.1);
        let requests: Vec<_> = requests
            .map(|(what, number)| format!("{what} {:.1}", each(number)))
            .collect();
        println!("    {user} ({program}): {all:.1}, {}", requests.join(", "));
    }
}
