//! A restore that is held, and one that is given up.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    s3::fault::Fault,
    shared::{SharedSuite, World},
    tenant::{Tenant, Wish},
};

use crate::refusals::upload;

const WAIT: Duration = Duration::from_secs(90);

/// Bytes of the archive's only file.
const SIZE: usize = 8 << 20;

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_pause_holds_until_it_ends", paused);
    suite.test("a_deadline_and_a_number_of_attempts", given_up);
}

async fn large(world: &World, tenant: &Tenant<'_>) -> Result<()> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(SIZE)?);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &vec![b'x'; SIZE][..])?;
    upload(world, tenant, "large.tar", &tar.into_inner()?).await
}

async fn paused(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let tenant = world.tenant("paused").await?;
    let keys = (world.server.access_key(), world.server.secret_key());
    tenant.store(&faults.endpoint(), keys).await?;
    large(world, &tenant).await?;
    tenant.backup("backup", "large.tar").await?;
    faults.set(Fault::Throttle(256 << 10)).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.restoring("data", WAIT).await?;
    tenant.pause("data", WAIT).await?;
    faults.set(Fault::None).await?;
    // Long enough for it to be complete, if anybody went on.
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(tenant.phase("data").await? == "Pending", "it went on");
    let warnings = tenant.warnings(&claim).await?;
    ensure!(warnings.is_empty(), "{warnings:?}");
    tenant.resume("data").await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore.status.and_then(|status| status.result);
    ensure!(
        result.as_ref().map(|it| it.bytes_written) == Some(i64::try_from(SIZE)?),
        "{result:?}"
    );
    Ok(())
}

async fn given_up(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let tenant = world.tenant("given-up").await?;
    let keys = (world.server.access_key(), world.server.secret_key());
    tenant.store(&faults.endpoint(), keys).await?;
    large(world, &tenant).await?;
    let wish = |name| Wish {
        backup: Some(name),
        ..Wish::BACKUP
    };
    let deadline = json!({"retry": {"activeDeadlineSeconds": 3}});
    tenant.backup_as("late", "large.tar", deadline).await?;
    faults.set(Fault::Throttle(64 << 10)).await?;
    let late = tenant.claim("late", &wish("late")).await?;
    tenant.warned(&late, "DeadlinePassed", WAIT).await?;
    tenant.nothing_left(&late, WAIT).await?;
    faults.set(Fault::None).await?;

    let once = json!({"retry": {"attempts": 1}});
    tenant.backup_as("once", "large.tar", once).await?;
    faults.set(Fault::Throttle(64 << 10)).await?;
    let once = tenant.claim("once", &wish("once")).await?;
    tenant.restoring("once", WAIT).await?;
    faults.set(Fault::Refuse).await?;
    tenant.warned(&once, "AttemptsSpent", WAIT).await?;
    tenant.nothing_left(&once, WAIT).await?;
    faults.set(Fault::None).await
}
