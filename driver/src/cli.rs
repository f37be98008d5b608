//! The command line, checked: what comes out of it can be run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use csi::endpoint::EndpointError;

use crate::bytes::{self, Bytes};
use crate::kernel::freezing::GUARD;
use crate::pool::{MINIMUM_POOL, Policy, PoolKind, PoolSettings};
use crate::server::{RegistrationSettings, Settings};
use crate::volume::{NodeName, NodeNameError};

/// The driver's name where none is chosen.
pub const DEFAULT_NAME: &str = "fastcopy.csi.example.com";

/// A CSI driver for local volumes: each is an image file in a pool, a directory on a file system
/// with reflinks (XFS or btrfs).
///
/// It runs on every node that has a pool, as root, with the host's /dev. It registers itself with
/// kubelet, and answers /healthz and /metrics.
#[derive(Debug, Parser)]
#[command(
    name = "driver",
    version,
    max_term_width = 100,
    args_override_self = true,
    args_conflicts_with_subcommands = true
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Arguments {
    /// Something else than to serve
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The node's name in Kubernetes. Volumes carry it in their ids and their topology
    #[arg(
        long,
        env = "NODE_NAME",
        default_value = "",
        hide_default_value = true,
        help_heading = "Names"
    )]
    node_name: String,

    /// The driver's name: the provisioner of StorageClasses
    #[arg(
        long,
        default_value = DEFAULT_NAME,
        help_heading = "Names"
    )]
    driver_name: String,

    /// The pool's directory. Without the next options it must be on XFS or btrfs
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/fastcopy",
        help_heading = "Pool"
    )]
    pool: PathBuf,

    /// Make an XFS pool of this size (such as 20Gi) in the file DIR/pool.img, fully allocated, and
    /// mount it at DIR/pool. What is there already is used again
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse, help_heading = "Pool")]
    pool_size: Option<u64>,

    /// Let the pool's file have holes. Volumes fail when the disk fills up: only for
    /// demonstrations and tests
    #[arg(long, help_heading = "Pool")]
    pool_sparse: bool,

    /// Make the pool on this empty block device, or use the one that is there, and mount it at
    /// DIR/pool
    #[arg(long, value_name = "DEVICE", help_heading = "Pool")]
    pool_device: Option<PathBuf>,

    /// Promise volumes so many times the pool's size, such as 1.5. Then volumes can find the pool
    /// full, and fail
    #[arg(
        long,
        value_name = "RATIO",
        default_value_t = 1.0,
        help_heading = "Pool"
    )]
    overcommit: f64,

    /// With --overcommit, make nothing new when this much of the pool is in use, in per cent
    /// [default: 90]
    #[arg(long, value_name = "PERCENT", help_heading = "Pool")]
    stop_percent: Option<u64>,

    /// Let no more volumes than this be in use on the node at once. Without, it is as many as the
    /// kernel lets be mounted
    #[arg(long, value_name = "N", help_heading = "Volumes")]
    max_volumes: Option<u64>,

    /// Keep book of which volume is attached, for external-attacher: a volume is then staged only
    /// while it is, and not deleted
    #[arg(long, help_heading = "Volumes")]
    attach: bool,

    /// Announce that volumes can be expanded by the controller too. Only where one node is all
    /// there is: with several, external-resizer asks one node's driver about all volumes
    #[arg(long, help_heading = "Volumes")]
    controller_expansion: bool,

    /// Where CSI is served
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "unix:///csi/csi.sock",
        help_heading = "Sockets"
    )]
    endpoint: String,

    /// Where the controller's half of CSI is served, apart from the node's; by default both are at
    /// --endpoint
    #[arg(long, value_name = "SOCKET", help_heading = "Sockets")]
    controller_endpoint: Option<String>,

    /// The socket of --endpoint as kubelet sees it
    /// [default: /var/lib/kubelet/plugins/DRIVER-NAME/csi.sock]
    #[arg(long, value_name = "SOCKET", help_heading = "Sockets")]
    kubelet_endpoint: Option<String>,

    /// Kubelet's directory of plugins, where the driver registers itself
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/kubelet/plugins_registry",
        help_heading = "Sockets"
    )]
    registration_dir: PathBuf,

    /// Leave the registration to node-driver-registrar
    #[arg(long, help_heading = "Sockets")]
    no_registration: bool,

    /// Where /healthz and /metrics are served
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9808",
        help_heading = "Observation"
    )]
    http_address: SocketAddr,

    /// Serve neither /healthz nor /metrics
    #[arg(long, help_heading = "Observation")]
    no_http: bool,

    /// How often pool and volumes are looked at for what is wrong with them, in seconds. What is
    /// seen twice is told
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Observation"
    )]
    monitor_interval: u32,

    /// Tell it as Events of the Node too, by the Pod's service account
    #[arg(long, help_heading = "Observation")]
    events: bool,

    /// The form of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text, help_heading = "Observation")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, or a filter such as driver=debug,info
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Observation"
    )]
    pub log_level: String,
}

