//! Images of disks onto raw block volumes, and what is told where the PVC and the archive do not match.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::{
    command::run,
    odd_tree,
    shared::{SharedSuite, World},
    tenant::{Tenant, Use, Wish},
};

use crate::refusals::refused;

const WAIT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// Bytes of the image: not a multiple of a block.
pub const SIZE: u64 = 300 * MIB + 7;

pub fn add(suite: &mut SharedSuite) {
    for (suffix, class) in [
        ("raw.zst", "fast-csi-storage"),
        ("raw.gz", "fast-csi-storage-immediate"),
    ] {
        let name = suffix.replace('.', "_");
        suite.test(
            &format!("an_image_comes_back_onto_a_device_from_{name}"),
            async move |world: &World| comes_back(world, suffix, class).await,
        );
    }
    suite.test("an_image_becomes_a_file", file);
    suite.test("an_archive_of_files_is_not_for_a_device", files);
    suite.test("an_image_is_not_for_a_file_system", image);
    suite.test("what_is_chosen_of_files_is_not_for_a_device", chosen);
}

fn as_block(claim: &mut Value) {
    claim["spec"]["volumeMode"] = json!("Block");
}

/// Three pieces of noise in zeros, the last at the end; its archive, and its digest.
pub fn make(archive: &Path, suffix: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let (noise, image) = (folder.path().join("noise"), folder.path().join("image"));
    odd_tree::noise(&noise, 3 * MIB)?;
    let noise = fs::read(noise)?;
    let file = File::create(&image)?;
    file.set_len(SIZE)?;
    let piece = |index: usize| noise.chunks(1 << 20).nth(index).context("three pieces");
    file.write_all_at(piece(0)?, MIB)?;
    file.write_all_at(piece(1)?, 150 * MIB + 12_345)?;
    file.write_all_at(piece(2)?, SIZE - MIB)?;
    let digest = hex::encode(Sha256::digest(fs::read(&image)?));
    let program = match suffix {
        "raw.gz" => "gzip",
        _ => "zstd",
    };
    let packed = File::create(archive)?;
    let status = Command::new(program)
        .args(["-q", "-c"])
        .arg(&image)
        .stdout(packed)
        .status()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(digest)
}

async fn comes_back(world: &World, suffix: &str, class: &str) -> Result<()> {
    let tenant = world.tenant(&suffix.replace('.', "-")).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    let digest = make(&archive, suffix)?;
    let key = format!("disk.{suffix}");
    world.server.put_file(&tenant.name, &key, &archive).await?;
    let sum = run(Command::new("sha256sum").arg(&archive))?;
    let sum = sum.split_whitespace().next().context("a digest")?;
    let choices = json!({"checksum": {"sha256": sum}, "requireVerified": "Sha256"});
    tenant.backup_as("backup", &key, choices).await?;
    let wish = Wish {
        class,
        ..Wish::BACKUP
    };
    let claim = tenant.claim_with("data", &wish, as_block).await?;
    let uses = [Use::Device("data", "/dev/data")];
    tenant.pod_using("reader", "sleep 1000000", &uses).await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore.status.and_then(|status| status.result);
    let result = result.context("a result")?;
    ensure!(
        result.format == suffix && result.verified == "Sha256" && result.entries == 0,
        "{result:?}"
    );
    let written = u64::try_from(result.bytes_written)?;
    ensure!((3 * MIB..4 * MIB).contains(&written), "{result:?}");

    let pod = tenant.running("reader", WAIT).await?;
    let script = format!("head -c {SIZE} /dev/data | sha256sum; blockdev --getsize64 /dev/data");
    let said = tenant.exec("reader", &script).await?;
    ensure!(said.starts_with(&digest), "{said} is not {digest}");
    ensure!(said.contains(&(1 << 30).to_string()), "{said}");
    let node = pod.spec.and_then(|spec| spec.node_name);
    let node = world.cluster.node_named(&node.context("a node")?)?;
    let image = fs::metadata(tenant.image("data", node).await?)?;
    let taken = image.blocks() * 512;
    ensure!(
        taken < 8 * MIB,
        "the volume takes {taken} bytes: holes were written"
    );
    tenant.delete_pod("reader").await?;
    tenant.delete_claim(&claim.name).await?;
    tenant.nothing_left(&claim, WAIT).await
}

