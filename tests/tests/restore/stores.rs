//! Where stores are, and by whom they are trusted.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::{
    pki::Authority,
    shared::{SharedSuite, World},
    tenant::Wish,
};

use crate::refusals::{archive, refused, upload};

const WAIT: Duration = Duration::from_secs(90);

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_store_with_an_authority_of_its_own", trusted);
    suite.test("addresses_that_are_no_stores", denied);
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