/// What the program does besides serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Thaws file systems when standard input closes; the driver starts it before it freezes any
    #[command(name = GUARD, hide = true)]
    ThawGuard {
        /// Mount points, each followed by its device
        words: Vec<String>,
    },
    /// Answers a call of kubelet's FlexVolume, in JSON, through the driver that runs on the node.
    /// FASTCOPY_ENDPOINT names its socket where that is not
    /// /var/lib/kubelet/plugins/fastcopy.csi.example.com/csi.sock
    #[command(name = "flexvolume")]
    FlexVolume {
        /// The call and its arguments, as kubelet has them
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A mistake in the settings, in one sentence.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ConfigurationError {
    /// No node name.
    #[error("the node's name is missing; set --node-name, or NODE_NAME from spec.nodeName")]
    NoNodeName,
    /// Not a node name.
    #[error(transparent)]
    NodeName(#[from] NodeNameError),
    /// Not a driver name.
    #[error(
        "the driver name {0:?} is not in domain name notation: at most 63 letters, digits, dashes \
         and dots, beginning and ending with a letter"
    )]
    DriverName(String),
    /// A pool too small to be of use.
    #[error("--pool-size {} is too small; a pool needs at least {}", Bytes(*.0), Bytes(MINIMUM_POOL))]
    PoolSize(u64),
    /// Two pools.
    #[error("--pool-size and --pool-device are two different pools; set one of them")]
    TwoPools,
    /// A flag that says nothing about this pool.
    #[error("--pool-sparse is about the file of --pool-size, which is not set")]
    SparseNothing,
    /// An overcommitment that is none.
    #[error("--overcommit {0} is not at least 1; write the ratio of promises to space, like 1.5")]
    Overcommit(f64),
    /// A watermark outside the pool.
    #[error("--stop-percent {0} is not a part of the pool; use a number from 1 to 100")]
    StopPercent(u64),
    /// A watermark that nothing can reach.
    #[error("--stop-percent matters only with --overcommit beyond 1, which is not set")]
    StopNothing,
    /// A node without volumes.
    #[error("--max-volumes 0 leaves the node without volumes; use at least 1")]
    NoVolumes,
    /// A relative path.
    #[error("{0} {path} is not an absolute path", path = .1.display())]
    Relative(&'static str, PathBuf),
    /// One socket for two things.
    #[error(
        "--endpoint and --controller-endpoint are both {path}; leave --controller-endpoint out to \
         serve all of CSI there",
        path = .0.display()
    )]
    OneSocket(PathBuf),
    /// A socket that is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Arguments {
    /// Checks the arguments.
    pub fn settings(&self) -> Result<Settings, ConfigurationError> {
        if self.node_name.is_empty() {
            return Err(ConfigurationError::NoNodeName);
        }
        let node = NodeName::parse(&self.node_name)?;
        if !is_driver_name(&self.driver_name) {
            return Err(ConfigurationError::DriverName(self.driver_name.clone()));
        }
        let directory = absolute("--pool", &self.pool)?;
        let kind = self.pool_kind()?;
        let endpoint = csi::endpoint::parse(&self.endpoint)?;
        let registration = if self.no_registration {
            None
        } else {
            Some(self.registration()?)
        };
        Ok(Settings {
            name: self.driver_name.clone(),
            pool: PoolSettings {
                directory,
                kind,
                node,
                policy: self.policy()?,
                attach: self.attach,
                max_volumes: self.max_volumes()?,
            },
            controller_expansion: self.controller_expansion,
            endpoint: absolute("--endpoint", &endpoint)?,
            controller_endpoint: self.controller_endpoint()?,
            registration,
            http: (!self.no_http).then_some(self.http_address),
            monitor_interval: Duration::from_secs(self.monitor_interval.into()),
            events: self.events,
        })
    }

    fn policy(&self) -> Result<Policy, ConfigurationError> {
        let overcommit = self.overcommit;
        if !overcommit.is_finite() || overcommit < 1.0 {
            return Err(ConfigurationError::Overcommit(overcommit));
        }
        let stop_percent = match self.stop_percent {
            None => Policy::default().stop_percent,
            Some(percent) if !(1..=100).contains(&percent) => {
                return Err(ConfigurationError::StopPercent(percent));
            }
            Some(_) if overcommit <= 1.0 => return Err(ConfigurationError::StopNothing),
            Some(percent) => percent,
        };
        Ok(Policy {
            overcommit,
            stop_percent,
            ..Policy::default()
        })
    }

    fn max_volumes(&self) -> Result<Option<u64>, ConfigurationError> {
        match self.max_volumes {
            Some(0) => Err(ConfigurationError::NoVolumes),
            most => Ok(most),
        }
    }

    fn pool_kind(&self) -> Result<PoolKind, ConfigurationError> {
        match (self.pool_size, &self.pool_device) {
            (Some(_), Some(_)) => Err(ConfigurationError::TwoPools),
            (None, _) if self.pool_sparse => Err(ConfigurationError::SparseNothing),
            (Some(size), None) if size < MINIMUM_POOL => Err(ConfigurationError::PoolSize(size)),
            (Some(size), None) => Ok(PoolKind::File {
                size,
                sparse: self.pool_sparse,
            }),
            (None, Some(device)) => Ok(PoolKind::Device(absolute("--pool-device", device)?)),
            (None, None) => Ok(PoolKind::Directory),
        }
    }

    fn controller_endpoint(&self) -> Result<Option<PathBuf>, ConfigurationError> {
        let Some(endpoint) = &self.controller_endpoint else {
            return Ok(None);
        };
        let path = csi::endpoint::parse(endpoint)?;
        if path == csi::endpoint::parse(&self.endpoint)? {
            return Err(ConfigurationError::OneSocket(path));
        }
        absolute("--controller-endpoint", &path).map(Some)
    }

    fn registration(&self) -> Result<RegistrationSettings, ConfigurationError> {
        let endpoint = match &self.kubelet_endpoint {
            Some(endpoint) => csi::endpoint::parse(endpoint)?,
            None => ["/var/lib/kubelet/plugins", &self.driver_name, "csi.sock"]
                .iter()
                .collect(),
        };
        Ok(RegistrationSettings {
            directory: absolute("--registration-dir", &self.registration_dir)?,
            endpoint: absolute("--kubelet-endpoint", &endpoint)?,
        })
    }
}

fn absolute(flag: &'static str, path: &std::path::Path) -> Result<PathBuf, ConfigurationError> {
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(ConfigurationError::Relative(flag, path.to_owned()))
    }
}

fn is_driver_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphabetic)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte))
}

#[cfg(test)]
mod tests;
