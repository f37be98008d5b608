//! Which addresses and names a cluster takes, from its index alone: clusters stand beside each
//! other because no two have the same index.

use std::net::Ipv4Addr;

/// How many clusters can stand beside each other.
pub const MOST_CLUSTERS: u8 = 64;
/// How many nodes a cluster can have.
pub const MOST_NODES: u8 = 9;

/// The addresses and names of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    index: u8,
}

impl Addresses {
    /// Those of cluster `index`, which is below [`MOST_CLUSTERS`].
    pub fn new(index: u8) -> Self {
        assert!(index < MOST_CLUSTERS, "cluster index {index}");
        Self { index }
    }

    /// The bridge on the machine that joins the nodes.
    pub fn bridge(self) -> String {
        format!("vp{}", self.index)
    }

    /// The machine's end of the cable to a node; nodes count from 1.
    pub fn cable(self, node: u8) -> String {
        format!("vp{}n{node}", self.index)
    }

    /// The machine's address on the bridge: nodes' gateway, and where pods find an S3 server.
    pub fn machine(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, self.index, 1)
    }

    /// The address of the service `kubernetes`, the first of the service range. The API server
    /// itself listens there, so that pods reach it without kube-proxy.
    pub fn api_server(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, self.index, 1)
    }

    /// The range of service addresses.
    pub fn services(self) -> String {
        format!("10.96.{}.0/24", self.index)
    }

    /// A loopback address for what pods must not reach: etcd asks nobody who they are.
    pub fn private(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 99, self.index, 1)
    }

    /// A node's address; nodes count from 1.
    pub fn node(self, node: u8) -> Ipv4Addr {
        assert!((1..=MOST_NODES).contains(&node), "node {node}");
        Ipv4Addr::new(10, 99, self.index, 10 + node)
    }

    /// The range of a node's pods.
    pub fn pods(self, node: u8) -> String {
        format!("10.{}.{node}.0/24", 128 + self.index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_clusters_share_anything() {
        let mut seen = HashSet::new();
        for addresses in (0..MOST_CLUSTERS).map(Addresses::new) {
            let ours = [
                addresses.bridge(),
                addresses.machine().to_string(),
                addresses.api_server().to_string(),
                addresses.services(),
                addresses.private().to_string(),
            ];
            let nodes = (1..=MOST_NODES).flat_map(|node| {
                [
                    addresses.cable(node),
                    addresses.node(node).to_string(),
                    addresses.pods(node),
                ]
            });
            for name in ours.into_iter().chain(nodes) {
                assert!(seen.insert(name.clone()), "{name} twice");
            }
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let last = Addresses::new(MOST_CLUSTERS - 1);
        assert!(last.cable(MOST_NODES).len() <= 15);
    }
}
