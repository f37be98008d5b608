//! Group snapshots of three volumes to which one pod writes in turn: they are of one moment.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    shared::{SharedSuite, World},
    tenant::{Use, Wish, snapshot_source},
    wait::eventually,
};

use crate::{EXT4, STAY, WAIT, XFS, writer::contents};

const SNAPSHOTS: usize = 3;
const LABEL: (&str, &str) = ("stamped", "together");

/// PVCs in the order in which they are stamped; of both kinds, which freeze in ways of their own.
const MEMBERS: [(&str, Wish<'static>); 3] = [("a", EXT4), ("b", XFS), ("c", EXT4)];

/// 1, 2, 3 and so on, each in all three before the next. Nothing is synced.
const STAMP: &str = "
set -e
n=0
while :; do
    end=$((n + 200))
    while [ $n -lt $end ]; do
        n=$((n + 1))
        printf '%015d\\n' $n >> /a/stamps
        printf '%015d\\n' $n >> /b/stamps
        printf '%015d\\n' $n >> /c/stamps
    done
    sleep 0.02
done";
const STAMP_BYTES: usize = 16;

pub fn add(suite: &mut SharedSuite) {
    suite.test("group_snapshots_are_of_one_moment", one_moment);
}

async fn one_moment(world: &World) -> Result<()> {
    let tenant = world.tenant("groups").await?;
    for (claim, wish) in MEMBERS {
        let label = |claim: &mut Value| {
            claim["metadata"]["labels"] = json!({LABEL.0: LABEL.1});
        };
        tenant.claim_with(claim, &wish, label).await?;
    }
    let uses = [
        Use::Files("a", "/a"),
        Use::Files("b", "/b"),
        Use::Files("c", "/c"),
    ];
    tenant.pod_using("writer", STAMP, &uses).await?;
    let last = tenant.mounted("writer", "c", WAIT).await?;

    let mut before = Vec::new();
    let mut restored = Vec::new();
    for number in 0..SNAPSHOTS {
        before.push(progress(&last).await?);
        let group = format!("group-{number}");
        tenant.group_snapshot(&group, LABEL).await?;
        let members = tenant.group_ready(&group, MEMBERS.len(), WAIT).await?;
        for (claim, wish) in MEMBERS {
            let member = members
                .get(claim)
                .with_context(|| format!("{group} lacks {claim}"))?;
            let copy = format!("{claim}-{number}");
            tenant
                .claim_from(&copy, &wish, snapshot_source(&member.name))
                .await?;
            restored.push(copy);
        }
    }
    let paths: Vec<_> = restored.iter().map(|claim| format!("/{claim}")).collect();
    let uses = restored.iter().zip(&paths);
    let uses: Vec<_> = uses.map(|(claim, path)| Use::Files(claim, path)).collect();
    tenant.pod_using("reader", STAY, &uses).await?;
    for (group, before) in restored.chunks(MEMBERS.len()).zip(before) {
        let mut stamps = Vec::new();
        for claim in group {
            let folder = tenant.mounted("reader", claim, WAIT).await?;
            stamps.push(read(&folder).with_context(|| claim.clone())?);
        }
        ensure!(
            stamps[0] >= stamps[1] && stamps[1] >= stamps[2] && stamps[2] + 1 >= stamps[0],
            "{group:?} are not of one moment: {stamps:?}"
        );
        ensure!(
            stamps[2] >= before,
            "{group:?} lack some of {before}: {stamps:?}"
        );
    }
    tenant.running("writer", WAIT).await.map(drop)
}

/// Waits until a good deal has been stamped from now on; returns how many were, at least.
async fn progress(last: &Path) -> Result<usize> {
    let count = || anyhow::Ok(contents(&last.join("stamps"))?.len() / STAMP_BYTES);
    let start = count()?;
    eventually("volumes are stamped", WAIT, async || {
        let now = count()?;
        ensure!(now >= start + 1000, "{now} after {start}");
        Ok(now)
    })
    .await
}

/// How many stamps there are; an error unless they are exactly the first that were made.
fn read(folder: &Path) -> Result<usize> {
    let text = contents(&folder.join("stamps"))?;
    let mut count = 0;
    for found in text.chunks(STAMP_BYTES) {
        count += 1;
        let stamp = format!("{count:015}\n");
        let seen = String::from_utf8_lossy(found);
        ensure!(found == stamp.as_bytes(), "{seen:?} in place of {stamp:?}");
    }
    Ok(count)
}
