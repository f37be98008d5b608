//! A node: namespaces of its own for network, mounts and processes, and in them containerd and
//! kubelet.
//!
//! Killing the node's first process is as pulling its plug: the kernel ends everything in it.
//! Loop devices are the one thing that nodes share; see [`crate::state`].

mod configuration;
mod mounts;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

pub use self::mounts::Mount;
use super::control_plane::log;
use super::{ClientLimits, network};
use crate::command;
use crate::image::Image;
use crate::pki::Authority;
use crate::process::{self, Process};
use crate::state::{State, container_ids};
use crate::tools::Tools;

/// What every pod's sandbox runs; kubelet never asks for another.
const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// A node of a cluster. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    tools: Tools,
    number: u8,
    name: String,
    folder: PathBuf,
    anchor: u32,
    containerd: Process,
    kubelet: Mutex<Option<Process>>,
    unplugged: AtomicBool,
}

/// Makes `count` nodes with containerd running and the pause image loaded, all at once.
pub(super) fn prepare_all(state: &Arc<State>, tools: &Tools, count: u8) -> Result<Vec<Node>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let pause = Image::pause(PAUSE_IMAGE, tools)?;
    std::thread::scope(|scope| {
        let made: Vec<_> = (1..=count)
            .map(|number| {
                let pause = &pause;
                scope.spawn(move || {
                    let node = Node::prepare(state, tools, number, count)?;
                    node.load(pause)?;
                    Ok(node)
                })
            })
            .collect();
        made.into_iter()
            .map(|node| {
                node.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

impl Node {
    fn prepare(state: &Arc<State>, tools: &Tools, number: u8, count: u8) -> Result<Self> {
        let name = format!("node-{number}");
        let folder = state.subfolder(&name)?;
        let folders = configuration::Folders::create(&folder)?;
        configuration::write_node(&folders, state.addresses(), number, tools)?;
        let anchor = start_anchor(state, tools, &name, &folder)?;
        network::connect(state.addresses(), number, count, anchor)?;
        let program = tools.containerd_folder().join("containerd");
        let mut containerd = enter(state, anchor, &program);
        containerd
            .args(["--config", "/var/lib/containerd/config.toml"])
            // It looks for its shim here.
            .env(
                "PATH",
                format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder_of(&program)),
            );
        let containerd = Process::spawn(
            "containerd",
            &mut containerd,
            &log(state, &format!("{name}-containerd"))?,
        )?;
        let inner = Inner {
            state: Arc::clone(state),
            tools: tools.clone(),
            number,
            name,
            folder,
            anchor,
            containerd,
            kubelet: Mutex::default(),
            unplugged: AtomicBool::new(false),
        };
        let node = Self {
            inner: Arc::new(inner),
        };
        node.wait_for_containerd()?;
        Ok(node)
    }

    /// Its name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its address, which the machine and other nodes reach.
    pub fn address(&self) -> Ipv4Addr {
        self.inner.state.addresses().node(self.inner.number)
    }

    /// The machine's number of the process that holds the node's namespaces.
    pub fn anchor(&self) -> u32 {
        self.inner.anchor
    }

    /// The node's file system with everything mounted there, as a path on the machine.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.inner.anchor))
    }

    /// `/var/lib/kubelet` of the node, as a path on the machine.
    pub fn kubelet_root(&self) -> PathBuf {
        self.root().join("var/lib/kubelet")
    }

    /// `/var/lib/fastcopy` of the node, as a path on the machine.
    pub fn pool(&self) -> PathBuf {
        self.root().join("var/lib/fastcopy")
    }

    /// What is mounted in the node.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        mounts::of(self.inner.anchor)
    }

    /// A command that will run in the node, as root.
    pub fn command(&self, program: &Path) -> Command {
        enter(&self.inner.state, self.inner.anchor, program)
    }

    /// Runs a command in the node and returns what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("a command has a program")?;
        command::run(self.command(Path::new(program)).args(arguments))
    }

    /// Puts an image on the node.
    pub fn load(&self, image: &Image) -> Result<()> {
        let archive = File::open(image.archive())?;
        let mut ctr = self.ctr();
        ctr.args(["images", "import", "-"]);
        command::run_reading(&mut ctr, archive)
            .with_context(|| format!("{} on {}", image.name(), self.name()))?;
        Ok(())
    }

    /// The processes of a container on the machine, the first one first.
    pub fn container_processes(&self, id: &str) -> Result<Vec<u32>> {
        let mut found = process::in_cgroup(|cgroup| cgroup.contains(id))?;
        found.sort_unstable();
        ensure!(
            !found.is_empty(),
            "container {id} has no process on {}",
            self.name()
        );
        Ok(found)
    }

    /// Kills every container on the node at once, those that only hold a pod included, and returns
    /// how many processes that were.
    pub fn kill_containers(&self) -> Result<usize> {
        let ours = container_ids(&self.inner.folder);
        let found = process::in_cgroup(|cgroup| ours.iter().any(|id| cgroup.contains(id)))?;
        for pid in &found {
            process::kill(*pid);
        }
        Ok(found.len())
    }

    /// Kills kubelet and starts it again; containers run on meanwhile.
    pub fn restart_kubelet(&self) -> Result<()> {
        let mut running = self.kubelet();
        if let Some(kubelet) = running.take() {
            kubelet.kill()?;
        }
        *running = Some(self.spawn_kubelet()?);
        Ok(())
    }

    /// Pulls its plug: all of it ends at once, and what it had mounted and attached is gone. It does not
    /// come back.
    pub fn pull_plug(&self) -> Result<()> {
        self.inner.unplugged.store(true, Ordering::SeqCst);
        process::kill(self.inner.anchor);
        self.inner.state.detach_loops_of(&self.inner.folder)
    }

    /// Whether its plug was not pulled.
    pub fn is_up(&self) -> bool {
        !self.inner.unplugged.load(Ordering::SeqCst)
    }

    pub(super) fn start_kubelet(
        &self,
        authority: &Authority,
        limits: Option<ClientLimits>,
    ) -> Result<()> {
        let folders = configuration::Folders::create(&self.inner.folder)?;
        let addresses = self.inner.state.addresses();
        let number = self.inner.number;
        configuration::write_kubelet(&folders, authority, addresses, number, limits)?;
        *self.kubelet() = Some(self.spawn_kubelet()?);
        Ok(())
    }

    /// An error with the end of its log if containerd or kubelet has ended.
    pub(super) fn check(&self) -> Result<()> {
        self.inner.containerd.check()?;
        self.kubelet().as_ref().map_or(Ok(()), Process::check)
    }

    fn kubelet(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.inner
            .kubelet
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn_kubelet(&self) -> Result<Process> {
        let mut kubelet = self.command(&self.inner.tools.built("kubelet"));
        kubelet.args([
            "--config=/var/lib/kubelet/config.json",
            "--kubeconfig=/var/lib/kubelet/kubeconfig",
            "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki",
            &format!("--hostname-override={}", self.name()),
            &format!("--node-ip={}", self.address()),
        ]);
        let log = log(&self.inner.state, &format!("{}-kubelet", self.name()))?;
        Process::spawn("kubelet", &mut kubelet, &log)
    }

    fn ctr(&self) -> Command {
        let mut ctr = self.command(&self.inner.tools.containerd_folder().join("ctr"));
        ctr.args(["--namespace", "k8s.io"]);
        ctr
    }

    fn wait_for_containerd(&self) -> Result<()> {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            self.inner.containerd.check()?;
            match command::run(self.ctr().arg("version")) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// Starts the process that holds the node's namespaces, and returns its number on the machine.
fn start_anchor(state: &State, tools: &Tools, name: &str, folder: &Path) -> Result<u32> {
    let script = folder.join("enter.sh");
    std::fs::write(&script, include_str!("node/enter.sh"))?;
    let mut unshare = state.command(Path::new("unshare"));
    unshare
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ])
        .arg("sh")
        .args([&script, folder, &tools.pause()]);
    let unshare = Process::spawn(
        "unshare",
        &mut unshare,
        &log(state, &format!("{name}-enter"))?,
    )?;
    let deadline = Instant::now() + super::PATIENCE;
    loop {
        unshare.check()?;
        // The script writes its number when everything is mounted.
        let anchor = std::fs::read_to_string(folder.join("anchor.part")).unwrap_or_default();
        if let Ok(anchor) = anchor.trim().parse() {
            return Ok(anchor);
        }
        ensure!(
            Instant::now() < deadline,
            "{name} does not come up: {}",
            process::tail(unshare.log(), 5)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command that will run in the namespaces that `anchor` holds.
fn enter(state: &State, anchor: u32, program: &Path) -> Command {
    let mut command = state.command(Path::new("nsenter"));
    command
        .args([
            "--target",
            &anchor.to_string(),
            "--net",
            "--mount",
            "--pid",
            "--",
        ])
        .arg(program)
        // The machine's /tmp is shared; what is put there would stay.
        .env("TMPDIR", "/run")
        .env("HOME", "/var/lib");
    command
}

fn folder_of(program: &Path) -> String {
    program
        .parent()
        .map(|folder| folder.display().to_string())
        .unwrap_or_default()
}
