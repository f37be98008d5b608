//! The product on a cluster, installed as a user would: images, then `deploy/` by kubectl.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};

use crate::{cluster::Cluster, image::Image, s3::S3Server};

/// Which form of the product is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `deploy/` with a sparse pool.
    Plain,
    /// The same with the populator that has fail points, see `populator/src/failpoint.rs`.
    FailPoints,
}

impl Form {
    fn overlay(self) -> PathBuf {
        let name = match self {
            Self::Plain => "sparse-pool",
            Self::FailPoints => "fail-points",
        };
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("overlays")
            .join(name)
    }
}

/// The namespace of everything in `deploy/`.
pub const NAMESPACE: &str = "volume-populator";

/// The checked-out repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in it")
        .to_owned()
}

/// Loads the images that `deploy/` and the examples name into every node.
pub async fn load_images(cluster: &Cluster, form: Form) -> Result<()> {
    let tools = cluster.tools();
    let mut images = vec![
        Image::busybox("busybox:1.35")?,
        Image::driver("volume-populator/driver:dev")?,
        Image::populator("volume-populator/populator:dev")?,
        Image::csi_provisioner("registry.k8s.io/sig-storage/csi-provisioner:v6.3.0", tools)?,
    ];
    if form == Form::FailPoints {
        let program = fail_point_program()?;
        images.push(Image::program(
            "volume-populator/populator:fail-points",
            &program,
        )?);
    }
    for image in images {
        cluster.load(image).await?;
    }
    Ok(())
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
    let overlay = form.overlay();
    let overlay = overlay
        .to_str()
        .context("the repository's path is not UTF-8")?;
    cluster
        .kubectl(&["apply", "--validate=strict", "-k", overlay])
        .await?;
    wait_until_up(cluster).await
}

/// Waits until driver, agents and controller are rolled out.
pub async fn wait_until_up(cluster: &Cluster) -> Result<()> {
    for object in [
        "daemonset/driver",
        "daemonset/agent",
        "deployment/controller",
    ] {
        let arguments = [
            "-n",
            NAMESPACE,
            "rollout",
            "status",
            object,
            "--timeout=120s",
        ];
        cluster.kubectl(&arguments).await?;
    }
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
