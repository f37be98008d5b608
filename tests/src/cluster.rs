//! A real Kubernetes on this machine: etcd, API server, controller manager, scheduler, and nodes
//! that run pods.
//!
//! The machine is the control plane. A bridge on it carries the address of the service
//! `kubernetes`, where the API server itself listens; so in-cluster configuration works in every
//! pod without kube-proxy. There is no DNS: whatever pods speak to is named by its address.

mod audit;
mod control_plane;
mod failure;
mod network;
mod node;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod, ServiceAccount};
use kube::api::PostParams;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::task::{JoinSet, spawn_blocking};

pub use self::audit::{AuditEvent, AuditLog, Mark};
use self::control_plane::ControlPlane;
pub use self::node::{Mount, Node};
use crate::addresses::MOST_NODES;
use crate::command;
use crate::image::Image;
use crate::state::State;
use crate::tools::Tools;
use crate::wait::eventually;

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    name: String,
    nodes: u8,
    controllers: bool,
    durable: bool,
    feature_gates: &'static str,
    client_limits: Option<ClientLimits>,
}

/// How many requests a client may send to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// In a second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl ClusterBuilder {
    /// How many nodes, 1 by default. None makes a cluster whose controllers and scheduler run but
    /// in which no pod ever does.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Only etcd and the API server: no nodes, no controllers.
    #[must_use]
    pub fn api_only(mut self) -> Self {
        self.nodes = 0;
        self.controllers = false;
        self
    }

    /// What kube-controller-manager, kube-scheduler and each kubelet may send. Without this they keep to
    /// what they are shipped with: 20 a second and 30 at once, and 50 and 100 for the other two.
    #[must_use]
    pub fn client_limits(mut self, limits: ClientLimits) -> Self {
        self.client_limits = Some(limits);
        self
    }

    /// Feature gates of the API server that differ from what it is shipped with, as its flag has them:
    /// `ONE=true,OTHER=false`.
    #[must_use]
    pub fn feature_gates(mut self, gates: &'static str) -> Self {
        self.feature_gates = gates;
        self
    }

    /// Makes etcd wait for the disk, for suites that measure. By default it does not: what is in
    /// it dies with the cluster anyway.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Starts the cluster and waits until it is healthy and all nodes are ready. Replaces a
    /// cluster of the same name that was left behind.
    pub async fn start(self) -> Result<Cluster> {
        ensure!(
            self.nodes <= MOST_NODES,
            "a cluster has at most {MOST_NODES} nodes"
        );
        let name = self.name.clone();
        let (state, tools) = spawn_blocking(move || -> Result<_> {
            let tools = Tools::locate()?;
            Ok((Arc::new(State::create(&name)?), tools))
        })
        .await??;
        network::create_bridge(state.addresses())?;
        let plane = ControlPlane::prepare(&state, &tools, self.feature_gates)?;
        // Nodes' containerds start and load the pause image while the API server is starting.
        let nodes = spawn_blocking({
            let (state, tools, count) = (Arc::clone(&state), tools.clone(), self.nodes);
            move || node::prepare_all(&state, &tools, count)
        });
        plane.start_api_server(self.durable)?;
        let kubeconfig = plane.kubeconfig();
        let client = client(&kubeconfig, None).await?;
        plane.wait_until_ready(&client).await?;
        if self.controllers {
            plane.start_controllers(self.client_limits)?;
        }
        let mut nodes = nodes.await??;
        for node in &mut nodes {
            node.start_kubelet(plane.authority(), self.client_limits)?;
        }
        let cluster = Cluster {
            state,
            tools,
            client,
            kubeconfig,
            plane,
            nodes,
        };
        cluster.wait_until_ready(self.controllers).await?;
        Ok(cluster)
    }
}

/// A running cluster. Dropping it takes it down, also when a test panics.
pub struct Cluster {
    state: Arc<State>,
    tools: Tools,
    client: Client,
    kubeconfig: PathBuf,
    plane: ControlPlane,
    nodes: Vec<Node>,
}

impl Cluster {
    /// A cluster to be called `name`, in small letters, digits and dashes.
    pub fn builder(name: &str) -> ClusterBuilder {
        ClusterBuilder {
            name: name.to_owned(),
            nodes: 1,
            controllers: true,
            durable: false,
            client_limits: None,
            feature_gates: "",
        }
    }

    /// Takes away a cluster of this name and everything it left, from any process; nothing there
    /// is fine. An error if the process that started it still runs.
    pub fn take_down(name: &str) -> Result<()> {
        State::take_down(name)
    }

    /// Takes the cluster away, with an error for whatever could not be removed.
    pub async fn stop(self) -> Result<()> {
        let state = Arc::clone(&self.state);
        spawn_blocking(move || state.stop()).await?
    }

    /// Lets the cluster run on after this process, until [`Cluster::take_down`].
    pub fn leave_running(self) {
        self.state.leave();
    }

