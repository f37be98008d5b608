//! What lies in `deploy/` and `examples/`, applied as a user would.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tests::product::repository;

use crate::{ApiSuite, World, apply_deploy};

pub fn add(suite: &mut ApiSuite) {
    suite.test("deploy_applied_again_changes_nothing", applied_again);
    suite.test(
        "deploy_keeps_to_its_namespace_and_grants_nothing_by_wildcard",
        keeps_to_itself,
    );
    suite.test(
        "the_driver_attaches_nothing_and_its_class_waits_for_a_pod",
        driver_and_class,
    );
    suite.test("each_example_is_accepted_strictly", examples);
    suite.test(
        "the_first_example_is_the_one_of_the_readme_unchanged",
        first_example,
    );
    suite.test("what_the_readme_shows_is_accepted_strictly", readme);
}

async fn applied_again(world: &World) -> Result<()> {
    let first: BTreeSet<_> = results(&world.installed)?;
    ensure!(
        first.iter().all(|(_, result)| *result == "created"),
        "at first: {first:?}"
    );
    for object in [
        "namespace/volume-populator",
        "csidriver.storage.k8s.io/fastcopy.csi.example.com",
        "storageclass.storage.k8s.io/fast-csi-storage",
        "daemonset.apps/driver",
        "daemonset.apps/agent",
        "deployment.apps/controller",
    ] {
        ensure!(
            first.contains(&(object, "created")),
            "{object} is not among {first:?}"
        );
    }
    let again = apply_deploy(&world.cluster).await?;
    let again = results(&again)?;
    ensure!(
        again.iter().all(|(_, result)| *result == "unchanged"),
        "then: {again:?}"
    );
    let names = |all: &BTreeSet<(_, _)>| all.iter().map(|(name, _)| *name).collect::<Vec<&str>>();
    ensure!(
        names(&first) == names(&again),
        "other objects the second time: {again:?}"
    );
    Ok(())
}

/// Objects and what became of them, from the lines of `kubectl apply`.
fn results(printed: &str) -> Result<BTreeSet<(&str, &str)>> {
    let results = printed
        .lines()
        .map(|line| line.split_once(' ').context(line.to_owned()));
    let results = results.collect::<Result<BTreeSet<_>>>()?;
    ensure!(!results.is_empty(), "kubectl applied nothing");
    Ok(results)
}

async fn keeps_to_itself(world: &World) -> Result<()> {
    let folder = repository().join("deploy");
    let folder = folder
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let printed = world.cluster.kubectl(&["kustomize", folder]).await?;
    confined(&documents(&printed)?)
}

/// Objects of ours are in our namespace, and no rule grants anything by wildcard.
pub fn confined(objects: &[Value]) -> Result<()> {
    let mut rules = 0;
    for object in objects {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        let namespaced = matches!(
            kind,
            "DaemonSet" | "Deployment" | "Role" | "RoleBinding" | "ServiceAccount"
        );
        let namespace = if namespaced { "volume-populator" } else { "" };
        let found = text(object, "/metadata/namespace");
        ensure!(
            found == namespace,
            "{kind} {name} is in namespace {found:?}"
        );
        if matches!(kind, "Role" | "ClusterRole") {
            for rule in object["rules"].as_array().into_iter().flatten() {
                ensure!(
                    !rule.to_string().contains('*'),
                    "{kind} {name} grants {rule}"
                );
                rules += 1;
            }
        }
    }
    ensure!(rules > 10, "only {rules} rules were looked at");
    Ok(())
}

