//! Of many archives the one that was asked for: by a bucket's versions, and under a prefix. Never anything
//! newer, and none that old is told.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use crds::volume_backup::ResolvedArchive;
use crds::{VolumeBackup, VolumeRestore};
use jiff::Timestamp;
use object_store::{ObjectStoreExt as _, path::Path as Key};
use serde_json::json;
use tests::{
    shared::{SharedSuite, World},
    tenant::{Tenant, Wish},
    wait::eventually,
};

use crate::refusals::refused;

const WAIT: Duration = Duration::from_secs(90);

/// Times of writing are known to the second.
const APART: Duration = Duration::from_millis(2100);

pub fn add(suite: &mut SharedSuite) {
    suite.test("the_version_that_was_current_then", versions);
    suite.test("the_newest_archive_under_a_prefix", prefix);
}

/// An archive of one file with so many bytes, by which it is known again.
async fn upload(world: &World, tenant: &Tenant<'_>, key: &str, bytes: usize) -> Result<String> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(bytes)?);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &vec![b'x'; bytes][..])?;
    let written = world
        .server
        .put(&tenant.name, key, tar.into_inner()?)
        .await?;
    Ok(written.version.unwrap_or_default())
}

/// A VolumeBackup and a PVC of this name.
async fn wish(
    tenant: &Tenant<'_>,
    name: &str,
    key: &str,
    at: Timestamp,
) -> Result<tests::tenant::Claim> {
    let point = json!({"restorePoint": at.to_string()});
    tenant.backup_as(name, key, point).await?;
    let backup = Some(name);
    tenant
        .claim(
            name,
            &Wish {
                backup,
                ..Wish::BACKUP
            },
        )
        .await
}

/// What was restored, and how many bytes of files it had.
async fn restored(tenant: &Tenant<'_>, name: &str) -> Result<(ResolvedArchive, i64)> {
    let restore: VolumeRestore = tenant.completed(name, WAIT).await?;
    let status = restore.status.context("a status")?;
    let result = status.result.context("a result")?;
    Ok((status.archive.context("an archive")?, result.bytes_written))
}

async fn versions(world: &World) -> Result<()> {
    let tenant = world.tenant("versions").await?;
    world.server.enable_versioning(&tenant.name).await?;
    let before = Timestamp::now();
    tokio::time::sleep(APART).await;
    let first = upload(world, &tenant, "daily.tar", 1111).await?;
    let first_written = SystemTime::now();
    tokio::time::sleep(APART).await;
    let then = Timestamp::now();
    tokio::time::sleep(APART).await;
    let second = upload(world, &tenant, "daily.tar", 2222).await?;
    let second_written = SystemTime::now();
    world.server.date_version(&first, first_written)?;

    wish(&tenant, "then", "daily.tar", then).await?;
    let (archive, bytes) = restored(&tenant, "then").await?;
    ensure!(
        (archive.version.as_ref(), bytes) == (Some(&first), 1111),
        "{archive:?}, {bytes} bytes"
    );
    let newest = wish(&tenant, "newest", "daily.tar", Timestamp::now()).await?;
    let (_, bytes) = restored(&tenant, "newest").await?;
    ensure!(bytes == 2222, "{bytes} bytes");
    let told = tenant.told(&newest).await?;
    let words = told.iter().filter_map(|event| event.message.as_deref());
    let words: Vec<_> = words.collect();
    ensure!(
        words
            .iter()
            .any(|it| it.contains("current at restorePoint")),
        "{words:?}"
    );
    let older = wish(&tenant, "older", "daily.tar", before).await?;
    refused(&tenant, &older, "NewerThanRestorePoint").await?;

    // What is gone by now was there then.
    tokio::time::sleep(APART).await;
    let bucket = world.server.store(&tenant.name)?;
    bucket.delete(&Key::from("daily.tar")).await?;
    world.server.date_version(&second, second_written)?;
    tokio::time::sleep(APART).await;
    wish(&tenant, "again", "daily.tar", then).await?;
    ensure!(restored(&tenant, "again").await?.1 == 1111);
    let gone = wish(&tenant, "gone", "daily.tar", Timestamp::now()).await?;
    refused(&tenant, &gone, "DeletedAtRestorePoint").await?;
    let never = wish(&tenant, "never", "other.tar", then).await?;
    refused(&tenant, &never, "ObjectNotFound").await
}

async fn prefix(world: &World) -> Result<()> {
    let tenant = world.tenant("prefix").await?;
    let at = |time: &str| time.parse::<Timestamp>();
    let early = wish(&tenant, "early", "db/", at("2025-01-02T12:00:00Z")?).await?;
    tenant.warned(&early, "NoArchive", WAIT).await?;
    for (key, bytes) in [
        ("db/20250101T0300Z.tar", 1111),
        ("db/20250102T0300Z.tar", 2222),
        ("db/20250102T0300Z.tar.sha256", 1),
        ("db/20250103T0300Z.tar", 3333),
        ("db-other/20250102T0400Z.tar", 4444),
    ] {
        upload(world, &tenant, key, bytes).await?;
    }
    // It goes on by itself.
    let (archive, bytes) = restored(&tenant, "early").await?;
    let expected = format!("s3://{}/db/20250102T0300Z.tar", tenant.name);
    ensure!((&archive.url, bytes) == (&expected, 2222), "{archive:?}");

    let older = wish(&tenant, "older", "db/", at("2024-12-31T00:00:00Z")?).await?;
    refused(&tenant, &older, "NewerThanRestorePoint").await?;
    wish(&tenant, "newest", "db/", Timestamp::now()).await?;
    ensure!(restored(&tenant, "newest").await?.1 == 3333);
    let backups = tenant.api::<VolumeBackup>();
    eventually("the VolumeBackup says what was chosen", WAIT, async || {
        let status = backups.get("newest").await?.status.unwrap_or_default();
        let point = status
            .conditions
            .iter()
            .find(|it| it.type_ == "PointInTime");
        ensure!(
            point.is_some_and(|it| it.reason == "NewestByName" && it.message.contains("20250103")),
            "{point:?}"
        );
        Ok(())
    })
    .await
}
