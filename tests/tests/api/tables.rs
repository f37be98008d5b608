//! What kubectl shows of our objects, and that it can wait for them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::request::{Request, backup_store, ours, restore_order, volume_backup, volume_restore};
use crate::{ApiSuite, World};

pub fn add(suite: &mut ApiSuite) {
    suite.test(
        "kubectl_get_vb_tells_whether_an_archive_can_be_read",
        backups,
    );
    suite.test("kubectl_get_bs_tells_whether_credentials_work", stores);
    suite.test("kubectl_get_vr_tells_how_far_a_restore_is", restores);
    suite.test("kubectl_get_ro_tells_what_an_agent_does", orders);
    suite.test("kubectl_wait_waits_for_ready", waiting);
}

async fn backups(world: &World) -> Result<()> {
    let status = json!({
        "observedGeneration": 1,
        "conditions": [condition("True", "Found", "the archive was found")],
        "resolved": {
            "url": "s3://my-bucket/database-backup-20250101.tar.gz",
            "size": 1_288_490_189,
            "humanSize": "1.2 GiB",
        },
    });
    shown(
        world,
        "vb",
        "volumebackups",
        volume_backup("table"),
        status,
        &[
            ("NAME", "table"),
            ("READY", "True"),
            ("REASON", "Found"),
            ("RESTORE-POINT", "2025-01-01T10:00:00Z"),
            ("SIZE", "1.2 GiB"),
            ("ARCHIVE", "s3://my-bucket/database-backup-20250101.tar.gz"),
        ],
        &[],
    )
    .await
}

async fn stores(world: &World) -> Result<()> {
    let status = json!({
        "observedGeneration": 1,
        "conditions": [condition("False", "CredentialsRejected", "the server refused the keys")],
    });
    shown(
        world,
        "bs",
        "backupstores",
        backup_store("table"),
        status,
        &[
            ("NAME", "table"),
            ("READY", "False"),
            ("REASON", "CredentialsRejected"),
            ("URL", "s3://my-bucket/backups"),
            ("ENDPOINT", "https://s3.example.com:9000"),
        ],
        &[
            ("REGION", "us-east-1"),
            ("SECRET", "store-credentials"),
            ("ACCOUNT", ""),
        ],
    )
    .await
}

async fn restores(world: &World) -> Result<()> {
    let status = json!({
        "observedGeneration": 1,
        "phase": "Restoring",
        "conditions": [condition("False", "Restoring", "the archive is being unpacked")],
        "nodeName": "node-1",
        "progress": progress(),
    });
    shown(
        world,
        "vr",
        "volumerestores",
        volume_restore("table"),
        status,
        &[
            ("NAME", "table"),
            ("PHASE", "Restoring"),
            ("REASON", "Restoring"),
            ("PERCENT", "42"),
            ("RESTORED", "1.2 GiB"),
            ("RATE", "212.0 MiB/s"),
            ("ETA", "1m20s"),
            ("NODE", "node-1"),
        ],
        &[
            ("BACKUP", "database-backup-v1"),
            ("MESSAGE", "the archive is being unpacked"),
        ],
    )
    .await
}

async fn orders(world: &World) -> Result<()> {
    let status = json!({
        "observedGeneration": 1,
        "state": "Failed",
        "attempt": 1,
        "progress": progress(),
        "failure": {"reason": "Truncated", "message": "the archive ends early", "cure": "Person"},
    });
    shown(
        world,
        "ro",
        "restoreorders",
        restore_order("table", "node-1"),
        status,
        &[
            ("NAME", "table"),
            ("GOAL", "Filled"),
            ("STATE", "Failed"),
            ("PERCENT", "42"),
            ("ATTEMPT", "1"),
            ("NODE", "node-1"),
            ("NAMESPACE", "default"),
            ("CLAIM", "restored-database"),
        ],
        &[("FAILURE", "Truncated")],
    )
    .await
}