    /// What of it is on the machine; other things may be put beside it under the same name.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The pinned programs.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig that may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client that may do what the bearer of `token` may.
    pub async fn client_for_token(&self, token: &str) -> Result<Client> {
        client(&self.kubeconfig, Some(token)).await
    }

    /// A token of a ServiceAccount, for an hour. One bound to a pod carries the pod's node, as the
    /// tokens in pods do.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
        pod: Option<&Pod>,
    ) -> Result<String> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client(), namespace);
        let bound = pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        let spec = TokenRequestSpec {
            bound_object_ref: bound,
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let made = accounts
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("a token for {namespace}/{service_account}"))?;
        Ok(made
            .status
            .context("a token request is answered with its status")?
            .token)
    }

    /// The text of a kubeconfig that may do what the bearer of `token` may.
    pub fn kubeconfig_for_token(&self, token: &str) -> Result<String> {
        let mut kubeconfig: Value =
            serde_json::from_str(&std::fs::read_to_string(&self.kubeconfig)?)?;
        kubeconfig["users"][0]["user"] = json!({"token": token});
        Ok(kubeconfig.to_string())
    }

    /// Runs kubectl with these arguments and returns what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "").await
    }

    /// [`Cluster::kubectl`] with `input` on standard input, for `apply -f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut kubectl = self.state.command(&self.tools.built("kubectl"));
        kubectl.env("KUBECONFIG", &self.kubeconfig).args(arguments);
        let input = input.to_owned();
        spawn_blocking(move || command::run_with_input(&mut kubectl, input.as_bytes())).await?
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Node `index`, counted from 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The node of this name.
    pub fn node_named(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("no node is called {name}"))
    }

    /// Kills the API server; connecting to it is refused from now on.
    pub fn pause_api_server(&self) -> Result<()> {
        self.plane.pause_api_server()
    }

    /// Starts the API server again, and waits until it is ready.
    pub async fn resume_api_server(&self) -> Result<()> {
        self.plane.resume_api_server()?;
        self.plane.wait_until_ready(&self.client).await
    }

    /// Every request that the API server has answered.
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.plane.audit_log())
    }

    /// Puts an image on every node, under its own name.
    pub async fn load(&self, image: Image) -> Result<()> {
        let image = Arc::new(image);
        let mut loading = JoinSet::new();
        for node in &self.nodes {
            let (node, image) = (node.clone(), Arc::clone(&image));
            loading.spawn_blocking(move || node.load(&image));
        }
        while let Some(loaded) = loading.join_next().await {
            loaded??;
        }
        Ok(())
    }

    /// The processes of a pod's container on the machine, the first one first.
    pub fn container_processes(&self, pod: &Pod, container: &str) -> Result<Vec<u32>> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = self.node_named(node.context("the pod is on no node yet")?)?;
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        let status = statuses
            .into_iter()
            .flatten()
            .find(|status| status.name == container);
        let id = status.and_then(|status| status.container_id.as_deref());
        let id = id.with_context(|| format!("container {container} does not run"))?;
        node.container_processes(id.trim_start_matches("containerd://"))
    }

    /// What a person would look at after a failure: pods, events, and the ends of all logs.
    pub async fn describe_failure(&self) -> String {
        failure::describe(self).await
    }

    async fn wait_until_ready(&self, controllers: bool) -> Result<()> {
        let nodes = Api::<NodeObject>::all(self.client());
        for node in &self.nodes {
            eventually(&format!("{} is ready", node.name()), PATIENCE, async || {
                self.plane.check()?;
                node.check()?;
                let object = nodes.get(node.name()).await?;
                let conditions = object.status.and_then(|status| status.conditions);
                let ready = conditions
                    .into_iter()
                    .flatten()
                    .find(|found| found.type_ == "Ready");
                let ready = ready.context("its kubelet has not told yet")?;
                ensure!(
                    ready.status == "True",
                    "{}",
                    ready.message.unwrap_or_default()
                );
                let taints = object.spec.and_then(|spec| spec.taints).unwrap_or_default();
                ensure!(taints.is_empty(), "tainted: {taints:?}");
                Ok(())
            })
            .await?;
        }
        if controllers {
            // Pods are refused until the controller manager has made it.
            let accounts = Api::<ServiceAccount>::default_namespaced(self.client());
            eventually("the default ServiceAccount is made", PATIENCE, async || {
                self.plane.check()?;
                Ok(accounts.get("default").await?)
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not left to the last owner of the state: a server beside the cluster holds it too.
        if let Err(error) = self.state.stop() {
            tracing::error!(
                error = format!("{error:#}"),
                "the cluster is not taken down"
            );
        }
    }
}

/// How long a component may take to become healthy: ten times what it needs on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn client(kubeconfig: &Path, token: Option<&str>) -> Result<Client> {
    // Both kube and the S3 client bring rustls; the first to start decides for the process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.proxy_url = None; // one from the environment knows nothing of the cluster's addresses
    if let Some(token) = token {
        config.auth_info = AuthInfo {
            token: Some(token.to_owned().into()),
            ..AuthInfo::default()
        };
    }
    Ok(Client::try_from(config)?)
}
