//! A thousand PVCs at once, most of them on simulated nodes, and what that asks of the controller over time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use tests::cluster::{AuditEvent, AuditLog, Mark};
use tests::metrics::Metrics;
use tests::process::{peak_memory, resident_memory};
use tests::product::{self, NAMESPACE};
use tests::shared::World;
use tests::wait::eventually;

use super::claims::{self, Filled};
use super::simulation::Simulation;
use super::{archive, burst, mebibytes};
use crate::interruption;
use crate::table::{self, Row};

/// What one must know to read the figures.
pub const NOTE: &str = "An archive of 1 MiB, the direct way, client limits raised; every tenth PVC on the two nodes, the others on \
simulated ones: Node objects without a kubelet, with our driver and\nour agent as processes of the machine, \
so that volumes are really made and filled. No pod runs there. Memory is VmHWM of the controller. Its queue: PVCs and \
other objects\nthat wait for one of its workers, looked at once a second. API requests without watches, leases, \
node status and kubelet's.";

/// How long all may take to be bound.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How long the controller may take after that to say of all that they are complete, and to be quiet.
const TOLD: Duration = Duration::from_secs(120);

/// How long nobody has asked the API server for anything when all is done.
const QUIET: Duration = Duration::from_secs(3);

/// Most PVCs of a simulated node: a node has no more pods either.
const ON_A_NODE: usize = 100;

/// The memory that the controller may take, in MiB.
const MEMORY: f64 = 100.0;

/// The controller's name among those who ask the API server.
const CONTROLLER: &str = "system:serviceaccount:volume-populator:controller";

const TENANT: &str = "bench-thousand";

/// How many seconds a printed line stands for.
const LINE: usize = 10;

/// Makes `count` PVCs and waits until all are bound.
pub async fn measure(world: &World, count: usize, rows: &mut Vec<Row>) -> Result<()> {
    ensure!(count >= 10, "{count} PVCs are too few for simulated nodes");
    let tenant = world.tenant(TENANT).await?;
    archive(world, &tenant).await?;
    let on_real = count / 10;
    let simulated = (count - on_real).div_ceil(ON_A_NODE).max(2);
    println!(
        "{count} PVCs, {on_real} of them on two nodes, the others on {simulated} simulated ones ..."
    );
    let simulation = Simulation::start(&world.cluster, simulated).await?;
    let nodes = nodes(world, &simulation, count);
    let names: Vec<String> = (0..count).map(|number| format!("data-{number}")).collect();
    let filled = Filled::by_us("fast-csi-storage").on_nodes();

    let mut look = Look::new(world, &filled).await?;
    let begin = look.begin;
    let bound = AtomicUsize::default();
    let made = claims::make(&tenant, &filled, &names, &nodes);
    let all = claims::bound(&tenant, &names, &bound);
    let both = async { tokio::try_join!(made, all).map(drop) };
    let ended = tokio::select! {
        ended = tokio::time::timeout(PATIENCE, both) => ended.context("not all are bound in time"),
        failed = look.keep(&bound, &simulation) => Ok(failed),
    };
    let seconds = begin.elapsed().as_secs_f64();
    look.sample(&bound).await?;
    look.making = look.samples.len();
    print(&look.samples);
    table::write("cluster-thousand-over-time", &look.samples)?;
    ended??;
    look.all_complete(count).await?;
    look.settle(&bound).await?;
    burst::tell(&look.events, count);
    rows.extend(look.totals(count, seconds)?);
    Ok(())
}

/// The node of each PVC: every tenth is on one that pods run on.
fn nodes(world: &World, simulation: &Simulation, count: usize) -> Vec<String> {
    let real = world
        .cluster
        .nodes()
        .iter()
        .map(|node| node.name().to_owned());
    let real: Vec<String> = real.collect();
    let (mut real, mut simulated) = (real.iter().cycle(), simulation.names().iter().cycle());
    let node = |index: usize| {
        let next = if index.is_multiple_of(10) {
            real.next()
        } else {
            simulated.next()
        };
        next.cloned()
    };
    (0..count).filter_map(node).collect()
}

/// What was seen at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    /// Since the beginning.
    seconds: f64,
    /// PVCs that are bound.
    bound: usize,
    /// Restores that the controller calls complete.
    completed: f64,
    /// What waits for one of its workers.
    queue: f64,
    /// The controller's memory, in MiB.
    memory: f64,
    /// Its API requests since the sample before.
    requests: usize,
    /// Those of all.
    all_requests: usize,
}

/// Looks at the controller once a second.
struct Look<'a> {
    client: Client,
    filled: &'a Filled,
    /// The controller's pod and its process.
    controller: (String, u32),
    log: AuditLog,
    mark: Mark,
    begin: Instant,
    events: Vec<AuditEvent>,
    pods: usize,
    samples: Vec<Sample>,
    /// How many samples there were when the last PVC was bound.
    making: usize,
}

impl<'a> Look<'a> {
    async fn new(world: &World, filled: &'a Filled) -> Result<Self> {
        let client = world.cluster.client();
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let only = ListParams::default().labels("app.kubernetes.io/component=controller");
        let pods = pods.list(&only).await?;
        let pod = pods.items.first().context("no controller")?.name_any();
        let containers = product::containers(&world.cluster).await?;
        let mut controllers = containers.iter().filter(|it| it.name == "controller");
        let controller = controllers.next().context("the controller does not run")?;
        let log = world.cluster.audit_log();
        Ok(Self {
            client,
            filled,
            controller: (pod, controller.pid),
            mark: log.mark()?,
            log,
            begin: Instant::now(),
            events: Vec::new(),
            pods: 0,
            samples: Vec::new(),
            making: 0,
        })
    }

