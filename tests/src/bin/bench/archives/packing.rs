//! A folder of a volume packed into an object, beside what people write and what they use.

use std::process::Command;

use anyhow::Result;
use tests::command::run;

use super::contest::{Bench, Goal, PEAK, TIMES};
use super::data::Data;
use super::runs::{Caches, Figures};
use crate::interruption;

const TAR: &str = "tar c -C \"$FOLDER\" . | zstd -q -T0 -3 | rclone rcat \"$OBJECT\"";

/// A repository for each turn: what is there already would not be stored again. The object's name is
/// the repository's here.
const RESTIC: &str = "cd \"$FOLDER\"; restic -r \"$STORE/${OBJECT##*/}\" backup -q .";
const RESTIC_BEFORE: &str = "restic -r \"$STORE/${OBJECT##*/}\" init -q";

/// Others than the engine have to understand what it packs.
const UNPACK: &str = "rclone cat \"$OBJECT\" | zstd -dc | tar x -C \"$FOLDER\"";

/// What ours is called.
pub fn key(data: &Data) -> String {
    format!("{}-ours.tar.zst", data.name())
}

/// All rows of a data set. There is an archive of ours then.
pub async fn measure(bench: &mut Bench<'_>, data: &Data) -> Result<()> {
    println!("pack {} ...", data.name());
    let source = bench.driver.volume("source", data.volume()).await?;
    let mut copy = Command::new("cp");
    run(copy
        .arg("-a")
        .arg(data.tree().join("."))
        .arg(&source.staging))?;
    let (mut ours, mut by_tar, mut by_restic) = (Vec::new(), Vec::new(), Vec::new());
    let from = &source.staging;
    for turn in 0..TIMES {
        interruption::check()?;
        ours.push(bench.runs.pack(from, &key(data), Caches::Cold)?);
        by_tar.push(bench.runs.script(TAR, "theirs.tar.zst", from).await?);
        let repository = format!("{}-restic-{turn}", data.name());
        bench.runs.prepare(RESTIC_BEFORE, &repository, from).await?;
        by_restic.push(bench.runs.script(RESTIC, &repository, from).await?);
    }
    bench.driver.remove(source).await?;
    is_whole(bench, data).await?;
    let ours = Figures::median(ours)?;
    let case = format!("pack {}", data.name());
    for (name, theirs, goal) in [
        ("tar c, zstd -T0, rclone", by_tar, Goal::Faster(1.2)),
        ("restic backup", by_restic, Goal::Faster(2.0)),
    ] {
        let case = format!("{case} / {name}");
        bench.compare(&case, ours, Figures::median(theirs)?, Some(goal));
    }
    bench.peak(&case, ours, PEAK);
    Ok(())
}

async fn is_whole(bench: &mut Bench<'_>, data: &Data) -> Result<()> {
    let volume = bench.driver.volume("volume", data.volume()).await?;
    let to = &volume.staging;
    bench.runs.prepare(UNPACK, &key(data), to).await?;
    data.is_same(to)?;
    bench.driver.remove(volume).await?;
    bench.driver.give_back().await
}
