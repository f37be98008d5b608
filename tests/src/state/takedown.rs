//! Removing everything of a state. Nothing here trusts what the process that made it wrote down,
//! except its folder and its index.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{MARKER, containers, index, loops, root, states};
use crate::addresses::{Addresses, MOST_NODES};
use crate::command::run_program;
use crate::process;

/// How long what was killed may take to go: a pool with unwritten data is unmounted in that time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends and removes everything of the state. The caller holds its lock.
pub(super) fn take_down(name: &str) -> Result<()> {
    let folder = root().join(name);
    end_processes(name, &folder)?;
    detach(name, || loops(name, &folder))?;
    unmount(&folder)?;
    if let Some(index) = index(name) {
        remove_links(Addresses::new(index))?;
    }
    remove_cgroups(name, &folder)?;
    remove_folder(&folder)
}

/// With the last process of a node go its namespaces, and with those its mounts, its end of the
/// cable and its routes.
fn end_processes(name: &str, folder: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // A program that is being started has no environment for a moment: none must be found twice.
    let mut before_empty = false;
    loop {
        let processes = processes(folder)?;
        if processes.is_empty() && before_empty {
            return Ok(());
        }
        before_empty = processes.is_empty();
        ensure!(
            Instant::now() < deadline,
            "processes {processes:?} of {name} survive SIGKILL"
        );
        for pid in processes {
            process::kill(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes of a state: what was started with the marker, and what runs in its containers.
pub(super) fn processes(folder: &Path) -> Result<Vec<u32>> {
    let mut pids = process::with_environment(MARKER, folder)?;
    for cgroup in containers::cgroups(folder)? {
        let members = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        pids.extend(members.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|pid| *pid != std::process::id());
    Ok(pids)
}

/// Detaches the loop devices of the node whose folder this is, whoever attached them.
pub(super) fn detach_loops_of(node: &Path) -> Result<()> {
    let name = node.display().to_string();
    detach(&name, || paths(&[node.to_owned()], false))
}

fn detach(name: &str, attached: impl Fn() -> Result<Vec<String>>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = attached()?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "loop devices of {name} cannot be detached: {left:?}"
        );
        for path in left {
            // Of a device in use (a mount that is still going) the kernel notes the wish.
            let _ = run_program("losetup", &["--detach", &path]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The loop devices of a state.
pub(super) fn loops(name: &str, folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let nodes: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths(&nodes, states()?.iter().all(|other| other == name))
}

fn paths(nodes: &[PathBuf], alone: bool) -> Result<Vec<String>> {
    let found = loops::of(nodes, alone)?.into_iter();
    Ok(found.map(|device| device.path).collect())
}

/// Nothing of a node is mounted on the machine itself; a test may have done so.
fn unmount(folder: &Path) -> Result<()> {
    for target in mounts(folder)?.iter().rev() {
        run_program("umount", &["--lazy", target])?;
    }
    Ok(())
}

/// The mount points on the machine at or below `folder`, outer ones first.
pub(super) fn mounts(folder: &Path) -> Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("mountinfo")?;
    let target = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    Ok(table
        .lines()
        .filter_map(target)
        .filter(|path| Path::new(path).starts_with(folder))
        .collect())
}

fn remove_links(addresses: Addresses) -> Result<()> {
    for link in links(addresses)? {
        // A cable goes with the node's network namespace, which the kernel removes in its own time.
        let removed = run_program("ip", &["link", "delete", &link]);
        if links(addresses)?.contains(&link) {
            removed?;
        }
    }
    Ok(())
}

/// The network interfaces of a state that are there. Addresses and routes go with them.
pub(super) fn links(addresses: Addresses) -> Result<Vec<String>> {
    let listed = run_program("ip", &["-brief", "link"])?;
    let there = |name: &String| {
        let name_of = |line: &str| line.split([' ', '@']).next().map(str::to_owned);
        listed
            .lines()
            .any(|line| name_of(line).as_ref() == Some(name))
    };
    let cables = (1..=MOST_NODES).map(|node| addresses.cable(node));
    Ok(cables.chain([addresses.bridge()]).filter(there).collect())
}

fn remove_cgroups(name: &str, folder: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = containers::cgroups(folder)?;
        if left.is_empty() {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "cgroups of {name} cannot be removed: {left:?}"
        );
        for cgroup in left.iter().rev() {
            let _ = std::fs::remove_dir(cgroup); // busy until its last process is gone for good
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    containers::remove_parents()
}

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}
