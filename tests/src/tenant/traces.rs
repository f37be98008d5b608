//! What of a volume can be seen on the machine.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::cluster::Node;

/// Where a pool has its volumes and snapshots: in its folder, or in a file system of its own there.
const POOLS: [&str; 2] = ["", "pool"];

/// The agent's work directory, with a folder for each order.
const WORK: &str = "/var/lib/kubelet/plugins/populator.backup.example.com";

/// The image of the volume or snapshot `id`, which lies in `kind` of the node's pool, as a path on
/// the machine.
pub(super) fn image(node: &Node, kind: &str, id: &str) -> Result<PathBuf> {
    POOLS
        .into_iter()
        .map(|pool| node.pool().join(pool).join(kind).join(id).join("image"))
        .find(|image| image.exists())
        .with_context(|| format!("{} has no {id} in {kind} of its pool", node.name()))
}

/// Records of volumes in the node's pool that bear `name`, loop devices on such volumes (which all
/// nodes share), and mounts of the agent.
pub(super) fn of(node: &Node, name: &str) -> Result<Vec<String>> {
    let mut traces = Vec::new();
    for pool in POOLS {
        let Ok(folders) = std::fs::read_dir(node.pool().join(pool).join("volumes")) else {
            continue;
        };
        for folder in folders {
            let folder = folder?.path();
            let record = std::fs::read_to_string(folder.join("volume.json")).unwrap_or_default();
            if record.contains(name) {
                traces.push(format!("volume {}", folder.display()));
            }
        }
    }
    traces.extend(loop_devices(&volume_id(name))?);
    for mount in node.mounts()? {
        let Ok(below) = mount.target.strip_prefix(WORK) else {
            continue;
        };
        let order = below.components().next();
        let record =
            order.map(|order| node.root().join(&WORK[1..]).join(order).join("record.json"));
        let record = record.and_then(|record| std::fs::read_to_string(record).ok());
        // Of other restores that are under way there is a record; a mount without one is nobody's.
        if record.is_none_or(|record| record.contains(name)) {
            traces.push(format!("mount {}", mount.target.display()));
        }
    }
    Ok(traces)
}

/// The part of the driver's id of the volume of this CSI name that does not depend on the node.
fn volume_id(name: &str) -> String {
    let digest = hex::encode(Sha256::digest(name));
    format!("vol-{}", &digest[..32])
}

/// Loop devices with `id` in the path of their backing file, deleted ones too.
pub(super) fn loop_devices(id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for device in std::fs::read_dir("/sys/block")? {
        let device = device?;
        // Only one that is attached has it.
        let Ok(file) = std::fs::read_to_string(device.path().join("loop/backing_file")) else {
            continue;
        };
        if file.contains(id) {
            let device = device.file_name();
            found.push(format!(
                "loop device {} on {}",
                device.display(),
                file.trim_end()
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_drivers() {
        // As in the driver's own test, without the node.
        assert_eq!(volume_id("pvc-1"), "vol-f2868e1aa7cab669517cd9f5ab1b7957");
    }
}
