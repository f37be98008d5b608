//! The flags of `populator agent`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::node::Resumption;
use super::volume::Pod;
use crate::cli::{Serving, quantity};
use crate::store::Allowance;

/// The folder in kubelet's `plugins/` that holds everything this program leaves on a node.
const WORK_FOLDER: &str = "plugins/populator.backup.example.com";

/// The flags of `populator agent`.
#[derive(Args, Debug, Clone)]
pub struct Arguments {
    /// Where health and metrics are served.
    #[command(flatten)]
    pub serving: Serving,

    /// The node that this agent serves
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// The namespace that holds orders and Leases
    #[arg(long, env = "POD_NAMESPACE", default_value = "volume-populator")]
    pub namespace: String,

    /// What the Lease shows as its holder; default: the node's name and the process id
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,

    /// The UID of this pod, for drivers that want to know who uses a volume
    #[arg(long, env = "POD_UID", default_value = "")]
    pub pod_uid: String,

    /// The service account of this pod, for the same
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "")]
    pub service_account: String,

    /// Kubelet's root directory; seen under the same path by kubelet, the drivers and this agent
    #[arg(long, env = "KUBELET_DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,

    /// Where volumes are mounted while they are filled, with the records of them. The drivers must
    /// see it; default: plugins/populator.backup.example.com in kubelet's root directory
    #[arg(long, env = "WORK_DIR")]
    pub work_dir: Option<PathBuf>,

    /// The socket of a CSI driver that has not registered itself with kubelet (may be repeated)
    #[arg(long, value_name = "NAME=SOCKET", value_parser = driver)]
    pub direct_driver: Vec<(String, PathBuf)>,

    /// How many volumes are filled at once, which takes 17 MiB of memory each; further orders wait
    #[arg(long, env = "CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// The most that all restores of this node read from stores, in bytes a second; default: no limit
    #[arg(long, value_name = "QUANTITY", env = "BANDWIDTH", value_parser = quantity)]
    pub bandwidth: Option<u64>,

    /// Where stores may be.
    #[command(flatten)]
    pub stores: Allowance,

    /// The directory of archives that file:// URLs name, of each namespace in a folder of its name; the
    /// controller must see it at the same path. Default: files are not read
    #[arg(long, value_name = "DIRECTORY", env = "FILE_ROOT")]
    pub file_root: Option<PathBuf>,

    /// The smallest archive of which checkpoints are taken: a restore of it that is interrupted goes on from
    /// the last. They lie in the work directory
    #[arg(long, value_name = "QUANTITY", env = "CHECKPOINT_FROM", default_value = "64Mi", value_parser = quantity)]
    pub checkpoint_from: u64,

    /// Bytes written from one checkpoint to the next, at most; half a minute is the most too
    #[arg(long, value_name = "QUANTITY", env = "CHECKPOINT_EVERY", default_value = "1Gi", value_parser = quantity)]
    pub checkpoint_every: u64,
}

impl Arguments {
    /// The work directory, given or derived.
    pub fn work_dir(&self) -> PathBuf {
        match &self.work_dir {
            Some(given) => given.clone(),
            None => self.kubelet_dir.join(WORK_FOLDER),
        }
    }

    /// Who holds the Lease.
    pub fn identity(&self) -> String {
        match &self.identity {
            Some(given) => given.clone(),
            None => format!("{}-{}", self.node_name, std::process::id()),
        }
    }

    /// The pod that this is.
    pub fn pod(&self) -> Pod {
        Pod {
            name: self.identity(),
            namespace: self.namespace.clone(),
            uid: self.pod_uid.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// Which restores can go on.
    pub fn resumption(&self) -> Resumption {
        Resumption {
            from: self.checkpoint_from,
            bytes: self.checkpoint_every,
            ..Resumption::default()
        }
    }

    /// The sockets that were given, by driver.
    pub fn sockets(&self) -> BTreeMap<String, PathBuf> {
        self.direct_driver.iter().cloned().collect()
    }
}

fn driver(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, socket)) if !name.is_empty() && socket.starts_with('/') => {
            Ok((name.to_owned(), PathBuf::from(socket)))
        }
        _ => Err("it must be NAME=SOCKET with an absolute path, for example \
                  driver.example.com=/var/lib/kubelet/plugins/driver.example.com/csi.sock"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_a_name_and_an_absolute_path() {
        let pair = driver("a.b=/x/csi.sock").unwrap();
        assert_eq!(pair, ("a.b".to_owned(), PathBuf::from("/x/csi.sock")));
        for wrong in ["a.b", "=/x", "a.b=", "a.b=x/csi.sock"] {
            assert!(driver(wrong).is_err(), "{wrong}");
        }
    }
}
