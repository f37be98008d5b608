//! Where stores are, and by whom they are trusted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use object_store::path::Path as Key;
use object_store::signer::Signer as _;
use serde_json::json;
use tests::{
    original::{KEY, Original},
    pki::Authority,
    shared::{SharedSuite, World},
    tenant::Wish,
};

use crate::refusals::{archive, refused, upload};

const WAIT: Duration = Duration::from_secs(90);

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_store_with_an_authority_of_its_own", trusted);
    suite.test("addresses_that_are_no_stores", denied);
    suite.test("a_url_that_somebody_has_signed", signed);
    suite.test("what_is_not_lent_is_refused", unlent);
    suite.test("a_store_is_read_no_faster_than_it_allows", spared);
}

async fn trusted(world: &World) -> Result<()> {
    let tenant = world.tenant("trusted").await?;
    upload(world, &tenant, "archive", &archive("tar.gz")?).await?;
    let authority = Authority::new()?;
    let (_process, endpoint) = world.server.by_tls(&authority).await?;
    let keys = (world.server.access_key(), world.server.secret_key());
    let spec = json!({"endpoint": endpoint});
    tenant.store_with(&tenant.name, keys, spec).await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.warned(&claim, "StoreNotTrusted", WAIT).await?;
    let another = Authority::new()?.certificate;
    let spec = json!({"endpoint": endpoint, "caBundle": another});
    tenant.store_with(&tenant.name, keys, spec).await?;
    let second = tenant.claim("second", &Wish::BACKUP).await?;
    tenant.warned(&second, "StoreNotTrusted", WAIT).await?;
    // Both go on by themselves.
    let spec = json!({"endpoint": endpoint, "caBundle": authority.certificate});
    tenant.store_with(&tenant.name, keys, spec).await?;
    tenant.completed("data", WAIT).await?;
    tenant.completed("second", WAIT).await.map(drop)
}

async fn signed(world: &World) -> Result<()> {
    let tenant = world.tenant("signed").await?;
    upload(world, &tenant, "archive", &archive("tar.gz")?).await?;
    let authority = Authority::new()?;
    let (_process, endpoint) = world.server.by_tls(&authority).await?;
    let bucket = world.server.store_at(&tenant.name, &endpoint)?;
    let key = Key::from("archive");
    let sign = async |seconds| {
        let lifetime = Duration::from_secs(seconds);
        let url = bucket.signed_url(Method::GET, &key, lifetime).await?;
        anyhow::Ok(url.to_string())
    };
    let (short, long) = (sign(1).await?, sign(600).await?);
    tenant.backup_of("backup", &long).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    // No BackupStore is needed, but for its authority.
    tenant.warned(&claim, "StoreNotTrusted", WAIT).await?;
    let spec = json!({"url": endpoint, "caBundle": authority.certificate});
    tenant.store_as("web", spec).await?;
    tenant.completed("data", WAIT).await?;

    tokio::time::sleep(Duration::from_secs(2)).await;
    tenant.backup_of("old", &short).await?;
    let wish = Wish {
        backup: Some("old"),
        ..Wish::BACKUP
    };
    let late = tenant.claim("late", &wish).await?;
    let said = tenant.warned(&late, "AccessDenied", WAIT).await?;
    ensure!(said.contains("has expired"), "{said}");

    // What signed them is shown nowhere but where they were written.
    for kind in [
        "events",
        "volumerestores",
        "backupstores",
        "persistentvolumeclaims",
    ] {
        let get = ["get", kind, "-n", &tenant.name, "-o", "yaml"];
        let shown = world.cluster.kubectl(&get).await?;
        ensure!(!shown.contains("X-Amz-Signature"), "{kind}");
    }
    let path = "jsonpath={.items[*].status}";
    let shown = ["get", "volumebackups", "-n", &tenant.name, "-o", path];
    let shown = world.cluster.kubectl(&shown).await?;
    ensure!(shown.contains("archive") && !shown.contains("X-Amz-Signature"));
    Ok(())
}

async fn unlent(world: &World) -> Result<()> {
    let tenant = world.tenant("unlent").await?;
    for (name, url, reason) in [
        ("own", "s3://not-lent/archive", "AmbientCredentialsDenied"),
        ("file", "file:///archive", "FilesDisabled"),
        (
            "metadata",
            "https://169.254.169.254/archive",
            "EndpointDenied",
        ),
    ] {
        if name == "own" {
            tenant
                .store_as(name, json!({"url": "s3://not-lent"}))
                .await?;
        }
        tenant.backup_of(name, url).await?;
        let wish = Wish {
            backup: Some(name),
            ..Wish::BACKUP
        };
        let claim = tenant.claim(name, &wish).await?;
        refused(&tenant, &claim, reason).await?;
    }
    Ok(())
}

async fn spared(world: &World) -> Result<()> {
    const MIB: u64 = 24;
    let tenant = world.tenant("spared").await?;
    let keys = (world.server.access_key(), world.server.secret_key());
    let spec = json!({"endpoint": world.server.endpoint(), "bandwidthPerNode": "4Mi"});
    tenant.store_with(&tenant.name, keys, spec).await?;
    let original = Original::make(MIB << 20)?;
    original.upload(world, &tenant).await?;
    tenant.backup("backup", KEY).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore.status.and_then(|status| status.result);
    let seconds = result.context("a result")?.seconds;
    // What one second allows may be had at once.
    ensure!(
        (5..=15).contains(&seconds),
        "{seconds} seconds for {MIB} MiB"
    );
    tenant.delete_claim("data").await?;
    tenant.nothing_left(&claim, WAIT).await
}

async fn denied(world: &World) -> Result<()> {
    let tenant = world.tenant("denied").await?;
    let keys = (world.server.access_key(), world.server.secret_key());
    tenant.backup("backup", "archive").await?;
    for (name, endpoint) in [
        ("metadata", "http://169.254.169.254"),
        ("loopback", "http://127.0.0.1:10250"),
        ("by-name", "https://localhost:6443"),
    ] {
        let spec = json!({"endpoint": endpoint});
        tenant.store_with(&tenant.name, keys, spec).await?;
        let claim = tenant.claim(name, &Wish::BACKUP).await?;
        refused(&tenant, &claim, "EndpointDenied").await?;
    }
    Ok(())
}
