//! What a VolumeBackup chooses about a restore reaches the volume, and what it demands is demanded.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::{
    command, odd_tree,
    shared::{SharedSuite, World},
    tenant::Wish,
};

const WAIT: Duration = Duration::from_secs(90);

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_part_of_an_archive_for_other_owners", part);
    suite.test("another_object_than_the_checksum_says", other_object);
}

/// Packs three files, each with its own name in it; the archive's SHA-256 in hexadecimal.
fn pack(archive: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    for name in ["srv/data/a.db", "srv/data/a.tmp", "srv/log"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(path, name)?;
    }
    odd_tree::pack(folder.path(), archive, "tar.gz")?;
    let sum = command::run(Command::new("sha256sum").arg(archive))?;
    let sum = sum.split_whitespace().next().context("no sum")?;
    Ok(sum.to_owned())
}

async fn part(world: &World) -> Result<()> {
    let tenant = world.tenant("part").await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    let sum = pack(&archive)?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    let choices = json!({
        "checksum": {"sha256": sum}, "requireVerified": "Sha256",
        "include": ["**/data"], "exclude": ["**/*.tmp"], "stripComponents": 1,
        "ownership": {"all": {"uid": 1234, "gid": 5678}}, "metadataPolicy": "Strict",
    });
    tenant.backup_as("backup", "archive", choices).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore.status.and_then(|status| status.result);
    let result = result.context("a result")?;
    ensure!(
        result.verified == "Sha256" && result.sha256 == sum && result.left_out > 0,
        "{result:?}"
    );
    let mounted = tenant.mounted("reader", "data", WAIT).await?;
    let found = fs::metadata(mounted.join("data/a.db"))?;
    ensure!((found.uid(), found.gid()) == (1234, 5678), "{found:?}");
    ensure!(fs::read(mounted.join("data/a.db"))? == b"srv/data/a.db");
    for absent in ["data/a.tmp", "log", "srv"] {
        ensure!(!mounted.join(absent).exists(), "{absent}");
    }
    tenant.delete_pod("reader").await?;
    tenant.delete_claim(&claim.name).await?;
    tenant.nothing_left(&claim, WAIT).await
}

async fn other_object(world: &World) -> Result<()> {
    let tenant = world.tenant("other-object").await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    let sum = pack(&archive)?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    let wrong = sum.replace(['0', '1', '2'], "3");
    let choices = json!({"checksum": {"sha256": wrong}});
    tenant.backup_as("backup", "archive", choices).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    let words = tenant.warned(&claim, "ChecksumMismatch", WAIT).await?;
    ensure!(words.contains(&sum) && words.contains(&wrong), "{words}");
    tenant.nothing_left(&claim, WAIT).await?;

    // What only the controller can see is told before there is a volume.
    let choices = json!({"include": ["a[b"]});
    tenant.backup_as("odd", "archive", choices).await?;
    let wish = Wish {
        backup: Some("odd"),
        ..Wish::BACKUP
    };
    let odd = tenant.claim("odd", &wish).await?;
    let words = tenant.warned(&odd, "VolumeBackupInvalid", WAIT).await?;
    ensure!(words.contains("is not a glob"), "{words}");
    for claim in [claim, odd] {
        tenant.delete_claim(&claim.name).await?;
        tenant.forgotten(&claim, WAIT).await?;
    }
    Ok(())
}
