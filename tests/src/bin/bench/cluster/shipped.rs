//! One PVC and 50 at once, beside their peers, with the client limits that everything is shipped with.

use anyhow::Result;
use tests::shared::World;

use super::burst::Burst;
use super::claims::{self, Filled};
use super::library::{self, Library};
use super::{Goals, archive, compared, in_turn};
use crate::table::Row;

/// How often one is made; in turn with its peers.
const ROUNDS: usize = 9;

/// How many are made at once.
const MANY: usize = 50;

/// API requests for each PVC that the direct way may take.
const REQUESTS: f64 = 16.0;

/// What one must know to read the figures.
pub const NOTE: &str = "From PVC created to PVC bound, an archive of 1 MiB. direct: a class of our driver, their \
nodes named as by the scheduler, peer: csi-provisioner makes it empty; of 50 from one VolumeBackup, each node restores \
one, and copies it for the\nothers; with own VolumeBackups each is restored. prime: a class of\nanother driver (attachRequired), Immediate, peers: \
csi-provisioner makes it empty, and lib-volume-populator in the same class, its example with provider \
functions that do\nnothing (PROVIDER_POPULATOR names its program) and the one with pods that write a \
line (HELLO_POPULATOR).\nClient limits as shipped: csi-provisioner, csi-attacher and \
lib-volume-populator 5/s, kube-controller-manager 20/s. Requests without watches, leases, node status\n\
and kubelet's.";

/// All cases.
pub async fn measure(world: &World, rows: &mut Vec<Row>) -> Result<()> {
    let tenant = world.tenant("bench-pvcs").await?;
    archive(world, &tenant).await?;
    claims::own_backups(&tenant, "archive", MANY).await?;
    let mut burst = Burst::new(world, &tenant);
    let direct = Filled::by_us("fast-csi-storage").on_nodes();
    let plain = Filled::empty("fast-csi-storage").on_nodes();
    let goals = |seconds| Goals {
        seconds: Some(seconds),
        requests: Some(REQUESTS),
    };
    println!("one, direct ...");
    let (ours, peer) = in_turn(&mut burst, ROUNDS, &direct, &plain).await?;
    let goal = goals(peer.seconds + 0.3);
    rows.extend(compared("one, direct", "empty", &ours, &peer, goal));
    println!("50 at once, direct, then empty ...");
    let ours = burst.run(&direct, MANY).await?;
    let peer = burst.run(&plain, MANY).await?;
    let goal = goals(peer.seconds * 1.2);
    rows.extend(compared("50 at once, direct", "empty", &ours, &peer, goal));
    println!("50 at once, direct, each from its own VolumeBackup ...");
    let own = direct.of_their_own();
    let ours = burst.run(&own, MANY).await?;
    let name = "50 at once, direct, own VolumeBackups";
    rows.extend(compared(name, "empty", &ours, &peer, goal));

    let prime = Filled::by_us("other-immediate");
    let plain = Filled::empty("other-immediate");
    let none = Goals::default();
    println!("one, prime ...");
    let (one, peer) = in_turn(&mut burst, ROUNDS, &prime, &plain).await?;
    rows.extend(compared("one, prime", "empty", &one, &peer, none));
    println!("50 at once, prime, then empty ...");
    let many = burst.run(&prime, MANY).await?;
    let peer = burst.run(&plain, MANY).await?;
    rows.extend(compared("50 at once, prime", "empty", &many, &peer, none));
    for (example, times) in [(library::FUNCTIONS, Some(0.6)), (library::PODS, None)] {
        let name = example.name;
        let Some(library) = Library::start(world, &tenant, &example).await? else {
            println!("lib-volume-populator, {name}: not measured here");
            continue;
        };
        println!("lib-volume-populator, {name} ...");
        let theirs = library.filled("other-immediate");
        let (one, peer) = in_turn(&mut burst, ROUNDS, &prime, &theirs).await?;
        rows.extend(compared("one, prime", name, &one, &peer, none));
        let peer = burst.run(&theirs, MANY).await?;
        let goal = Goals {
            seconds: times.map(|times| peer.seconds * times),
            ..none
        };
        rows.extend(compared("50 at once, prime", name, &many, &peer, goal));
        library.stop()?;
    }
    Ok(())
}
