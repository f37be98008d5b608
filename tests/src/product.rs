//! The product on a cluster, installed as a user would: images, then `deploy/` by kubectl.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

use crate::{
    cluster::{ClientLimits, Cluster},
    host_path::HostPath,
    image::Image,
    s3::S3Server,
    tools::Tools,
};

/// Which form of the product is installed: `deploy/` with a sparse pool, and what a form adds. Each
/// is a folder in `tests/overlays`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing more.
    Plain,
    /// Another driver beside ours, and all clients with the limits that they are shipped with.
    StockLimits,
    /// The same with every client's limits raised, so that nothing waits for its turn.
    RaisedLimits,
    /// The populator with fail points instead, see `populator/src/failpoint.rs`.
    FailPoints,
    /// Snapshots, on any number of nodes.
    Snapshots,
    /// Snapshots, another driver beside ours, those of others that the machine has, and VolumeBackups
    /// of other namespaces.
    Restore,
    /// Also what works on one node only: group snapshots, changes of volumes.
    OneNode,
    /// That, with uses of volumes tracked by external-attacher.
    Attached,
}

impl Form {
    fn overlay(self) -> Result<String> {
        let name = match self {
            Self::Plain => "sparse-pool",
            Self::StockLimits => "stock-limits",
            Self::RaisedLimits => "raised-limits",
            Self::FailPoints => "fail-points",
            Self::Snapshots => "snapshots",
            Self::Restore if HostPath::found().is_some() => "restore-and-host-path",
            Self::Restore => "restore",
            Self::OneNode => "one-node",
            Self::Attached => "attached",
        };
        folder(&format!("tests/overlays/{name}"))
    }

    /// How many nodes a cluster has on which it is tried: two, unless it is for one alone.
    pub fn nodes(self) -> u8 {
        match self {
            Self::OneNode | Self::Attached => 1,
            Self::Plain
            | Self::StockLimits
            | Self::RaisedLimits
            | Self::FailPoints
            | Self::Snapshots
            | Self::Restore => 2,
        }
    }

    /// What Kubernetes' own clients may send, if not what they are shipped with; what sidecars may,
    /// stands in the overlays.
    pub fn client_limits(self) -> Option<ClientLimits> {
        (self == Self::RaisedLimits).then_some(ClientLimits {
            per_second: 1000,
            burst: 2000,
        })
    }

    fn has_snapshots(self) -> bool {
        matches!(
            self,
            Self::Snapshots | Self::Restore | Self::OneNode | Self::Attached
        )
    }

    /// The gates of its API server that differ from those that it is shipped with.
    pub fn feature_gates(self) -> &'static str {
        match self {
            Self::Restore => CROSS_NAMESPACE,
            _ => "",
        }
    }

    fn has_other_driver(self) -> bool {
        matches!(
            self,
            Self::StockLimits | Self::RaisedLimits | Self::FailPoints | Self::Restore
        )
    }
}

/// The gate with which a `dataSourceRef` may name another namespace.
pub const CROSS_NAMESPACE: &str = "CrossNamespaceVolumeDataSource=true";

/// The namespace of everything in `deploy/`.
pub const NAMESPACE: &str = "volume-populator";

/// The checked-out repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in it")
        .to_owned()
}

/// A folder of the repository, for kubectl.
fn folder(name: &str) -> Result<String> {
    let folder = repository().join(name).into_os_string().into_string();
    folder.ok().context("the repository's path is not UTF-8")
}

const SNAPSHOT_CONTROLLER: &str = "tests/overlays/snapshot-controller";

/// Loads the images that the manifests and the examples name into every node.
pub async fn load_images(cluster: &Cluster, form: Form) -> Result<()> {
    let mut manifests = cluster.kubectl(&["kustomize", &form.overlay()?]).await?;
    if form.has_snapshots() {
        let controller = folder(SNAPSHOT_CONTROLLER)?;
        manifests += &cluster.kubectl(&["kustomize", &controller]).await?;
    }
    let named = manifests
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image: "));
    for name in named.collect::<BTreeSet<_>>() {
        cluster.load(image(name, cluster.tools())?).await?;
    }
    cluster.load(Image::busybox("busybox:1.35")?).await
}

/// The image of this name in `deploy/`: a program of ours, or the sidecar that it is called after.
fn image(name: &str, tools: &Tools) -> Result<Image> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':').context("an image's name has a tag")? {
        ("driver", _) => Image::driver(name),
        ("populator", "fail-points") => Image::program(name, &fail_point_program()?),
        ("populator", _) => Image::populator(name),
        ("hostpathplugin", _) => host_path(name)?.plugin_image(name),
        ("csi-node-driver-registrar", _) => Image::program(name, &host_path(name)?.registrar),
        (sidecar, _) => Image::program(name, &tools.built(sidecar)),
    }
}

fn host_path(image: &str) -> Result<HostPath> {
    HostPath::found().with_context(|| format!("no program is named for {image}"))
}