/// As KubeVirt keeps disks.
async fn file(world: &World) -> Result<()> {
    let tenant = world.tenant("image-file").await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    let digest = make(&archive, "raw.zst")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    let owner = json!({"all": {"uid": 107, "gid": 108}});
    let choices = json!({"imageFile": "disk.img", "ownership": owner});
    tenant.backup_as("backup", "archive", choices).await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore.status.and_then(|status| status.result);
    let format = result.context("a result")?.format;
    ensure!(format == "raw.zst", "{format}");
    tenant.pod("reader", "data", "sleep 1000000").await?;
    let volume = tenant.mounted("reader", "data", WAIT).await?;
    let names = fs::read_dir(&volume)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<Vec<_>>>()?;
    let names = names.into_iter().filter(|name| name != "lost+found");
    ensure!(names.eq(["disk.img"]), "other files");
    let image = volume.join("disk.img");
    let found = fs::metadata(&image)?;
    let (owner, mode) = ((found.uid(), found.gid()), found.mode() & 0o7777);
    ensure!((owner, mode) == ((107, 108), 0o660), "{owner:?} {mode:o}");
    let taken = found.blocks() * 512;
    ensure!(
        found.len() == SIZE && taken < 8 * MIB,
        "{taken} of {}",
        found.len()
    );
    ensure!(
        hex::encode(Sha256::digest(fs::read(&image)?)) == digest,
        "other bytes"
    );
    tenant.delete_pod("reader").await?;
    tenant.delete_claim("data").await?;
    tenant.nothing_left(&claim, WAIT).await
}

/// A tenant with a VolumeBackup of an archive of files, or of an image.
async fn tenant<'a>(world: &'a World, name: &str, of_files: bool) -> Result<Tenant<'a>> {
    let tenant = world.tenant(name).await?;
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("archive");
    if of_files {
        let tree = folder.path().join("tree");
        odd_tree::make(&tree)?;
        odd_tree::pack(&tree, &archive, "tar.gz")?;
    } else {
        make(&archive, "raw.zst")?;
    }
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    Ok(tenant)
}

async fn files(world: &World) -> Result<()> {
    let tenant = tenant(world, "files-for-a-device", true).await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant.claim_with("data", &Wish::BACKUP, as_block).await?;
    let words = tenant.warned(&claim, "NotAnImage", WAIT).await?;
    ensure!(words.contains("volumeMode Filesystem"), "{words}");
    refused(&tenant, &claim, "NotAnImage").await
}

async fn image(world: &World) -> Result<()> {
    let tenant = tenant(world, "image-for-files", false).await?;
    tenant.backup("backup", "archive").await?;
    let claim = tenant.claim("data", &Wish::BACKUP).await?;
    let words = tenant.warned(&claim, "NotAnArchive", WAIT).await?;
    ensure!(words.contains("volumeMode Block"), "{words}");
    refused(&tenant, &claim, "NotAnArchive").await
}

/// Told before there is a volume; and it goes on when it is taken out.
async fn chosen(world: &World) -> Result<()> {
    let tenant = tenant(world, "chosen-for-a-device", false).await?;
    let choices = json!({"include": ["data/**"]});
    tenant.backup_as("backup", "archive", choices).await?;
    let claim = tenant.claim_with("data", &Wish::BACKUP, as_block).await?;
    let words = tenant.warned(&claim, "VolumeBackupInvalid", WAIT).await?;
    ensure!(words.contains("include"), "{words}");
    tenant.nothing_left(&claim, WAIT).await?;
    let backup = ["patch", "volumebackup", "backup", "-n", &tenant.name];
    let change = ["--type=merge", "-p", r#"{"spec": {"include": null}}"#];
    world
        .cluster
        .kubectl(&[&backup[..], &change[..]].concat())
        .await?;
    tenant.completed("data", WAIT).await.map(drop)
}
