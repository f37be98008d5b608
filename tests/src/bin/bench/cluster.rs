//! The product on a real cluster: PVCs filled by us, one, many at once and a thousand, beside PVCs of the
//! same class that are made empty and beside lib-volume-populator.

mod burst;
mod claims;
mod clones;
mod library;
mod memory;
mod raised;
mod shipped;
mod simulation;
mod thousand;

use std::fs;

use anyhow::{Result, ensure};
use tests::odd_tree;
use tests::product::Form;
use tests::shared::World;
use tests::tenant::Tenant;

use self::burst::{Burst, Figures};
use self::claims::Filled;
use crate::table::{self, Row};

/// What can be measured by itself, in the order in which all is.
const PARTS: [&str; 5] = ["memory", "shipped", "raised", "clones", "thousand"];

/// All parts, or one; so many PVCs in that of a thousand.
pub async fn measure(part: Option<&str>, count: usize) -> Result<()> {
    ensure!(
        part.is_none_or(|part| PARTS.contains(&part)),
        "{} is no part of the benchmark on a cluster; there are {}",
        part.unwrap_or_default(),
        PARTS.join(", ")
    );
    let wants = |names: &[&str]| part.is_none_or(|part| names.contains(&part));
    let mut rows = Vec::new();
    if wants(&["memory", "shipped"]) {
        on("bench", Form::StockLimits, async |world| {
            // Before the others, which take memory too.
            if wants(&["memory"]) {
                let title = "1 GiB of real files from a tar.zst";
                let measure = async |rows: &mut _| memory::measure(world, rows).await;
                shown(title, memory::NOTE, &mut rows, measure).await?;
            }
            if wants(&["shipped"]) {
                let title = "PVCs on a cluster, client limits as shipped";
                let measure = async |rows: &mut _| shipped::measure(world, rows).await;
                shown(title, shipped::NOTE, &mut rows, measure).await?;
            }
            Ok(())
        })
        .await?;
    }
    if wants(&["raised", "clones", "thousand"]) {
        on("bench-raised", Form::RaisedLimits, async |world| {
            if wants(&["raised"]) {
                let title = "PVCs on a cluster, client limits raised";
                let measure = async |rows: &mut _| raised::measure(world, rows).await;
                shown(title, raised::NOTE, &mut rows, measure).await?;
            }
            if wants(&["clones"]) {
                let title = "Many PVCs from one VolumeBackup with a cache";
                let measure = async |rows: &mut _| clones::measure(world, rows).await;
                shown(title, clones::NOTE, &mut rows, measure).await?;
            }
            // Last: nobody deletes volumes of simulated nodes.
            if wants(&["thousand"]) {
                let title = format!("{count} PVCs at once");
                let measure = async |rows: &mut _| thousand::measure(world, count, rows).await;
                shown(&title, thousand::NOTE, &mut rows, measure).await?;
            }
            Ok(())
        })
        .await?;
    }
    // A part does not replace the whole.
    let part = part.map_or_else(String::new, |part| format!("-{part}"));
    table::write(&format!("cluster{part}"), &rows)
}

/// Measures on a cluster of its own, which is taken away however that ends.
async fn on<F>(name: &str, form: Form, measure: F) -> Result<()>
where
    F: AsyncFnOnce(&World) -> Result<()>,
{
    let world = World::start(name, form).await?;
    let measured = measure(&world).await;
    if measured.is_err() {
        println!("{}", world.cluster.describe_failure().await);
    }
    world.server.stop().await?;
    world.cluster.stop().await?;
    measured
}

/// Prints what was measured, also when the rest failed, and adds it to all rows.
async fn shown<F>(title: &str, note: &str, all: &mut Vec<Row>, measure: F) -> Result<()>
where
    F: AsyncFnOnce(&mut Vec<Row>) -> Result<()>,
{
    let mut rows = Vec::new();
    let measured = measure(&mut rows).await;
    table::print(title, note, &rows);
    all.append(&mut rows);
    measured
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
    tenant.backup(claims::BACKUP, "archive").await
}

/// One of each, again and again; the medians.
async fn in_turn(
    burst: &mut Burst<'_>,
    rounds: usize,
    ours: &Filled,
    theirs: &Filled,
) -> Result<(Figures, Figures)> {
    let mut all = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        all.0.push(burst.run(ours, 1).await?);
        all.1.push(burst.run(theirs, 1).await?);
    }
    Ok((Figures::median(&all.0), Figures::median(&all.1)))
}

/// The most that ours may take.
#[derive(Clone, Copy, Debug, Default)]
struct Goals {
    seconds: Option<f64>,
    /// API requests for each PVC.
    requests: Option<f64>,
}

fn compared(case: &str, peer: &str, ours: &Figures, theirs: &Figures, goals: Goals) -> [Row; 3] {
    let row = |what: &str, ours: f64, theirs: f64, goal, unit| {
        let name = format!("{case} / {peer}{what}");
        Row::new(&name, ours, Some(theirs), goal, unit)
    };
    let Goals { seconds, requests } = goals;
    let (what, unit) = (": API requests each", "requests");
    [
        row("", ours.seconds, theirs.seconds, seconds, "s"),
        row(what, ours.requests, theirs.requests, requests, unit),
        row(": pods", ours.pods, theirs.pods, Some(0.0), "pods"),
    ]
}

#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
