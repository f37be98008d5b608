//! The files that make containerd and kubelet run side by side with others of their kind, on a
//! machine that need not be a Kubernetes node: cgroup v1 or v2, no systemd, no CAP_SYS_RESOURCE.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::PAUSE_IMAGE;
use crate::addresses::Addresses;
use crate::cluster::ClientLimits;
use crate::pki::Authority;
use crate::tools::Tools;

/// A node's folder on the machine. `lib` and `log` are `/var/lib` and `/var/log` in the node.
pub(super) struct Folders {
    lib: PathBuf,
    sysctl: PathBuf,
}

impl Folders {
    /// Makes those that are not there yet.
    pub(super) fn create(node: &Path) -> Result<Self> {
        let folders = Self {
            lib: node.join("lib"),
            sysctl: node.join("sysctl"),
        };
        for part in [
            "kubelet/pki",
            "kubelet/manifests",
            "fastcopy",
            "containerd",
            "cni/conf",
        ] {
            make(&folders.lib.join(part))?;
        }
        make(&folders.sysctl)?;
        make(&node.join("log"))?;
        Ok(folders)
    }
}

/// What is there before the node starts: settings, containerd, CNI.
pub(super) fn write_node(
    folders: &Folders,
    addresses: Addresses,
    number: u8,
    tools: &Tools,
) -> Result<()> {
    // The values that kubelet insists on.
    for (setting, value) in [
        ("panic", "10"),
        ("panic_on_oops", "1"),
        ("overcommit_memory", "1"),
    ] {
        write(&folders.sysctl.join(setting), value)?;
    }
    write(
        &folders.lib.join("containerd/config.toml"),
        &containerd(tools),
    )?;
    write(
        &folders.lib.join("cni/conf/10-bridge.conflist"),
        &cni(addresses, number),
    )
}

/// What kubelet needs: its identity and its configuration.
pub(super) fn write_kubelet(
    folders: &Folders,
    authority: &Authority,
    addresses: Addresses,
    number: u8,
    limits: Option<ClientLimits>,
) -> Result<()> {
    let kubelet = folders.lib.join("kubelet");
    let user = format!("system:node:node-{number}");
    let server = format!("https://{}:443", addresses.api_server());
    let kubeconfig = authority.kubeconfig(&server, &user, Some("system:nodes"))?;
    write(&kubelet.join("kubeconfig"), &kubeconfig)?;
    write(&kubelet.join("pki/ca.crt"), &authority.certificate)?;
    let address = addresses.node(number);
    authority
        .server(&user, &[IpAddr::V4(address)])?
        .write(&kubelet.join("pki"), "server")?;
    let mut configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/var/lib/kubelet/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/var/lib/kubelet/pki/server.crt",
        "tlsPrivateKeyFile": "/var/lib/kubelet/pki/server.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        "resolvConf": "",
        // Nobody answers there, which is told at once; without an address kubelet warns about
        // every pod, again and again.
        "clusterDNS": [addresses.machine()],
        "clusterDomain": "cluster.local",
        "featureGates": {"KubeletInUserNamespace": true, "KubeletCrashLoopBackOffMax": true},
        // Containers that tests kill come back at once, however often.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        // The disk is the machine's, and so is what fills it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "shutdownGracePeriod": "0s",
    });
    if let Some(ClientLimits { per_second, burst }) = limits {
        for (setting, value) in [
            ("kubeAPIQPS", per_second),
            ("kubeAPIBurst", burst),
            ("eventRecordQPS", per_second),
            ("eventBurst", burst),
        ] {
            configuration[setting] = value.into();
        }
    }
    write(
        &kubelet.join("config.json"),
        &format!("{configuration:#}\n"),
    )
}

fn containerd(tools: &Tools) -> String {
    let (runc, plugins) = (tools.runc(), tools.cni_folder());
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{}"
conf_dir = "/var/lib/cni/conf"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{}"
SystemdCgroup = false
"#,
        plugins.display(),
        runc.display(),
    )
}

fn cni(addresses: Addresses, number: u8) -> String {
    let configuration = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": addresses.pods(number)}]],
                "dataDir": "/var/lib/cni/networks",
            },
        }],
    });
    format!("{configuration:#}\n")
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
