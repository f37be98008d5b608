//! What can be chosen beside `deploy/` itself, as far as an API server can judge it.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::product::repository;

use crate::manifests::{confined, documents, text};
use crate::{ApiSuite, World};

/// Each of the options in at least one of them; see their comments.
const OVERLAYS: [&str; 5] = [
    "snapshots",
    "restore",
    "one-node",
    "attached",
    "standard-sidecars",
];

pub fn add(suite: &mut ApiSuite) {
    suite.test("each_option_is_accepted_strictly_and_confined", options);
    suite.test(
        "snapshot_controller_is_accepted_strictly",
        snapshot_controller,
    );
    suite.test("options_leave_the_driver_the_first_container", order);
    suite.test("attaching_is_chosen_before_the_driver_is_installed", attach);
}

const STRICTLY: [&str; 3] = ["apply", "--validate=strict", "--warnings-as-errors"];

fn folder(name: &str) -> Result<String> {
    let folder = repository().join(name).into_os_string().into_string();
    folder.ok().context("the repository's path is not UTF-8")
}

fn overlay(name: &str) -> Result<String> {
    folder(&format!("tests/overlays/{name}"))
}

/// The kinds of snapshots, which a cluster brings.
async fn snapshot_kinds(world: &World) -> Result<()> {
    let kinds = world.cluster.tools().built("snapshot-crds");
    let kinds = kinds.to_str().context("the cache's path is not UTF-8")?;
    world.cluster.kubectl(&["apply", "-k", kinds]).await?;
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    world.cluster.kubectl(&established).await?;
    Ok(())
}

async fn options(world: &World) -> Result<()> {
    snapshot_kinds(world).await?;
    for name in OVERLAYS {
        let printed = world
            .cluster
            .kubectl(&["kustomize", &overlay(name)?])
            .await?;
        let mut objects = documents(&printed)?;
        confined(&objects).context(name)?;
        // Beside the driver that is installed already this could not be; see `attach`.
        objects.retain(|object| object["kind"] != "CSIDriver");
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let apply = [&STRICTLY[..], &["--dry-run=server", "-f", "-"]].concat();
        world
            .cluster
            .kubectl_with_input(&apply, &list.to_string())
            .await
            .context(name)?;
    }
    Ok(())
}

async fn snapshot_controller(world: &World) -> Result<()> {
    snapshot_kinds(world).await?;
    let folder = folder("deploy/snapshot-controller")?;
    let apply = [&STRICTLY[..], &["--dry-run=server", "-k", &folder]].concat();
    world.cluster.kubectl(&apply).await?;
    Ok(())
}

/// Settings are added to the first container of the DaemonSet, by users and by `--attach`.
async fn order(world: &World) -> Result<()> {
    for name in OVERLAYS {
        let printed = world
            .cluster
            .kubectl(&["kustomize", &overlay(name)?])
            .await?;
        let objects = documents(&printed)?;
        let driver = objects
            .iter()
            .find(|object| {
                text(object, "/kind") == "DaemonSet" && text(object, "/metadata/name") == "driver"
            })
            .context("a DaemonSet for the driver")?;
        let first = text(driver, "/spec/template/spec/containers/0/name");
        ensure!(first == "driver", "{name}: the first container is {first}");
        let containers = driver.pointer("/spec/template/spec/containers");
        let containers = containers.and_then(Value::as_array).context("containers")?;
        for container in &containers[1..] {
            let ours = container["args"].to_string().contains("--attach");
            ensure!(!ours, "{name}: --attach went to {}", container["name"]);
        }
    }
    Ok(())
}

/// As the comment in `deploy/attach` says: the field cannot be changed.
async fn attach(world: &World) -> Result<()> {
    let printed = world
        .cluster
        .kubectl(&["kustomize", &overlay("attached")?])
        .await?;
    let objects = documents(&printed)?;
    let driver = objects
        .iter()
        .find(|object| text(object, "/kind") == "CSIDriver");
    let driver = driver.context("a CSIDriver")?;
    ensure!(driver["spec"]["attachRequired"] == true, "{driver}");
    let driver = driver.to_string();
    let apply = [&STRICTLY[..], &["-f", "-"]].concat();
    match world.cluster.kubectl_with_input(&apply, &driver).await {
        Ok(printed) => bail!("attachRequired was changed: {printed}"),
        Err(error) => ensure!(error.to_string().contains("immutable"), "{error:#}"),
    }
    let name = "fastcopy.csi.example.com";
    world
        .cluster
        .kubectl(&["delete", "csidriver", name])
        .await?;
    let made = world.cluster.kubectl_with_input(&apply, &driver).await;
    world
        .cluster
        .kubectl(&["delete", "csidriver", name, "--ignore-not-found"])
        .await?;
    crate::apply_deploy(&world.cluster).await?;
    made.map(drop)
}
