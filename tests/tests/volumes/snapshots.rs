//! Snapshots of a volume that is written to all the time: each restores to a file system without a
//! fault, and to exactly the records that were written by then.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use tests::{
    command::run,
    shared::{SharedSuite, World},
    tenant::{Snapshot, Tenant, Use, Wish, snapshot_source},
};

use crate::{EXT4, STAY, WAIT, XFS, writer};

const SNAPSHOTS: usize = 5;

pub fn add(suite: &mut SharedSuite) {
    suite.test("ext4_snapshots_hold_all_that_was_written", async |world| {
        hold_all_that_was_written(world, "snapshots-ext4", &EXT4).await
    });
    suite.test("xfs_snapshots_hold_all_that_was_written", async |world| {
        hold_all_that_was_written(world, "snapshots-xfs", &XFS).await
    });
}

/// A snapshot, and how many records were there before it was asked for and after it was made.
struct Taken {
    snapshot: Snapshot,
    before: u64,
    after: u64,
}

async fn hold_all_that_was_written(world: &World, name: &str, wish: &Wish<'_>) -> Result<()> {
    let tenant = world.tenant(name).await?;
    tenant.claim("source", wish).await?;
    tenant.pod("writer", "source", writer::SCRIPT).await?;
    let source = tenant.mounted("writer", "source", WAIT).await?;
    let mut taken = Vec::new();
    for number in 0..SNAPSHOTS {
        taken.push(take(&tenant, &source, number).await?);
    }

    let claims: Vec<_> = (0..SNAPSHOTS).map(|n| format!("restored-{n}")).collect();
    for (claim, taken) in claims.iter().zip(&taken) {
        let from = snapshot_source(&taken.snapshot.name);
        tenant.claim_from(claim, wish, from).await?;
    }
    let paths: Vec<_> = claims.iter().map(|claim| format!("/{claim}")).collect();
    let uses: Vec<_> = claims
        .iter()
        .zip(&paths)
        .map(|(claim, path)| Use::Files(claim, path))
        .collect();
    tenant.pod_using("reader", STAY, &uses).await?;
    for (claim, taken) in claims.iter().zip(&taken) {
        let folder = tenant.mounted("reader", claim, WAIT).await?;
        let found = writer::prefix(&folder).with_context(|| claim.clone())?;
        ensure!(
            (taken.before..=taken.after).contains(&found),
            "{claim} has {found} records; {} were there before the snapshot was asked for, {} after",
            taken.before,
            taken.after
        );
    }

    let node = world.cluster.node(0);
    // A frozen ext4 has an empty journal, so nothing is left for recovery to mend. A frozen XFS
    // keeps its log as a crash would find it, and is whole when a mount has replayed that.
    if wish.class == EXT4.class {
        for taken in &taken {
            clean(wish, &taken.snapshot.image(node)?)?;
        }
    }
    tenant.delete_pod("reader").await?;
    for claim in &claims {
        tenant.unstaged(claim, WAIT).await?;
        clean(wish, &tenant.image(claim, node).await?)?;
    }
    tenant.running("writer", WAIT).await.map(drop)
}

async fn take(tenant: &Tenant<'_>, source: &Path, number: usize) -> Result<Taken> {
    // From one snapshot to the next there is always something new.
    let before = writer::progress(source).await?;
    let name = format!("snapshot-{number}");
    tenant.snapshot(&name, "source").await?;
    let snapshot = tenant.snapshot_ready(&name, WAIT).await?;
    let after = writer::written(source)?;
    Ok(Taken {
        snapshot,
        before,
        after,
    })
}

/// Has the file system in an image checked by its own tool, which changes nothing.
fn clean(wish: &Wish<'_>, image: &Path) -> Result<()> {
    let (program, options) = if wish.class == XFS.class {
        ("xfs_repair", ["-f", "-n"])
    } else {
        ("e2fsck", ["-f", "-n"])
    };
    run(Command::new(program).args(options).arg(image)).map(drop)
}
