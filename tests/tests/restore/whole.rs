//! What comes back: everything, for each format, file system and binding mode.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{
    odd_tree,
    shared::{SharedSuite, World},
    tenant::{Claim, Tenant, Wish},
    tree,
};

const WAIT: Duration = Duration::from_secs(120);

pub fn add(suite: &mut SharedSuite) {
    suite.test("an_empty_pvc_is_written_by_a_pod", async |world: &World| {
        empty(world, "empty-ext4", "fast-csi-storage").await
    });
    suite.test(
        "an_empty_xfs_pvc_is_written_by_a_pod",
        async |world: &World| empty(world, "empty-xfs", "fast-csi-storage-xfs").await,
    );
    for (name, suffix, class) in [
        (
            "gzip_into_ext4_wait_for_first_consumer",
            "tar.gz",
            "fast-csi-storage",
        ),
        (
            "zstd_into_ext4_immediate",
            "tar.zst",
            "fast-csi-storage-immediate",
        ),
        (
            "tar_into_xfs_wait_for_first_consumer",
            "tar",
            "fast-csi-storage-xfs",
        ),
    ] {
        suite.test(
            &format!("the_tree_comes_back_from_{name}"),
            async move |world: &World| {
                comes_back(world, &name.replace('_', "-"), suffix, class).await
            },
        );
    }
    suite.test("five_claims_of_one_backup_at_once", at_once);
    suite.test("the_examples_of_the_readme_restore_unchanged", examples);
}

async fn empty(world: &World, name: &str, class: &str) -> Result<()> {
    let tenant = world.tenant(name).await?;
    let wish = Wish {
        class,
        size: "1Gi",
        backup: None,
    };
    let claim = tenant.claim("data", &wish).await?;
    tenant
        .pod(
            "writer",
            "data",
            "echo written > /data/file && sync && sleep 1000000",
        )
        .await?;
    let folder = tenant.mounted("writer", "data", WAIT).await?;
    tests::wait::eventually("the pod's file", WAIT, || async {
        let words = fs::read_to_string(folder.join("file"))?;
        ensure!(words == "written\n", "it holds {words:?}");
        Ok(())
    })
    .await?;
    gone_with_its_pvc(&tenant, "writer", &claim).await
}

/// Deleting the PVC takes the volume away.
async fn gone_with_its_pvc(tenant: &Tenant<'_>, pod: &str, claim: &Claim) -> Result<()> {
    tenant.delete_pod(pod).await?;
    tenant.delete_claim(&claim.name).await?;
    tenant.nothing_left(claim, WAIT).await
}

async fn comes_back(world: &World, name: &str, suffix: &str, class: &str) -> Result<()> {
    let tenant = world.tenant(name).await?;
    let folder = tempfile::tempdir()?;
    let original = folder.path().join("original");
    odd_tree::make(&original)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&original, &archive, suffix)?;
    let key = format!("archive.{suffix}");
    world.server.put_file(&tenant.name, &key, &archive).await?;
    tenant.backup("backup", &key).await?;
    let claim = tenant
        .claim(
            "data",
            &Wish {
                class,
                size: "1Gi",
                backup: Some("backup"),
            },
        )
        .await?;
    tenant.pod("reader", "data", "sleep 1000000").await?;
    let restore = tenant.completed("data", WAIT).await?;
    let result = restore
        .status
        .and_then(|status| status.result)
        .context("a result")?;
    ensure!(
        result.not_restored.is_empty(),
        "not restored: {:?}",
        result.not_restored
    );
    let verified = if suffix == "tar" { "None" } else { "Stream" };
    ensure!(result.verified == verified, "verified: {}", result.verified);
    let mounted = tenant.mounted("reader", "data", WAIT).await?;
    same(&original, &mounted)?;
    gone_with_its_pvc(&tenant, "reader", &claim).await
}

fn same(original: &Path, restored: &Path) -> Result<()> {
    let differences = tree::differences(&tree::read(original)?, &tree::read(restored)?);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

async fn at_once(world: &World) -> Result<()> {
    let tenant = world.tenant("at-once").await?;
    let folder = tempfile::tempdir()?;
    let original = folder.path().join("original");
    odd_tree::make(&original)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&original, &archive, "tar.gz")?;
    world
        .server
        .put_file(&tenant.name, "archive", &archive)
        .await?;
    tenant.backup("backup", "archive").await?;
    let names = ["one", "two", "three", "four", "five"];
    for name in names {
        tenant.claim(name, &Wish::BACKUP).await?;
    }
    for name in names {
        tenant.completed(name, WAIT).await?;
        tenant.pod(name, name, "sleep 1000000").await?;
    }
    for name in names {
        same(&original, &tenant.mounted(name, name, WAIT).await?)?;
    }
    Ok(())
}

/// `examples/restore.yaml` and `examples/pod.yaml`, in `default`, with only the store of our own.
async fn examples(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let original = folder.path().join("original");
    odd_tree::make(&original)?;
    let archive = folder.path().join("archive");
    odd_tree::pack(&original, &archive, "tar.gz")?;
    world.server.create_bucket("my-bucket").await?;
    let key = "database-backup-20250101.tar.gz";
    world.server.put_file("my-bucket", key, &archive).await?;
    let tenant = Tenant {
        cluster: &world.cluster,
        name: "default".to_owned(),
    };
    tenant
        .store_for(
            "my-bucket",
            &world.server.endpoint(),
            (world.server.access_key(), world.server.secret_key()),
        )
        .await?;
    let examples = tests::product::repository().join("examples");
    for name in ["restore.yaml", "pod.yaml"] {
        let file = examples.join(name);
        let file = file
            .to_str()
            .context("the repository's path is not UTF-8")?;
        world
            .cluster
            .kubectl(&["apply", "--validate=strict", "-f", file])
            .await?;
    }
    tenant.completed("restored-database", WAIT).await?;
    let mounted = tenant
        .mounted("database", "restored-database", WAIT)
        .await?;
    same(&original, &mounted)?;
    // The API server's own record: nobody but this test made a pod in a tenant's namespace.
    let events = world.cluster.audit_log().events()?;
    let ours = ["kube-system", tests::product::NAMESPACE];
    let strangers: Vec<_> = events
        .iter()
        .filter(|event| event.created("pods"))
        .filter(|event| !ours.contains(&event.namespace.as_str()))
        .filter(|event| event.user != "admin")
        .collect();
    ensure!(
        strangers.is_empty(),
        "pods that no test made: {strangers:?}"
    );
    Ok(())
}
