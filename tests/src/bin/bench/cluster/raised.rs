//! 50 PVCs at once where no client waits for its turn: then what is left is the work itself, which the
//! agents time.

use anyhow::Result;
use tests::metrics::Metrics;
use tests::shared::World;

use super::burst::{Burst, Figures};
use super::claims::{self, Filled};
use super::{Goals, archive, compared};
use crate::table::Row;

/// How often; in turn with its peer.
const ROUNDS: usize = 3;

/// How many are made at once.
const MANY: u16 = 50;

/// How many volumes an agent fills at once: its `--concurrency`, which `deploy/` leaves as it is.
const PLACES: u16 = 4;

/// What one must know to read the figures.
pub const NOTE: &str = "As above, each from a VolumeBackup of its own, medians of three in turn. Limits: kube-controller-manager, kube-scheduler, kubelets \
and all sidecars 1000/s, 2000 at once; controller and agents have none.\nmkfs, stage and sync: the seconds \
that the agents' own metrics count in NodeStageVolume (which makes the file system), NodePublishVolume, \
syncfs, NodeUnpublishVolume\nand NodeUnstageVolume, added up over all 50 volumes and divided by how many are \
filled at once: 4 on each node that volumes lie on, two (direct) or one (prime).";

/// Something that an agent does for a volume that is filled, and csi-provisioner does not for an empty one.
struct Step {
    name: &'static str,
    /// Which of the agent's figures says how many seconds it took.
    figure: &'static str,
    labels: &'static [(&'static str, &'static str)],
}

const STEPS: [Step; 5] = [
    call("mkfs and stage", &[("call", "NodeStageVolume")]),
    call("publish", &[("call", "NodePublishVolume")]),
    Step {
        name: "sync",
        figure: "populator_sync_seconds_sum",
        labels: &[],
    },
    call("unpublish", &[("call", "NodeUnpublishVolume")]),
    call("unstage", &[("call", "NodeUnstageVolume")]),
];

const fn call(name: &'static str, labels: &'static [(&'static str, &'static str)]) -> Step {
    Step {
        name,
        figure: "populator_csi_call_seconds_sum",
        labels,
    }
}

/// Seconds of each step, of all volumes.
type Work = [f64; STEPS.len()];

/// Both ways.
pub async fn measure(world: &World, rows: &mut Vec<Row>) -> Result<()> {
    let tenant = world.tenant("bench-raised").await?;
    archive(world, &tenant).await?;
    claims::own_backups(&tenant, "archive", MANY.into()).await?;
    let mut burst = Burst::new(world, &tenant);
    let direct = Case {
        name: "50 at once, direct",
        ours: Filled::by_us("fast-csi-storage").on_nodes().of_their_own(),
        plain: Filled::empty("fast-csi-storage").on_nodes(),
        nodes: u16::try_from(world.cluster.nodes().len())?,
    };
    let prime = Case {
        name: "50 at once, prime",
        ours: Filled::by_us("other-immediate").of_their_own(),
        plain: Filled::empty("other-immediate"),
        nodes: 1,
    };
    for case in [direct, prime] {
        println!("{}, then empty, limits raised ...", case.name);
        rows.extend(case.measure(world, &mut burst).await?);
    }
    Ok(())
}

struct Case {
    name: &'static str,
    ours: Filled,
    plain: Filled,
    /// On how many nodes volumes lie.
    nodes: u16,
}

impl Case {
    async fn measure(&self, world: &World, burst: &mut Burst<'_>) -> Result<Vec<Row>> {
        let (mut ours, mut plain, mut work) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = counted(world).await?;
            ours.push(burst.run(&self.ours, MANY.into()).await?);
            let after = counted(world).await?;
            work.push(std::array::from_fn(|step| after[step] - before[step]));
            plain.push(burst.run(&self.plain, MANY.into()).await?);
        }
        let (ours, plain) = (Figures::median(&ours), Figures::median(&plain));
        Ok(self.rows(&ours, &plain, &median(&work)))
    }

    fn rows(&self, ours: &Figures, plain: &Figures, work: &Work) -> Vec<Row> {
        let name = self.name;
        let none = Goals::default();
        let mut rows = Vec::from(compared(name, "empty", ours, plain, none));
        let at_once = f64::from(MANY.min(PLACES * self.nodes));
        let least = plain.seconds + work.iter().sum::<f64>() / at_once;
        let case = format!("{name} / empty, mkfs, stage and sync");
        let goal = Some(least * 1.5);
        rows.push(Row::new(&case, ours.seconds, Some(least), goal, "s"));
        for (step, seconds) in STEPS.iter().zip(work) {
            let case = format!("{name}: {}, each", step.name);
            let each = seconds / f64::from(MANY);
            rows.push(Row::new(&case, each, None, None, "s"));
        }
        rows
    }
}

/// What all agents have counted so far.
async fn counted(world: &World) -> Result<Work> {
    let agents = "app.kubernetes.io/component=agent";
    let agents = Metrics::of_pods(&world.cluster.client(), agents, 8080).await?;
    Ok(STEPS.map(|step| {
        // An agent that has filled nothing yet has not begun to count calls.
        let seconds = agents.iter();
        let seconds = seconds.filter_map(|it| it.sum(step.figure, step.labels));
        seconds.sum()
    }))
}

/// Each step by itself.
fn median(all: &[Work]) -> Work {
    std::array::from_fn(|step| {
        let mut seconds: Vec<f64> = all.iter().map(|work| work[step]).collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    })
}