async fn driver_and_class(world: &World) -> Result<()> {
    let driver = ["get", "csidriver", "fastcopy.csi.example.com", "-o", "json"];
    let driver: Value = serde_json::from_str(&world.cluster.kubectl(&driver).await?)?;
    ensure!(
        driver["spec"]["attachRequired"] == false,
        "{}",
        driver["spec"]
    );
    ensure!(
        driver["spec"]["nodeAllocatableUpdatePeriodSeconds"] == 60,
        "{}",
        driver["spec"]
    );
    for (name, mode) in [
        ("fast-csi-storage", "WaitForFirstConsumer"),
        ("fast-csi-storage-xfs", "WaitForFirstConsumer"),
        ("fast-csi-storage-immediate", "Immediate"),
    ] {
        let class = ["get", "storageclass", name, "-o", "json"];
        let class: Value = serde_json::from_str(&world.cluster.kubectl(&class).await?)?;
        ensure!(class["volumeBindingMode"] == mode, "{name}: {class}");
        ensure!(
            class["provisioner"] == "fastcopy.csi.example.com",
            "{name}: {class}"
        );
        ensure!(class["allowVolumeExpansion"] == true, "{name}: {class}");
    }
    Ok(())
}

async fn examples(world: &World) -> Result<()> {
    let mut files = fs::read_dir(repository().join("examples"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    ensure!(files.len() > 2, "the examples are {files:?}");
    for file in files {
        let shown = file.display().to_string();
        ensure!(
            file.extension()
                .is_some_and(|extension| extension == "yaml"),
            "{shown}"
        );
        let objects = documents(&fs::read_to_string(&file)?)?;
        let arguments = [
            "apply",
            "--validate=strict",
            "--warnings-as-errors",
            "-f",
            &shown,
        ];
        let printed = world.cluster.kubectl(&arguments).await?;
        let results = results(&printed)?;
        ensure!(
            results.iter().all(|(_, result)| *result == "created"),
            "{shown}: {results:?}"
        );
        ensure!(results.len() == objects.len(), "{shown}: only {results:?}");
        // The API server takes a PVC of any class: one that is not there waits for ever.
        for class in objects
            .iter()
            .filter_map(|object| object["spec"].get("storageClassName"))
        {
            let class = class.as_str().context(shown.clone())?;
            world
                .cluster
                .kubectl(&["get", "storageclass", class])
                .await
                .context(shown.clone())?;
        }
        // What the next one brings may bear the same names.
        world
            .cluster
            .kubectl(&["delete", "--timeout=20s", "-f", &shown])
            .await?;
    }
    Ok(())
}

async fn first_example(_: &World) -> Result<()> {
    let documents = documents(&fs::read_to_string(
        repository().join("examples/restore.yaml"),
    )?)?;
    let backup = json!({
        "apiVersion": "backup.example.com/v1",
        "kind": "VolumeBackup",
        "metadata": {"name": "database-backup-v1", "namespace": "default"},
        "spec": {
            "backupURL": "s3://my-bucket/database-backup-20250101.tar.gz",
            "restorePoint": "2025-01-01T10:00:00Z",
        },
    });
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "restored-database", "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "50Gi"}},
            "storageClassName": "fast-csi-storage",
            "dataSourceRef": {
                "apiGroup": "backup.example.com",
                "kind": "VolumeBackup",
                "name": "database-backup-v1",
            },
        },
    });
    ensure!(
        documents == [backup, claim],
        "examples/restore.yaml holds {documents:#?}"
    );
    Ok(())
}

async fn readme(world: &World) -> Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let blocks: Vec<_> = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block))
        .collect();
    ensure!(
        blocks.len() > 1,
        "the README shows {} manifests",
        blocks.len()
    );
    let apply = [
        "apply",
        "--validate=strict",
        "--warnings-as-errors",
        "--dry-run=server",
        "-f",
        "-",
    ];
    for block in &blocks {
        world
            .cluster
            .kubectl_with_input(&apply, block)
            .await
            .context((*block).to_owned())?;
    }
    // Strictness is what makes this a check: a field that does not exist is refused.
    let unknown = blocks
        .concat()
        .replacen("spec:", "spec:\n  populatorPolicy: {}", 1);
    match world.cluster.kubectl_with_input(&apply, &unknown).await {
        Ok(printed) => bail!("an unknown field was accepted: {printed}"),
        Err(error) => ensure!(error.to_string().contains("populatorPolicy"), "{error:#}"),
    }
    Ok(())
}

/// All objects in a YAML file.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(yaml).context("YAML")
}

/// The text at `pointer`, or none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
