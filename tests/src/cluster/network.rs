//! The bridge that joins the nodes, and a node's cable to it.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::addresses::Addresses;
use crate::command::run;

/// Makes the bridge, with the machine's addresses on it.
pub(super) fn create_bridge(addresses: Addresses) -> Result<()> {
    let bridge = addresses.bridge();
    // With an address of its own: the kernel's choice changes with every cable, and what nodes
    // remember of their gateway would be wrong for seconds.
    let [_, b, c, d] = addresses.machine().octets();
    let mac = format!("02:00:{b:02x}:{c:02x}:{d:02x}:00");
    ip(&format!("link add {bridge} address {mac} type bridge"))?;
    ip(&format!(
        "address add {}/24 dev {bridge}",
        addresses.machine()
    ))?;
    ip(&format!(
        "address add {}/32 dev {bridge}",
        addresses.api_server()
    ))?;
    ip(&format!("link set {bridge} up"))
}

/// Connects `node`, one of `nodes`, whose network namespace is that of process `anchor`.
pub(super) fn connect(addresses: Addresses, node: u8, nodes: u8, anchor: u32) -> Result<()> {
    let (bridge, cable) = (addresses.bridge(), addresses.cable(node));
    ip(&format!(
        "link add {cable} type veth peer name eth0 netns {anchor}"
    ))?;
    ip(&format!("link set {cable} master {bridge} up"))?;
    let inside = |arguments: &str| ip_in(anchor, arguments);
    inside("link set lo up")?;
    inside(&format!("address add {}/24 dev eth0", addresses.node(node)))?;
    inside("link set eth0 up")?;
    inside(&format!("route add default via {}", addresses.machine()))?;
    for other in (1..=nodes).filter(|other| *other != node) {
        inside(&format!(
            "route add {} via {}",
            addresses.pods(other),
            addresses.node(other)
        ))?;
    }
    ip(&format!(
        "route add {} via {}",
        addresses.pods(node),
        addresses.node(node)
    ))
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split(' '))).context("the cluster's network")?;
    Ok(())
}

fn ip_in(anchor: u32, arguments: &str) -> Result<()> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{anchor}/ns/net"))
        .arg("ip")
        .args(arguments.split(' '));
    run(&mut command).context("a node's network")?;
    Ok(())
}