    /// Until something is wrong.
    async fn keep(&mut self, bound: &AtomicUsize, simulation: &Simulation) -> Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            interruption::check()?;
            simulation.check()?;
            self.sample(bound).await?;
            if self.samples.len().is_multiple_of(LINE) {
                println!("    {} are bound", bound.load(Ordering::Relaxed));
            }
        }
    }

    async fn sample(&mut self, bound: &AtomicUsize) -> Result<()> {
        let (pod, pid) = &self.controller;
        let metrics = Metrics::of_pod(&self.client, pod, 8080).await?;
        let mut events = self.log.follow(&mut self.mark)?;
        self.pods += events.iter().filter(|it| it.created("pods")).count();
        events.retain(|event| self.filled.counts(event));
        self.samples.push(Sample {
            seconds: self.begin.elapsed().as_secs_f64(),
            bound: bound.load(Ordering::Relaxed),
            completed: completed(&metrics),
            queue: metrics
                .sum("populator_queue_depth", &[])
                .context("the controller does not tell the depth of its queue")?,
            memory: mebibytes(resident_memory(*pid)?),
            requests: by_controller(&events),
            all_requests: events.len(),
        });
        self.events.extend(events);
        Ok(())
    }

    async fn all_complete(&self, count: usize) -> Result<()> {
        eventually(
            "the controller says that all are complete",
            TOLD,
            async || {
                let metrics = Metrics::of_pod(&self.client, &self.controller.0, 8080).await?;
                let completed = completed(&metrics);
                #[allow(clippy::cast_precision_loss, reason = "thousands")]
                let all = completed >= count as f64;
                ensure!(all, "{completed} of {count} are");
                Ok(())
            },
        )
        .await
    }

    /// Until nobody asks for anything any more: what follows when a PVC is bound counts too.
    async fn settle(&mut self, bound: &AtomicUsize) -> Result<()> {
        let begin = Instant::now();
        let mut seen = usize::MAX;
        while seen != self.events.len() {
            ensure!(begin.elapsed() < TOLD, "it never gets quiet");
            seen = self.events.len();
            tokio::time::sleep(QUIET).await;
            self.sample(bound).await?;
        }
        Ok(())
    }

    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn totals(&self, count: usize, seconds: f64) -> Result<Vec<Row>> {
        let case = |what: &str| format!("{count} PVCs: {what}");
        let row = |what: &str, ours: f64, goal: Option<f64>, unit| {
            Row::new(&case(what), ours, None, goal, unit)
        };
        let peak = mebibytes(peak_memory(self.controller.1)?);
        let most = |figure: fn(&Sample) -> f64| {
            let figures = self.samples.iter().map(figure);
            figures.fold(0.0, f64::max)
        };
        let requests = by_controller(&self.events) as f64;
        let each = |requests: f64| requests / count as f64;
        let made = self.samples.iter().take(self.making);
        let while_made: usize = made.map(|it| it.requests).sum();
        Ok(vec![
            row("until all are bound", seconds, None, "s"),
            row("peak memory of the controller", peak, Some(MEMORY), "MiB"),
            row("its queue, at most", most(|it| it.queue), None, "keys"),
            row(
                "its API requests, mean",
                while_made as f64 / seconds,
                None,
                "/s",
            ),
            row("its API requests, at most", self.busiest(), None, "/s"),
            row("its API requests, each", each(requests), None, "requests"),
            row(
                "API requests, each",
                each(self.events.len() as f64),
                None,
                "requests",
            ),
            row("pods", self.pods as f64, Some(0.0), "pods"),
        ])
    }

    /// The most that the controller asked for between two samples, in a second.
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn busiest(&self) -> f64 {
        let rates = self.samples.windows(2).map(|pair| {
            let between = pair[1].seconds - pair[0].seconds;
            pair[1].requests as f64 / between.max(1.0)
        });
        rates.fold(0.0, f64::max)
    }
}

fn completed(metrics: &Metrics) -> f64 {
    let labels = [("namespace", TENANT), ("phase", "Completed")];
    metrics.sum("populator_restores", &labels).unwrap_or(0.0)
}

fn by_controller(events: &[AuditEvent]) -> usize {
    events.iter().filter(|it| it.user == CONTROLLER).count()
}

/// A line for each [`LINE`] samples: figures of its end, the longest queue and the mean rates.
fn print(samples: &[Sample]) {
    println!(
        "\n{:>8} {:>8} {:>10} {:>12} {:>12} {:>16} {:>16}",
        "seconds", "bound", "complete", "queue", "memory, MiB", "its requests/s", "all requests/s"
    );
    let mut before = 0.0;
    for line in samples.chunks(LINE) {
        let Some(last) = line.last() else { continue };
        let between = (last.seconds - before).max(f64::EPSILON);
        before = last.seconds;
        let queue = line.iter().map(|it| it.queue).fold(0.0, f64::max);
        #[allow(clippy::cast_precision_loss, reason = "thousands")]
        let rate = |requests: fn(&Sample) -> usize| {
            line.iter().map(requests).sum::<usize>() as f64 / between
        };
        println!(
            "{:>8.1} {:>8} {:>10.0} {:>12.0} {:>12.1} {:>16.1} {:>16.1}",
            last.seconds,
            last.bound,
            last.completed,
            queue,
            last.memory,
            rate(|it| it.requests),
            rate(|it| it.all_requests)
        );
    }
}
