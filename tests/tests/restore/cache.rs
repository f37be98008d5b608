//! Restored once: the next PVCs are made from a snapshot, and many at once share one download.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use crds::{VolumeBackup, cache::CachedSnapshot, volume_restore::RestoreResult};
use futures::future::try_join_all;
use serde_json::json;
use tests::{
    original::{Original, SLOW},
    s3::fault::Fault,
    shared::{SharedSuite, World},
    tenant::{Tenant, Wish},
    wait::eventually,
};

const WAIT: Duration = Duration::from_secs(120);

/// PVCs that want the same archive at once.
const MANY: usize = 6;

pub fn add(suite: &mut SharedSuite) {
    suite.test("the_next_pvcs_are_made_from_a_snapshot", cached);
    suite.test("many_at_once_share_one_download", shared);
}

async fn result(tenant: &Tenant<'_>, claim: &str) -> Result<RestoreResult> {
    let restore = tenant.completed(claim, WAIT).await?;
    let status = restore.status.context("a status")?;
    status.result.context("a result")
}

/// Waits until so many snapshots are told of the VolumeBackup.
async fn told(tenant: &Tenant<'_>, backup: &str, count: usize) -> Result<Vec<CachedSnapshot>> {
    let what = format!("VolumeBackup {backup} tells of {count} snapshots");
    eventually(&what, WAIT, async || {
        let backup = tenant.api::<VolumeBackup>().get(backup).await?;
        let cached = backup.status.unwrap_or_default().cached;
        ensure!(cached.len() == count, "{cached:?}");
        Ok(cached)
    })
    .await
}

async fn cached(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original) = Original::with_tenant(world, &faults, "cached").await?;
    let cache = json!({"cache": {"timeToLiveSeconds": 600}});
    tenant.backup_as("kept", "archive", cache).await?;
    let wish = Wish {
        backup: Some("kept"),
        ..Wish::BACKUP
    };
    tenant.claim("first", &wish).await?;
    let first = result(&tenant, "first").await?;
    ensure!(
        first.snapshot_handle.is_none() && first.bytes_fetched > 0,
        "{first:?}"
    );
    let node = told(&tenant, "kept", 1).await?.remove(0).node_name;

    let larger = Wish {
        size: "2Gi",
        ..wish
    };
    for (name, wish) in [("second", wish), ("larger", larger)] {
        tenant.claim(name, &wish).await?;
        let copy = result(&tenant, name).await?;
        ensure!(
            copy.snapshot_handle.is_some() && copy.bytes_fetched == 0,
            "{name}: {copy:?}"
        );
        ensure!(
            (copy.entries, copy.bytes_written) == (first.entries, first.bytes_written),
            "{name}: {copy:?}"
        );
        let restore = tenant.completed(name, WAIT).await?;
        let there = restore.status.and_then(|status| status.node_name);
        ensure!(there.as_ref() == Some(&node), "{name} is on {there:?}");
        tenant.pod(name, name, "sleep 1000000").await?;
        original.equals(&tenant.mounted(name, name, WAIT).await?)?;
    }

    // Of another object of the same name, nothing is there yet.
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(7);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", &b"another"[..])?;
    let archive = archive.into_inner()?;
    world.server.put(&tenant.name, "archive", archive).await?;
    tenant.claim("other", &wish).await?;
    let other = result(&tenant, "other").await?;
    ensure!(
        other.snapshot_handle.is_none() && other.bytes_written == 7,
        "{other:?}"
    );

    // What is kept for a short time goes, and is read again.
    let brief = json!({"cache": {"timeToLiveSeconds": 5}, "exclude": ["nothing"]});
    tenant.backup_as("brief", "archive", brief).await?;
    let wish = Wish {
        backup: Some("brief"),
        ..Wish::BACKUP
    };
    tenant.claim("brief", &wish).await?;
    result(&tenant, "brief").await?;
    told(&tenant, "brief", 1).await?;
    told(&tenant, "brief", 0).await?;
    tenant.claim("anew", &wish).await?;
    let anew = result(&tenant, "anew").await?;
    ensure!(anew.snapshot_handle.is_none(), "{anew:?}");
    told(&tenant, "brief", 0).await?;
    nothing_kept(world, "cached/brief").await
}

async fn shared(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let (tenant, original) = Original::with_tenant(world, &faults, "shared").await?;
    faults.set(SLOW).await?;
    let names: Vec<String> = (0..MANY).map(|number| format!("data-{number}")).collect();
    let node = world.cluster.node(0).name();
    let wish = Wish {
        class: "fast-csi-storage",
        ..Wish::BACKUP
    };
    for name in &names {
        tenant.claim_on(name, &wish, node).await?;
    }
    let first = names.iter().map(|name| tenant.restoring(name, WAIT));
    let first = first.map(Box::pin);
    let (_, _, _others) = futures::future::select_all(first).await;
    faults.set(Fault::None).await?;
    let results = names.iter().map(|name| result(&tenant, name));
    let results = try_join_all(results).await?;
    let fetched = results.iter().filter(|it| it.bytes_fetched > 0).count();
    ensure!(fetched == 1, "{fetched} of {MANY} have read the archive");
    let copy = results
        .iter()
        .position(|it| it.snapshot_handle.is_some())
        .context("a copy")?;
    tenant.pod("reader", &names[copy], "sleep 1000000").await?;
    original.equals(&tenant.mounted("reader", &names[copy], WAIT).await?)?;
    nothing_kept(world, "shared/backup").await
}

/// Waits until no node keeps anything of the VolumeBackup `NAMESPACE/NAME`.
async fn nothing_kept(world: &World, backup: &str) -> Result<()> {
    let folder = "var/lib/kubelet/plugins/populator.backup.example.com/snapshots";
    eventually("nothing is kept", WAIT, async || {
        for node in world.cluster.nodes() {
            // It comes with the first.
            let Ok(entries) = fs::read_dir(node.root().join(folder)) else {
                continue;
            };
            for entry in entries {
                let path = entry?.path();
                // It may go just now.
                let record = fs::read_to_string(&path).unwrap_or_default();
                ensure!(!record.contains(backup), "{}: {record}", path.display());
            }
        }
        Ok(())
    })
    .await
}
