//! What does not come back: the PVC stays Pending with one Warning that says what to do, and
//! nothing is left behind. What can cure itself goes on by itself.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use crds::{VolumeRestore, volume_restore::Phase};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, api::PostParams};
use serde_json::json;
use tests::{
    odd_tree,
    s3::fault::Fault,
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
    wait::eventually,
};

const WAIT: Duration = Duration::from_secs(90);

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_failure_is_tried_again_when_it_is_mended", mended);
    suite.test("a_volume_backup_that_does_not_exist_yet", no_backup_yet);
    suite.test("a_missing_object_and_a_missing_bucket", missing);
    suite.test("wrong_credentials", wrong_credentials);
    suite.test("another_tenants_archive", another_tenants);
    suite.test("a_server_that_is_down", server_down);
    suite.test("a_truncated_archive", async |world: &World| {
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1000);
        spoiled(world, "truncated", "tar.gz", "ArchiveTruncated", cut).await
    });
    suite.test("a_truncated_tar", async |world: &World| {
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
        spoiled(world, "truncated-tar", "tar", "ArchiveTruncated", cut).await
    });
    suite.test("a_flipped_byte_in_gzip", async |world: &World| {
        spoiled(world, "flipped-gzip", "tar.gz", "ArchiveCorrupt", flip).await
    });
    suite.test("a_flipped_byte_in_zstd", async |world: &World| {
        spoiled(world, "flipped-zstd", "tar.zst", "ArchiveCorrupt", flip).await
    });
    suite.test("not_an_archive", async |world: &World| {
        let words = |bytes: &mut Vec<u8>| *bytes = b"a letter, not an archive\n".repeat(100);
        spoiled(world, "letter", "tar", "NotAnArchive", words).await
    });
    suite.test("data_that_do_not_fit", too_large);
    suite.test("an_object_that_is_replaced_during_the_restore", replaced);
    suite.test("a_class_whose_driver_is_not_served", other_driver);
}

/// In the middle, where the data are.
#[allow(
    clippy::ptr_arg,
    reason = "one of several that spoil an archive, some by its length"
)]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
}

/// The odd tree as an archive.
pub fn archive(suffix: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    odd_tree::make(&folder.path().join("original"))?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&folder.path().join("original"), &archive, suffix)?;
    Ok(fs::read(&archive)?)
}

pub async fn upload(world: &World, tenant: &Tenant<'_>, key: &str, bytes: &[u8]) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), bytes)?;
    world
        .server
        .put_file(&tenant.name, key, file.path())
        .await
        .map(drop)
}

/// The PVC is refused for good: told, and nothing is behind.
pub async fn refused(tenant: &Tenant<'_>, claim: &Claim, reason: &str) -> Result<()> {
    let words = tenant.warned(claim, reason, WAIT).await?;
    ensure!(words.len() > 40, "these words help nobody: {words}");
    tenant.nothing_left(claim, WAIT).await?;
    tenant.delete_claim(&claim.name).await?;
    tenant.forgotten(claim, WAIT).await
}

async fn spoiled(
    world: &World,
    name: &str,
    suffix: &str,
    reason: &str,
    spoil: impl FnOnce(&mut Vec<u8>) + Send,
) -> Result<()> {
    let tenant = world.tenant(name).await?;
    let mut bytes = archive(suffix)?;
    spoil(&mut bytes);
    upload(world, &tenant, "archive", &bytes).await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    refused(&tenant, &claim, reason).await
}

/// It is over, until a person has changed the VolumeBackup; and once more, until the PVC is annotated.
async fn mended(world: &World) -> Result<()> {
    let tenant = world.tenant("mended").await?;
    let good = archive("tar.gz")?;
    for key in ["cut", "second"] {
        upload(world, &tenant, key, &good[..good.len() / 2]).await?;
    }
    tenant.backup("backup", "cut").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.warned(&claim, "ArchiveTruncated", WAIT).await?;
    tenant.nothing_left(&claim, WAIT).await?;
    let url = json!({"spec": {"backupURL": format!("s3://{}/second", tenant.name)}}).to_string();
    let (namespace, key) = (tenant.name.as_str(), "backup.example.com/retry=now");
    let kubectl = async |words: &[&str]| world.cluster.kubectl(words).await;
    kubectl(&[
        "patch",
        "-n",
        namespace,
        "volumebackup",
        "backup",
        "--type=merge",
        "-p",
        &url,
    ])
    .await?;
    // A failure of the second archive, not a memory of the first.
    let restores = tenant.api::<VolumeRestore>();
    eventually("the second archive is tried", WAIT, || async {
        let status = restores.get("data").await?.status.unwrap_or_default();
        let archive = status.archive.map(|archive| archive.url);
        ensure!(
            status.phase == Phase::Failed && archive.is_some_and(|url| url.ends_with("second")),
            "it is {:?}",
            status.phase
        );
        Ok(())
    })
    .await?;
    tenant.nothing_left(&claim, WAIT).await?;
    upload(world, &tenant, "second", &good).await?;
    kubectl(&["annotate", "-n", namespace, "pvc", "data", key]).await?;
    tenant.completed("data", WAIT).await.map(drop)
}

