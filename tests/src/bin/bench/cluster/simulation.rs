//! Nodes without a kubelet: a Node object that says that it is well, and our own driver and agent as
//! processes of the machine, in a mount namespace with a `/var/lib` and a pool of their own. They make and
//! fill real volumes; pods never run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tests::cluster::Cluster;
use tests::process::Process;
use tests::product::NAMESPACE;
use tests::tools::product;
use tests::wait::eventually;
use tokio::task::JoinHandle;

const DRIVER: &str = "fastcopy.csi.example.com";
const TOPOLOGY: &str = "topology.fastcopy.csi.example.com/node";

/// How long a node may take until its agent serves.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often kubelet renews its node's Lease.
const RENEWED: Duration = Duration::from_secs(10);

/// Nothing of it is seen on the machine, and all of it goes with the last process in it.
const ENTER: &str = "set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind \"$1\" /var/lib
shift
exec \"$@\"";

/// Simulated nodes of a cluster; their processes end with it.
pub struct Simulation {
    names: Vec<String>,
    processes: Vec<Process>,
    beating: JoinHandle<()>,
}

impl Simulation {
    /// Starts so many, and waits until their agents serve.
    pub async fn start(cluster: &Cluster, count: usize) -> Result<Self> {
        let names: Vec<String> = (1..=count).map(|number| format!("sim-{number}")).collect();
        let mut simulation = Self {
            beating: tokio::spawn(beat(cluster.client(), names.clone())),
            names,
            processes: Vec::new(),
        };
        let client = cluster.client();
        try_join_all(simulation.names.iter().map(|name| register(&client, name))).await?;
        let started = simulation.names.iter().map(|name| start(cluster, name));
        let started = try_join_all(started).await?;
        simulation.processes = started.into_iter().flatten().collect();
        simulation.served(client).await?;
        Ok(simulation)
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// An error if one of their programs has ended.
    pub fn check(&self) -> Result<()> {
        self.processes.iter().try_for_each(Process::check)
    }

    async fn served(&self, client: Client) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
        for name in &self.names {
            eventually(
                &format!("the agent of {name} serves"),
                PATIENCE,
                async || {
                    self.check()?;
                    let lease = leases.get(&populator::lease::name(name)).await?;
                    let drivers = lease.annotations().get(populator::lease::DRIVERS);
                    let drivers = drivers.context("it says nothing of drivers")?;
                    ensure!(drivers.contains(DRIVER), "it serves {drivers}");
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// Renews the nodes' Leases, as their kubelets would; else their pods would be evicted.
async fn beat(client: Client, names: Vec<String>) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let parameters = PatchParams::apply("bench").force();
    loop {
        for name in &names {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
                "spec": {
                    "holderIdentity": name, "leaseDurationSeconds": 40,
                    "renewTime": format!("{:.6}", Timestamp::now()),
                },
            });
            let renewed = leases.patch(name, &parameters, &Patch::Apply(lease)).await;
            if let Err(error) = renewed {
                println!("the Lease of {name} is not renewed: {error}");
            }
        }
        tokio::time::sleep(RENEWED).await;
    }
}

/// What kubelet writes of itself and of the driver that has registered itself with it.
async fn register(client: &Client, name: &str) -> Result<()> {
    let room = json!({"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, TOPOLOGY: name}},
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Simulated",
                "message": "nothing runs here but the driver and the agent",
            }],
        },
    }))?;
    let parameters = PostParams::default();
    let nodes: Api<Node> = Api::all(client.clone());
    let uid = nodes.create(&parameters, &node).await?.uid();
    let plugins: Api<CSINode> = Api::all(client.clone());
    let plugin: CSINode = serde_json::from_value(json!({
        "metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid.context("a UID")?},
        ]},
        "spec": {"drivers": [{"name": DRIVER, "nodeID": name, "topologyKeys": [TOPOLOGY]}]},
    }))?;
    plugins.create(&parameters, &plugin).await?;
    Ok(())
}

/// Starts driver and agent of a node, the agent as the pod that the DaemonSet has made for that node and
/// that no kubelet starts.
async fn start(cluster: &Cluster, name: &str) -> Result<[Process; 2]> {
    let lib = cluster.state().subfolder(&format!("{name}/lib"))?;
    let kubelet = lib.join("kubelet");
    let socket = PathBuf::from("plugins").join(DRIVER).join("csi.sock");
    for folder in ["fastcopy", "kubelet/plugins_registry"] {
        fs::create_dir_all(lib.join(folder))?;
    }
    fs::create_dir_all(kubelet.join("plugins").join(DRIVER))?;
    let driver = start_driver(cluster, name, &lib, &socket)?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let pod = eventually(
        &format!("{name} has an agent's pod"),
        PATIENCE,
        async || {
            driver.check()?;
            ensure!(
                kubelet.join(&socket).exists(),
                "its driver does not serve yet"
            );
            let only = ListParams::default()
                .labels("app.kubernetes.io/component=agent")
                .fields(&format!("spec.nodeName={name}"));
            let pods = pods.list(&only).await?;
            pods.items.into_iter().next().context("there is none yet")
        },
    )
    .await?;
    let token = cluster.token(NAMESPACE, "agent", Some(&pod)).await?;
    let kubeconfig = cluster.kubeconfig_for_token(&token)?;
    fs::write(kubelet.join("kubeconfig"), kubeconfig)?;
    let agent = start_agent(cluster, name, &pod, driver.pid())?;
    Ok([driver, agent])
}

fn start_driver(cluster: &Cluster, name: &str, lib: &Path, socket: &Path) -> Result<Process> {
    let mut command = cluster.state().command(Path::new("unshare"));
    command
        .args(["--mount", "--propagation", "private"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(lib)
        .arg(product("driver")?)
        .arg(format!("--node-name={name}"))
        .arg(format!(
            "--endpoint=unix:///var/lib/kubelet/{}",
            socket.display()
        ))
        .args(["--pool-size=200Gi", "--pool-sparse", "--no-http"])
        .env("TMPDIR", "/run");
    spawn(cluster, &format!("{name}-driver"), &mut command)
}

/// Beside the driver, so that it sees what that mounts.
fn start_agent(cluster: &Cluster, name: &str, pod: &Pod, driver: u32) -> Result<Process> {
    let mut command = cluster.state().command(Path::new("nsenter"));
    command
        .args(["--target", &driver.to_string(), "--mount", "--"])
        .arg(product("populator")?)
        .args(["agent", "--http-address=off"])
        .env("KUBECONFIG", "/var/lib/kubelet/kubeconfig")
        .env("NODE_NAME", name)
        .env("POD_NAME", pod.name_any())
        .env("POD_NAMESPACE", NAMESPACE)
        .env("POD_UID", pod.uid().unwrap_or_default())
        .env("SERVICE_ACCOUNT", "agent");
    spawn(cluster, &format!("{name}-agent"), &mut command)
}

fn spawn(cluster: &Cluster, name: &str, command: &mut std::process::Command) -> Result<Process> {
    let log = cluster
        .state()
        .subfolder("logs")?
        .join(format!("{name}.log"));
    Process::spawn(name, command, &log)
}
