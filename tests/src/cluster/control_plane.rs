//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, on the machine itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use kube::Client;
use serde_json::json;
use tokio::net::TcpStream;

use super::{ClientLimits, PATIENCE};
use crate::pki::Authority;
use crate::process::Process;
use crate::state::State;
use crate::tools::Tools;
use crate::wait::eventually;

const ETCD_PORT: u16 = 2379;
const API_SERVER: &str = "kube-apiserver";
/// Counts requests without their bodies, and once each.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [{"level": "Metadata"}]
}"#;

/// The control plane of a cluster. Its folder is `control-plane` in the state's.
pub(super) struct ControlPlane {
    state: Arc<State>,
    tools: Tools,
    authority: Authority,
    folder: PathBuf,
    feature_gates: &'static str,
    processes: Mutex<Vec<Process>>,
}

impl ControlPlane {
    /// Writes keys and configurations; starts nothing. `feature_gates` are the API server's.
    pub(super) fn prepare(
        state: &Arc<State>,
        tools: &Tools,
        feature_gates: &'static str,
    ) -> Result<Self> {
        let folder = state.subfolder("control-plane")?;
        let authority = Authority::new()?;
        let plane = Self {
            state: Arc::clone(state),
            tools: tools.clone(),
            authority,
            folder,
            feature_gates,
            processes: Mutex::default(),
        };
        plane.write("ca.crt", &plane.authority.certificate)?;
        plane.write("audit-policy.json", AUDIT_POLICY)?;
        let server = [IpAddr::V4(state.addresses().api_server())];
        plane
            .authority
            .server("kube-apiserver", &server)?
            .write(&plane.folder, "api-server")?;
        let masters = Some("system:masters");
        let kubelet_client = plane
            .authority
            .client("kube-apiserver-kubelet-client", masters)?;
        kubelet_client.write(&plane.folder, "kubelet-client")?;
        // The key pair of tokens: a certificate is one way to write down a public key.
        plane
            .authority
            .client("service-accounts", None)?
            .write(&plane.folder, "tokens")?;
        for (file, user, group) in [
            ("controller-manager", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
            ("../kubeconfig", "admin", masters),
        ] {
            plane.write(
                file,
                &plane.authority.kubeconfig(&plane.url(), user, group)?,
            )?;
        }
        Ok(plane)
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.state.folder().join("kubeconfig")
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Starts etcd and kube-apiserver. The latter waits for the former by itself.
    pub(super) fn start_api_server(&self, durable: bool) -> Result<()> {
        let private = self.state.addresses().private();
        let etcd = self.etcd();
        let peer = format!("http://{private}:{}", ETCD_PORT + 1);
        let configuration = json!({
            "name": "tests",
            "data-dir": self.folder.join("etcd"),
            "listen-client-urls": etcd,
            "advertise-client-urls": etcd,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": format!("tests={peer}"),
            "unsafe-no-fsync": !durable,
            "log-level": "warn",
        });
        self.write("etcd.json", &configuration.to_string())?;
        self.spawn("etcd", &[("config-file", &self.path("etcd.json"))])?;

        self.resume_api_server()
    }

    /// Kills kube-apiserver; connecting to it is refused from now on.
    pub(super) fn pause_api_server(&self) -> Result<()> {
        let mut processes = self.processes();
        let running = processes
            .iter()
            .position(|process| process.name() == API_SERVER)
            .context("the API server is paused already")?;
        processes.swap_remove(running).kill()
    }

    /// Starts kube-apiserver, with what is in etcd.
    pub(super) fn resume_api_server(&self) -> Result<()> {
        let etcd = self.etcd();
        let addresses = self.state.addresses();
        let (files, tokens) = (|name| self.path(name), self.path("tokens.key"));
        self.spawn(
            API_SERVER,
            &[
                ("etcd-servers", &etcd),
                ("bind-address", &addresses.api_server().to_string()),
                ("secure-port", "443"),
                ("service-cluster-ip-range", &addresses.services()),
                // The address of the service is the server's own; nothing needs to lead there.
                ("endpoint-reconciler-type", "none"),
                ("authorization-mode", "Node,RBAC"),
                ("enable-admission-plugins", "NodeRestriction"),
                ("allow-privileged", "true"),
                ("client-ca-file", &files("ca.crt")),
                ("tls-cert-file", &files("api-server.crt")),
                ("tls-private-key-file", &files("api-server.key")),
                ("kubelet-client-certificate", &files("kubelet-client.crt")),
                ("kubelet-client-key", &files("kubelet-client.key")),
                ("kubelet-preferred-address-types", "InternalIP"),
                ("service-account-issuer", "https://kubernetes.default.svc"),
                ("service-account-key-file", &files("tokens.crt")),
                ("service-account-signing-key-file", &tokens),
                ("audit-policy-file", &files("audit-policy.json")),
                ("audit-log-path", &files("audit.log")),
                ("audit-log-maxsize", "100000"), // MiB: a log that rotates cannot be counted in
                ("cert-dir", &files("generated")),
                ("profiling", "false"),
                ("feature-gates", self.feature_gates),
            ],
        )
    }

    /// Starts kube-controller-manager and kube-scheduler.
    pub(super) fn start_controllers(&self, client_limits: Option<ClientLimits>) -> Result<()> {
        let private = self.state.addresses().private().to_string();
        let (managers, schedulers) = (self.path("controller-manager"), self.path("scheduler"));
        let (authority, tokens) = (self.path("ca.crt"), self.path("tokens.key"));
        let generated = self.path("generated");
        let limits =
            client_limits.map(|it| [it.per_second, it.burst].map(|number| number.to_string()));
        let common = |kubeconfig| {
            let mut options = vec![
                ("kubeconfig", kubeconfig),
                ("leader-elect", "false"),
                ("bind-address", &*private),
                ("cert-dir", &*generated),
                ("profiling", "false"),
            ];
            if let Some([per_second, burst]) = &limits {
                options.extend([
                    ("kube-api-qps", &**per_second),
                    ("kube-api-burst", &**burst),
                ]);
            }
            options
        };
        let mut options = common(&*managers);
        options.extend([
            ("root-ca-file", &*authority),
            ("service-account-private-key-file", &*tokens),
            ("use-service-account-credentials", "true"),
        ]);
        self.spawn("kube-controller-manager", &options)?;
        self.spawn("kube-scheduler", &common(&schedulers))
    }

    /// Waits until the API server says that it is ready: default roles and namespaces are made.
    pub(super) async fn wait_until_ready(&self, client: &Client) -> Result<()> {
        eventually("the API server is ready", PATIENCE, async || {
            self.check()?;
            // The client writes a line to the log for each attempt that is refused.
            TcpStream::connect((self.state.addresses().api_server(), 443)).await?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await.context("/readyz")?;
            Ok(())
        })
        .await
    }

    /// An error with the end of its log if one of the programs has ended.
    pub(super) fn check(&self) -> Result<()> {
        self.processes().iter().try_for_each(Process::check)
    }

    fn etcd(&self) -> String {
        format!("http://{}:{ETCD_PORT}", self.state.addresses().private())
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self) -> String {
        format!("https://{}:443", self.state.addresses().api_server())
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn spawn(&self, name: &str, options: &[(&str, &str)]) -> Result<()> {
        let mut command = self.state.command(&self.tools.built(name));
        for (option, value) in options {
            command.arg(format!("--{option}={value}"));
        }
        let process = Process::spawn(name, &mut command, &log(&self.state, name)?)?;
        self.processes().push(process);
        Ok(())
    }
}

/// The log file of a program.
pub(super) fn log(state: &State, name: &str) -> Result<PathBuf> {
    let folder: &Path = &state.subfolder("logs")?;
    Ok(folder.join(format!("{name}.log")))
}
