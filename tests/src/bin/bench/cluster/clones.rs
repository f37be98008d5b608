//! Many PVCs from one large VolumeBackup with a cache: the first is read from the store, the others are made
//! from a snapshot of it.

use std::fs;

use anyhow::Result;
use serde_json::json;
use tests::metrics::Metrics;
use tests::odd_tree;
use tests::shared::World;
use tests::tenant::Tenant;

use super::burst::Burst;
use super::claims::{self, Filled};
use super::{Goals, compared, in_turn};
use crate::table::Row;

/// What one must know to read the figures.
pub const NOTE: &str = "An archive of 1 GiB, a VolumeBackup with cache, PVCs of 2 GiB of a class with immediate binding; client \
limits raised. peer: csi-provisioner makes them empty. Bytes: what all agents have\nfetched meanwhile, by \
their own count.";

const CLASS: &str = "fast-csi-storage-immediate";

/// Files of the archive, and the size of each.
const FILES: (usize, u64) = (16, 64 << 20);

/// The second PVC is made so often, in turn with an empty one.
const ROUNDS: usize = 5;

/// The second to the fiftieth.
const MANY: usize = 49;

/// How many times as long as an empty one.
const TIMES: f64 = 1.5;

/// The first, the next one, and all others at once.
pub async fn measure(world: &World, rows: &mut Vec<Row>) -> Result<()> {
    let tenant = world.tenant("bench-clones").await?;
    archive(world, &tenant).await?;
    let mut burst = Burst::new(world, &tenant);
    let ours = Filled::by_us(CLASS).sized("2Gi");
    let plain = Filled::empty(CLASS).sized("2Gi");
    println!("the first of many ...");
    let before = fetched(world).await?;
    let first = burst.run(&ours, 1).await?;
    let read = fetched(world).await? - before;
    rows.push(Row::new("the first", first.seconds, None, None, "s"));
    rows.push(Row::new("the first: bytes read", read, None, None, "B"));

    let before = fetched(world).await?;
    println!("the next one, and an empty one ...");
    let (next, peer) = in_turn(&mut burst, ROUNDS, &ours, &plain).await?;
    rows.extend(compared(
        "the next",
        "empty",
        &next,
        &peer,
        goal(peer.seconds),
    ));
    println!("the next {MANY} at once, then empty ...");
    let many = burst.run(&ours, MANY).await?;
    let peer = burst.run(&plain, MANY).await?;
    let case = format!("the next {MANY} at once");
    rows.extend(compared(&case, "empty", &many, &peer, goal(peer.seconds)));
    let read = fetched(world).await? - before;
    rows.push(Row::new(
        "all but the first: bytes read",
        read,
        None,
        Some(0.0),
        "B",
    ));
    Ok(())
}

fn goal(empty: f64) -> Goals {
    Goals {
        seconds: Some(empty * TIMES),
        requests: None,
    }
}

async fn archive(world: &World, tenant: &Tenant<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    let (files, bytes) = FILES;
    let noise = |index: usize| odd_tree::noise(&tree.join(index.to_string()), bytes);
    (0..files).try_for_each(noise)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&tree, &archive, "tar")?;
    let put = world.server.put_file(&tenant.name, "archive", &archive);
    put.await?;
    let cache = json!({"cache": {"timeToLiveSeconds": 3600}});
    tenant.backup_as(claims::BACKUP, "archive", cache).await
}

/// Bytes that all agents have fetched so far.
async fn fetched(world: &World) -> Result<f64> {
    let agents = "app.kubernetes.io/component=agent";
    let agents = Metrics::of_pods(&world.cluster.client(), agents, 8080).await?;
    let counted = agents.iter();
    Ok(counted
        .filter_map(|it| it.sum("populator_bytes_fetched_total", &[]))
        .sum())
}
