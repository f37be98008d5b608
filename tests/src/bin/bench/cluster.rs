//! The product on a real cluster: one PVC and many at once, filled by us, beside PVCs of the same
//! class that are made empty and beside lib-volume-populator.

mod burst;
mod library;
mod memory;

use std::fs;

use anyhow::Result;
use tests::odd_tree;
use tests::product::Form;
use tests::shared::World;
use tests::tenant::Tenant;

use self::burst::{Burst, Figures, Filled};
use self::library::Library;
use crate::table::{self, Row};

/// How often one is made; in turn with its peers.
const ROUNDS: usize = 9;

/// How many are made at once.
const MANY: usize = 50;

/// What one must know to read the figures.
const NOTE: &str = "From PVC created to PVC bound, an archive of 1 MiB. direct: a class of our driver, their \
nodes named as by the scheduler, peer: csi-provisioner makes it empty. prime: a class of\nanother driver (attachRequired), Immediate, peers: \
csi-provisioner makes it empty, and lib-volume-populator in the same class, its example with provider \
functions that do\nnothing (PROVIDER_POPULATOR names its program) and the one with pods that write a \
line (HELLO_POPULATOR).\nClient limits as shipped: csi-provisioner, csi-attacher and \
lib-volume-populator 5/s, kube-controller-manager 20/s. Requests without watches, leases, node status\n\
and kubelet's.";

/// All cases.
pub async fn measure() -> Result<()> {
    let world = World::start("bench", Form::StockLimits).await?;
    // Before the others, which take memory too.
    let mut large = Vec::new();
    let mut measured = memory::measure(&world, &mut large).await;
    table::print("1 GiB of real files from a tar.zst", memory::NOTE, &large);
    let mut rows = Vec::new();
    if measured.is_ok() {
        measured = cases(&world, &mut rows).await;
        table::print("PVCs on a cluster", NOTE, &rows);
    }
    rows.extend(large);
    if measured.is_err() {
        println!("{}", world.cluster.describe_failure().await);
    }
    world.server.stop().await?;
    world.cluster.stop().await?;
    measured?;
    table::write("cluster", &rows)
}

async fn cases(world: &World, rows: &mut Vec<Row>) -> Result<()> {
    let tenant = world.tenant("bench-pvcs").await?;
    archive(world, &tenant).await?;
    let mut burst = Burst::new(world, &tenant);
    let direct = Filled::by_us("fast-csi-storage").on_nodes();
    let plain = Filled::empty("fast-csi-storage").on_nodes();
    println!("one, direct ...");
    let (ours, peer) = in_turn(&mut burst, &direct, &plain).await?;
    let goal = Some(peer.seconds + 0.3);
    rows.extend(compared("one, direct", "empty", &ours, &peer, goal));
    println!("50 at once, direct, then empty ...");
    let ours = burst.run(&direct, MANY).await?;
    let peer = burst.run(&plain, MANY).await?;
    let goal = Some(peer.seconds * 1.2);
    rows.extend(compared("50 at once, direct", "empty", &ours, &peer, goal));

    let prime = Filled::by_us("other-immediate");
    let plain = Filled::empty("other-immediate");
    println!("one, prime ...");
    let (one, peer) = in_turn(&mut burst, &prime, &plain).await?;
    rows.extend(compared("one, prime", "empty", &one, &peer, None));
    println!("50 at once, prime, then empty ...");
    let many = burst.run(&prime, MANY).await?;
    let peer = burst.run(&plain, MANY).await?;
    rows.extend(compared("50 at once, prime", "empty", &many, &peer, None));
    for (example, times) in [(library::FUNCTIONS, Some(0.6)), (library::PODS, None)] {
        let Some(library) = Library::start(world, &tenant, &example).await? else {
            println!("lib-volume-populator, {}: not measured here", example.name);
            continue;
        };
        println!("lib-volume-populator, {} ...", example.name);
        let theirs = library.filled("other-immediate");
        let (one, peer) = in_turn(&mut burst, &prime, &theirs).await?;
        rows.extend(compared("one, prime", example.name, &one, &peer, None));
        let peer = burst.run(&theirs, MANY).await?;
        let goal = times.map(|times| peer.seconds * times);
        let case = "50 at once, prime";
        rows.extend(compared(case, example.name, &many, &peer, goal));
        library.stop()?;
    }
    Ok(())
}

/// A store and a VolumeBackup of an archive of 16 files of 64 KiB.
async fn archive(world: &World, tenant: &Tenant<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    let noise = |index: usize| odd_tree::noise(&tree.join(index.to_string()), 64 << 10);
    (0..16).try_for_each(noise)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&tree, &archive, "tar.gz")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    tenant.backup(burst::BACKUP, "archive").await
}

/// One of each, again and again; the medians.
async fn in_turn(
    burst: &mut Burst<'_>,
    ours: &Filled,
    theirs: &Filled,
) -> Result<(Figures, Figures)> {
    let mut all = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        all.0.push(burst.run(ours, 1).await?);
        all.1.push(burst.run(theirs, 1).await?);
    }
    Ok((Figures::median(&all.0), Figures::median(&all.1)))
}

/// API requests for each PVC that the direct way may take.
fn most_requests(case: &str) -> Option<f64> {
    case.ends_with("direct").then_some(16.0)
}

fn compared(
    case: &str,
    peer: &str,
    ours: &Figures,
    theirs: &Figures,
    seconds: Option<f64>,
) -> [Row; 3] {
    let name = |what: &str| format!("{case} / {peer}{what}");
    let row = |what: &str, ours: f64, theirs: f64, goal, unit| {
        Row::new(&name(what), ours, Some(theirs), goal, unit)
    };
    let (requests, pods) = (most_requests(case), Some(0.0));
    [
        row("", ours.seconds, theirs.seconds, seconds, "s"),
        row(
            ": API requests each",
            ours.requests,
            theirs.requests,
            requests,
            "requests",
        ),
        row(": pods", ours.pods, theirs.pods, pods, "pods"),
    ]
}
