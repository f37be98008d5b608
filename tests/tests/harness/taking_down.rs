//! What is left of a cluster that was stopped, or killed and then taken down: nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tests::addresses::Addresses;
use tests::cluster::Cluster;
use tests::command::run_program;
use tests::image::Image;
use tests::process;
use tests::state::{self, MARKER};
use tests::wait::eventually;

use crate::running::{phase, pod};
use crate::{SHELL, SOON, VICTIM};

/// Nodes none: the second cluster is only there to share the machine.
pub(crate) async fn stands_beside() -> Result<()> {
    let before = machine()?;
    let name = "harness-beside";
    let cluster = Cluster::builder(name).api_only().start().await?;
    let addresses = cluster.state().addresses();
    let maps = Api::<ConfigMap>::default_namespaced(cluster.client());
    let found = maps.list(&ListParams::default()).await?;
    ensure!(
        !found
            .iter()
            .any(|map| map.metadata.name.as_deref() == Some("counted"))
    );
    let again = Cluster::builder(name)
        .api_only()
        .start()
        .await
        .err()
        .context("it is taken")?;
    ensure!(
        again.to_string().contains("is in use by process"),
        "{again:#}"
    );
    cluster.stop().await?;
    nothing_left(name, addresses, &before)
}

pub(crate) async fn killed_and_taken_down() -> Result<()> {
    let name = "harness-victim";
    Cluster::take_down(name)?;
    let before = machine()?;
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VICTIM, name);
    let victim = process::Process::spawn("victim", &mut command, log.path())?;
    let folder = state::root().join(name);
    let ready = folder.join("victim-ready");
    let up = eventually("the victim's cluster is up", SOON, async || {
        victim.check()?;
        ensure!(ready.exists(), "not yet");
        Ok(())
    })
    .await;
    let refused = Cluster::take_down(name);
    victim.kill()?;
    let left = up.and_then(|()| kill_all(name, &folder));
    Cluster::take_down(name)?;
    let (addresses, left) = left?;
    for kind in ["link", "loop device", "folder", "cgroup"] {
        ensure!(
            left.iter().any(|trace| trace.starts_with(kind)),
            "no {kind} was left: {left:?}"
        );
    }
    ensure!(refused.is_err(), "taken down under its owner's feet");
    nothing_left(name, addresses, &before)
}

/// Kills every process of a state, and tells what is left of it then.
fn kill_all(name: &str, folder: &Path) -> Result<(Addresses, Vec<String>)> {
    let index = std::fs::read_to_string(folder.join("index"))?.parse()?;
    let addresses = Addresses::new(index);
    for pid in process::with_environment(MARKER, folder)? {
        process::kill(pid);
    }
    Ok((addresses, state::traces(name, Some(addresses))?))
}

/// Starts a cluster with a pod and a loop device as a driver would attach it, and waits for the
/// end.
pub(crate) fn victim(name: &str) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let cluster = Cluster::builder(name).nodes(1).start().await?;
        cluster.load(Image::busybox(SHELL)?).await?;
        let pods = Api::<Pod>::default_namespaced(cluster.client());
        let made = pod("sleeper", "node-1", "exec sleep 1000", &json!({}))?;
        pods.create(&PostParams::default(), &made).await?;
        phase(&pods, "sleeper", "Running").await?;
        let script = "cd /var/lib/fastcopy && truncate -s 512M victim-pool && mkfs.xfs -q victim-pool && \
                      mkdir mounted && mount -o loop victim-pool mounted || exit 1; \
                      truncate -s 1M mounted/victim-volume && losetup -f mounted/victim-volume";
        cluster.node(0).run(&["sh", "-c", script])?;
        std::fs::write(cluster.state().folder().join("victim-ready"), "")?;
        std::future::pending::<Result<ExitCode>>().await
    })
}

/// What `mount`, `losetup`, `ip` and the list of processes show of anything that the harness ever
/// makes; independent of the code that takes it away. Other clusters' things are left out: they
/// come and go in their own time.
pub(crate) fn machine() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (program, arguments) in [
        ("mount", &[][..]),
        (
            "losetup",
            &["--list", "--noheadings", "--output", "NAME,BACK-FILE"][..],
        ),
        ("ip", &["-brief", "address"][..]),
        ("ip", &["route"][..]),
        ("ip", &["netns"][..]),
        ("ps", &["-eo", "pid,args", "--no-headers"][..]),
    ] {
        for line in run_program(program, arguments)?.lines() {
            found.insert(format!("{program}: {}", line.trim()));
        }
    }
    Ok(found)
}

/// Nothing by the harness's own account, and nothing new that names the state or its addresses.
pub(crate) fn nothing_left(
    name: &str,
    addresses: Addresses,
    before: &BTreeSet<String>,
) -> Result<()> {
    let traces = state::traces(name, Some(addresses))?;
    ensure!(
        traces.is_empty(),
        "left by the harness's own account: {traces:?}"
    );
    let folder = state::root().join(name).display().to_string();
    let bridge = addresses.bridge();
    let marks = [
        format!("{folder}/"),
        format!(" {bridge} "),
        format!("{bridge}n"),
        addresses.machine().to_string(),
        addresses.api_server().to_string(),
        "victim-pool".to_owned(),
        "victim-volume".to_owned(),
    ];
    let ours = |line: &&String| marks.iter().any(|mark| line.contains(mark.as_str()));
    let new: Vec<String> = machine()?
        .difference(before)
        .filter(ours)
        .cloned()
        .collect();
    ensure!(new.is_empty(), "left on the machine: {new:#?}");
    ensure!(!Path::new(&folder).exists(), "{folder} is left");
    Ok(())
}
