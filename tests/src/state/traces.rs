//! What of a state is on the machine: for tests that show that nothing is left.

use anyhow::Result;

use super::{containers, index, root, takedown};
use crate::addresses::Addresses;

/// Everything of the state `name` that is on the machine now, one line each, such as
/// `process 4711` or `loop device /dev/loop3`; nothing if it is not up. `addresses` are those it
/// had, for a state that is gone and has no folder to tell them any more.
pub fn traces(name: &str, addresses: Option<Addresses>) -> Result<Vec<String>> {
    let folder = root().join(name);
    let mut found = Vec::new();
    let mut add = |kind: &str, names: Vec<String>| {
        found.extend(names.into_iter().map(|name| format!("{kind} {name}")));
    };
    let processes = takedown::processes(&folder)?;
    add(
        "process",
        processes.iter().map(ToString::to_string).collect(),
    );
    add("loop device", takedown::loops(name, &folder)?);
    add("mount", takedown::mounts(&folder)?);
    if let Some(addresses) = addresses.or_else(|| index(name).map(Addresses::new)) {
        add("link", takedown::links(addresses)?);
    }
    let cgroups = containers::cgroups(&folder)?;
    add(
        "cgroup",
        cgroups
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    );
    if folder.exists() {
        add("folder", vec![folder.display().to_string()]);
    }
    Ok(found)
}