/// The populator that `tests/tools/prepare` builds with the feature `failpoints`.
fn fail_point_program() -> Result<PathBuf> {
    let program = crate::tools::product("populator")?
        .with_file_name("fail-points")
        .join("populator");
    ensure!(
        program.is_file(),
        "{} is not built: run `make tools`",
        program.display()
    );
    Ok(program)
}

/// Applies `deploy/` under strict validation and waits until all of it is up.
pub async fn install(cluster: &Cluster, form: Form) -> Result<()> {
    if form == Form::FailPoints {
        for node in cluster.nodes() {
            node.run(&["mkdir", "-p", "-m", "0777", "/var/lib/fail-points"])?;
        }
    }
    if form.has_snapshots() {
        install_snapshot_controller(cluster).await?;
    }
    if form == Form::Restore {
        install_reference_grants(cluster).await?;
    }
    let overlay = form.overlay()?;
    cluster
        .kubectl(&["apply", "--validate=strict", "-k", &overlay])
        .await?;
    if form.has_other_driver() {
        rolled_out(cluster, NAMESPACE, "daemonset/other-driver").await?;
    }
    if form == Form::Restore && HostPath::found().is_some() {
        for driver in ["host-path", "attached-host-path"] {
            rolled_out(cluster, NAMESPACE, &format!("daemonset/{driver}")).await?;
        }
    }
    wait_until_up(cluster).await
}

/// What the owner of a cluster brings for all of its drivers: the kinds of snapshots, and the
/// controller that serves them.
pub async fn install_snapshot_controller(cluster: &Cluster) -> Result<()> {
    let kinds = cluster.tools().built("snapshot-crds");
    let kinds = kinds.to_str().context("the cache's path is not UTF-8")?;
    cluster.kubectl(&["apply", "-k", kinds]).await?;
    let established = ["--for=condition=Established", "crd", "--all"];
    cluster
        .kubectl(&[&["wait"][..], &established, &["--timeout=30s"]].concat())
        .await?;
    let controller = folder(SNAPSHOT_CONTROLLER)?;
    let apply = ["apply", "--validate=strict", "-k", &controller];
    cluster.kubectl(&apply).await?;
    rolled_out(cluster, "kube-system", "deployment/snapshot-controller").await
}

/// What the owner of a cluster brings for references between namespaces.
pub async fn install_reference_grants(cluster: &Cluster) -> Result<()> {
    let kinds = cluster.tools().built("gateway-crds");
    let kind = kinds.join("gateway.networking.k8s.io_referencegrants.yaml");
    let kind = kind.to_str().context("the cache's path is not UTF-8")?;
    cluster.kubectl(&["apply", "-f", kind]).await?;
    Ok(())
}

/// Waits until driver, agents and controller are rolled out.
pub async fn wait_until_up(cluster: &Cluster) -> Result<()> {
    for object in [
        "daemonset/driver",
        "daemonset/agent",
        "deployment/controller",
    ] {
        rolled_out(cluster, NAMESPACE, object).await?;
    }
    Ok(())
}

async fn rolled_out(cluster: &Cluster, namespace: &str, object: &str) -> Result<()> {
    let arguments = [
        "rollout",
        "status",
        object,
        "--timeout=120s",
        "-n",
        namespace,
    ];
    cluster.kubectl(&arguments).await?;
    Ok(())
}

/// A Secret and a BackupStore `store` in a namespace, for a bucket of a server that speaks S3.
pub fn store_manifest(namespace: &str, bucket: &str, server: &S3Server) -> String {
    let (access, secret) = (server.access_key(), server.secret_key());
    let endpoint = server.endpoint();
    format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: store-credentials
  namespace: {namespace}
stringData:
  AWS_ACCESS_KEY_ID: {access}
  AWS_SECRET_ACCESS_KEY: {secret}
---
apiVersion: backup.example.com/v1
kind: BackupStore
metadata:
  name: store
  namespace: {namespace}
spec:
  url: s3://{bucket}
  endpoint: {endpoint}
  credentialsSecretRef:
    name: store-credentials
"
    )
}

/// A container of ours that runs.
#[derive(Clone, Debug)]
pub struct Container {
    /// The node's name.
    pub node: String,
    /// The container's name.
    pub name: String,
    /// Its first process, as the machine counts.
    pub pid: u32,
    /// How often kubelet started it again.
    pub restarts: i32,
}

/// Every container in our namespace that runs now.
pub async fn containers(cluster: &Cluster) -> Result<Vec<Container>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let mut containers = Vec::new();
    for pod in pods.list(&ListParams::default()).await? {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default();
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        for status in statuses.into_iter().flatten() {
            let (name, restarts) = (status.name.clone(), status.restart_count);
            // One that is just being started again has none.
            let Ok(processes) = cluster.container_processes(&pod, &name) else {
                continue;
            };
            containers.push(Container {
                node: node.clone(),
                name,
                pid: processes[0],
                restarts,
            });
        }
    }
    Ok(containers)
}

/// The populator's agents.
pub async fn agents(cluster: &Cluster) -> Result<Vec<Container>> {
    let mut agents = containers(cluster).await?;
    agents.retain(|container| container.name == "agent");
    ensure!(!agents.is_empty(), "no agent runs");
    Ok(agents)
}