fn progress() -> Value {
    json!({
        "percent": 42,
        "bytesRead": 420,
        "bytesTotal": 1000,
        "bytesWritten": 1_288_490_189,
        "entries": 7,
        "bytesPerSecond": 222_298_112,
        "etaSeconds": 80,
        "restored": "1.2 GiB",
        "rate": "212.0 MiB/s",
        "eta": "1m20s",
    })
}

fn condition(status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2025-01-01T10:00:00Z",
    })
}

/// Stores `object` with `status` and compares the tables that kubectl prints of it by its short
/// name: `columns`, and with `-o wide` also `wide`; after or between them comes the age.
async fn shown(
    world: &World,
    short: &str,
    plural: &str,
    object: Value,
    status: Value,
    columns: &[(&str, &str)],
    wide: &[(&str, &str)],
) -> Result<()> {
    let path = ours("default", plural);
    world.make(&path, object).await?;
    let patch = Request::patch(&format!("{path}/table/status"), json!({"status": status}));
    patch.send(&world.cluster.client()).await?;
    for (output, wide) in [("--output=", [].as_slice()), ("--output=wide", wide)] {
        let printed = world
            .cluster
            .kubectl(&["get", short, "table", output])
            .await?;
        let mut cells = table(&printed)?;
        let age = cells
            .iter()
            .position(|(name, _)| *name == "AGE")
            .context("no AGE")?;
        let (_, age) = cells.remove(age);
        ensure!(age.ends_with('s'), "it is {age:?} old");
        let expected = [columns, wide].concat();
        ensure!(
            cells == expected,
            "kubectl shows {cells:?} instead of {expected:?}"
        );
    }
    Ok(())
}

/// The one row of a table, each cell under its header. Columns begin where their headers do.
fn table(printed: &str) -> Result<Vec<(&str, &str)>> {
    let lines: Vec<_> = printed.lines().collect();
    let [header, row] = lines[..] else {
        bail!("not one row: {printed}")
    };
    let mut starts: Vec<_> = header
        .split_whitespace()
        .map(|name| name.as_ptr() as usize - header.as_ptr() as usize)
        .collect();
    starts.push(header.len().max(row.len()));
    let cell = |line: &'_ str, from: usize, to: usize| {
        let end = to.min(line.len());
        (from.min(end), end)
    };
    Ok(starts
        .windows(2)
        .map(|bounds| {
            let (from, to) = cell(header, bounds[0], bounds[1]);
            let name = header[from..to].trim();
            let (from, to) = cell(row, bounds[0], bounds[1]);
            (name, row[from..to].trim())
        })
        .collect())
}

async fn waiting(world: &World) -> Result<()> {
    for (plural, object) in [
        ("volumebackups", volume_backup("waited-for")),
        ("backupstores", backup_store("waited-for")),
        ("volumerestores", volume_restore("waited-for")),
    ] {
        let path = ours("default", plural);
        world.make(&path, object).await?;
        let name = format!("{plural}/waited-for");
        let met = async |timeout: &str| {
            world
                .cluster
                .kubectl(&["wait", "--for=condition=Ready", timeout, &name])
                .await
        };
        ensure!(
            met("--timeout=0").await.is_err(),
            "{name} is ready without a status"
        );
        let set = async |status: &str| {
            let conditions = [condition(status, "Tested", "as the test wants it")];
            let patch = json!({"status": {"observedGeneration": 1, "conditions": conditions}});
            let patch = Request::patch(&format!("{path}/waited-for/status"), patch);
            patch
                .send(&world.cluster.client())
                .await
                .map_err(anyhow::Error::from)
        };
        set("False").await?;
        ensure!(
            met("--timeout=0").await.is_err(),
            "{name} is ready though it says False"
        );
        let becomes_ready = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            set("True").await
        };
        let (printed, _) = tokio::try_join!(met("--timeout=10s"), becomes_ready)?;
        ensure!(printed.contains("condition met"), "kubectl says {printed}");
    }
    Ok(())
}