async fn no_backup_yet(world: &World) -> Result<()> {
    let tenant = world.tenant("no-backup-yet").await?;
    upload(world, &tenant, "archive", &archive("tar.gz")?).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.warned(&claim, "VolumeBackupNotFound", WAIT).await?;
    tenant.nothing_left(&claim, WAIT).await?;
    tenant.backup("backup", "archive").await?;
    tenant.completed("data", WAIT).await.map(drop)
}

async fn missing(world: &World) -> Result<()> {
    let tenant = world.tenant("missing-object").await?;
    tenant.backup("backup", "no-such-object").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    refused(&tenant, &claim, "ObjectNotFound").await?;

    let tenant = world.tenant("missing-bucket").await?;
    tenant
        .store_for(
            "no-such-bucket",
            &world.server.endpoint(),
            (world.server.access_key(), world.server.secret_key()),
        )
        .await?;
    tenant
        .backup_of("backup", "s3://no-such-bucket/archive")
        .await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    refused(&tenant, &claim, "BucketNotFound").await
}

async fn wrong_credentials(world: &World) -> Result<()> {
    let tenant = world.tenant("wrong-credentials").await?;
    upload(world, &tenant, "archive", &archive("tar.gz")?).await?;
    tenant
        .store(&world.server.endpoint(), ("nobody", "guesses"))
        .await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    refused(&tenant, &claim, "CredentialsRefused").await
}

/// Who has every right in a namespace of their own reads nothing but what their own store serves:
/// neither without a store for it nor by a store that names the other's bucket with keys of one's own.
async fn another_tenants(world: &World) -> Result<()> {
    let owner = world.tenant("owner").await?;
    upload(world, &owner, "archive", &archive("tar.gz")?).await?;
    let thief = world.tenant("thief").await?;
    thief.backup_of("backup", "s3://owner/archive").await?;
    let claim = thief.claim("data", &Wish::BACKUP).await?;
    refused(&thief, &claim, "BackupStoreNotFound").await?;
    thief
        .store_for("owner", &world.server.endpoint(), ("thief", "guesses"))
        .await?;
    let claim = thief.claim("data", &Wish::BACKUP).await?;
    refused(&thief, &claim, "CredentialsRefused").await
}

async fn server_down(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let tenant = world.tenant_through(&faults, "server-down").await?;
    upload(world, &tenant, "archive", &archive("tar.gz")?).await?;
    faults.set(Fault::Refuse).await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.warned(&claim, "StoreUnreachable", WAIT).await?;
    tenant.nothing_left(&claim, WAIT).await?;
    faults.set(Fault::None).await?;
    tenant.completed("data", WAIT).await.map(drop)
}

/// 600 MiB of zeros in a PVC of 300 MiB.
async fn too_large(world: &World) -> Result<()> {
    let tenant = world.tenant("too-large").await?;
    let folder = tempfile::tempdir()?;
    let original = folder.path().join("original");
    fs::create_dir(&original)?;
    // Not sparse: tar without --sparse writes the zeros out.
    fs::File::create(original.join("zeros"))?.set_len(600 << 20)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&original, &archive, "tar.zst")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant
        .claim(
            "data",
            &Wish {
                size: "300Mi",
                ..Wish::BACKUP
            },
        )
        .await?;
    refused(&tenant, &claim, "DoesNotFit").await
}

async fn replaced(world: &World) -> Result<()> {
    let faults = world.server.fault_proxy().await?;
    let tenant = world.tenant_through(&faults, "replaced").await?;
    let folder = tempfile::tempdir()?;
    let original = folder.path().join("original");
    fs::create_dir(&original)?;
    odd_tree::noise(&original.join("noise"), 64 << 20)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&original, &archive, "tar")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    tenant.backup("backup", "archive").await?;
    faults.set(Fault::Throttle(256 << 10)).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    tenant.restoring(&claim.name, WAIT).await?;
    odd_tree::noise(&original.join("noise"), 64 << 20)?;
    odd_tree::pack(&original, &archive, "tar")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    faults.set(Fault::None).await?;
    refused(&tenant, &claim, "ArchiveChanged").await
}

async fn other_driver(world: &World) -> Result<()> {
    let tenant = world.tenant("other-driver").await?;
    upload(world, &tenant, "archive", &archive("tar.gz")?).await?;
    tenant.backup("backup", "archive").await?;
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "foreign"}, "provisioner": "kubernetes.io/no-provisioner",
    }))?;
    let classes: Api<StorageClass> = Api::all(world.cluster.client());
    classes.create(&PostParams::default(), &class).await?;
    let claim = tenant
        .claim(
            "data",
            &Wish {
                class: "foreign",
                ..Wish::BACKUP
            },
        )
        .await?;
    refused(&tenant, &claim, "DriverUnsupported").await
}
