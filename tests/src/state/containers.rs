//! Which containers and cgroups are a state's. All nodes' containers are side by side in one cgroup
//! on the machine, which containerd names after its own namespace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The cgroup of all containers that kubelets of any cluster start.
const PARENT: &str = "k8s.io";

/// The containers of the node whose folder this is, those that hold pods included. containerd
/// makes a folder for each before it runs, so none is missed.
pub(crate) fn container_ids(node: &Path) -> BTreeSet<String> {
    let plugin = node.join("lib/containerd/io.containerd.grpc.v1.cri");
    let folders = ["containers", "sandboxes"].map(|kind| std::fs::read_dir(plugin.join(kind)));
    let entries = folders.into_iter().flatten().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The cgroups of a state's containers in every hierarchy, outer ones first.
pub(super) fn cgroups(state: &Path) -> Result<Vec<PathBuf>> {
    let nodes = std::fs::read_dir(state).into_iter().flatten().flatten();
    let ids: BTreeSet<String> = nodes.flat_map(|node| container_ids(&node.path())).collect();
    let mut found = Vec::new();
    for parent in parents()? {
        for id in &ids {
            let cgroup = parent.join(id);
            if cgroup.is_dir() {
                descend(&cgroup, &mut found);
            }
        }
    }
    Ok(found)
}

/// Removes the parent of all containers' cgroups, if no other cluster has one in it.
pub(super) fn remove_parents() -> Result<()> {
    for parent in parents()? {
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

/// In each mounted hierarchy: one on a machine with cgroup v2, a dozen with v1.
fn parents() -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("mountinfo")?;
    Ok(table
        .lines()
        .filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|hierarchy| Path::new(hierarchy).join(PARENT))
        .collect())
}

fn descend(cgroup: &Path, found: &mut Vec<PathBuf>) {
    found.push(cgroup.to_owned());
    let Ok(entries) = std::fs::read_dir(cgroup) else {
        return; // gone meanwhile
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(&entry.path(), found);
        }
    }
}
