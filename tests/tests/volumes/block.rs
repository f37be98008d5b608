//! Raw block volumes: what a pod writes to the device is what it, a restored snapshot and a clone of
//! the device have.

use anyhow::{Result, ensure};
use futures::try_join;
use serde_json::{Value, json};
use tests::{
    shared::{SharedSuite, World},
    tenant::{Tenant, Use, claim_source, snapshot_source},
};

use crate::{EXT4, STAY, WAIT};

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_raw_block_volume_and_its_copies", copies);
}

/// 4 MiB of lines, none like another, that only this word makes.
fn pattern(word: &str) -> String {
    format!("seq 1000000 9999999 | sed 's/^/{word} /' | head -c $((4 << 20))")
}

/// Writes the pattern to the beginning of the device and to its end. It syncs nothing: snapshots and
/// clones have to see to that.
fn write(word: &str) -> String {
    let pattern = pattern(word);
    format!(
        "set -e
        {pattern} > /dev/data
        {pattern} | dd of=/dev/data bs=1M seek=1020 iflag=fullblock conv=notrunc 2> /dev/null"
    )
}

/// The pattern's digest, and those of where it should be.
fn read(word: &str) -> String {
    let pattern = pattern(word);
    format!(
        "{pattern} | md5sum
        head -c $((4 << 20)) /dev/data | md5sum
        dd if=/dev/data bs=1M skip=1020 2> /dev/null | md5sum"
    )
}

async fn copies(world: &World) -> Result<()> {
    let tenant = world.tenant("block").await?;
    tenant.claim_with("source", &EXT4, as_block).await?;
    pod(&tenant, "source").await?;
    let size = tenant
        .exec("source", "blockdev --getsize64 /dev/data")
        .await?;
    ensure!(size.trim() == "1073741824", "the device has {size:?} bytes");
    tenant.exec("source", &write("first")).await?;
    tenant.snapshot("snapshot", "source").await?;
    tenant.snapshot_ready("snapshot", WAIT).await?;
    tenant.exec("source", &write("second")).await?;
    let (snapshot, source) = (snapshot_source("snapshot"), claim_source("source"));
    try_join!(
        copied(&tenant, "restored", snapshot, ["first", "third"]),
        copied(&tenant, "clone", source, ["second", "fourth"]),
    )?;
    // What is read then comes from the disk.
    try_join!(
        staged_anew(&tenant, "source", "second"),
        staged_anew(&tenant, "restored", "third"),
        staged_anew(&tenant, "clone", "fourth"),
    )?;
    Ok(())
}

/// Makes a PVC that has the one pattern, and writes the other to it.
async fn copied(tenant: &Tenant<'_>, name: &str, source: Value, words: [&str; 2]) -> Result<()> {
    let change = |claim: &mut Value| {
        as_block(claim);
        claim["spec"]["dataSource"] = source;
    };
    tenant.claim_with(name, &EXT4, change).await?;
    pod(tenant, name).await?;
    has(tenant, name, words[0]).await?;
    tenant.exec(name, &write(words[1])).await.map(drop)
}

async fn staged_anew(tenant: &Tenant<'_>, name: &str, word: &str) -> Result<()> {
    tenant.delete_pod(name).await?;
    tenant.unstaged(name, WAIT).await?;
    pod(tenant, name).await?;
    has(tenant, name, word).await
}

fn as_block(claim: &mut Value) {
    claim["spec"]["volumeMode"] = json!("Block");
}

/// A pod of the same name as the PVC whose device it has.
async fn pod(tenant: &Tenant<'_>, name: &str) -> Result<()> {
    let uses = [Use::Device(name, "/dev/data")];
    tenant.pod_using(name, STAY, &uses).await?;
    tenant.running(name, WAIT).await.map(drop)
}

async fn has(tenant: &Tenant<'_>, pod: &str, word: &str) -> Result<()> {
    let sums = tenant.exec(pod, &read(word)).await?;
    let sums: Vec<_> = sums.lines().collect();
    ensure!(
        sums.len() == 3 && sums.iter().all(|sum| *sum == sums[0]),
        "{pod} does not have the pattern {word}: {sums:?}"
    );
    Ok(())
}
