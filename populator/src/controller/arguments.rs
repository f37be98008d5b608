//! The flags of `populator controller`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::Serving;
use crate::store::{Addresses, Allowance, Ambient, FileRoot, Reach};

/// The driver that restores are made for where no other is named.
const DRIVER: &str = "fastcopy.csi.example.com";

/// Seconds of the longest life that Signature Version 4 gives a URL: a week.
const LIFETIME_MAX: u64 = 604_800;
const LIFETIME_MIN: u64 = 30;

/// The flags of `populator controller`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Where health and metrics are served.
    #[command(flatten)]
    pub serving: Serving,

    /// The namespace that holds orders and Leases
    #[arg(long, env = "POD_NAMESPACE", default_value = "volume-populator")]
    pub namespace: String,

    /// The name under which this replica leads; default: one by chance
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,

    /// A CSI driver whose controller service is on each node's socket, needs no attaching and makes
    /// volumes that lie on that node (may be repeated)
    #[arg(long, value_name = "NAME", env = "DIRECT_DRIVERS", value_delimiter = ',', default_value = DRIVER)]
    pub direct_driver: Vec<String>,

    /// Where stores may be.
    #[command(flatten)]
    pub stores: Allowance,

    /// PVCs may name VolumeBackups of other namespaces, where a ReferenceGrant there allows it
    #[arg(long, env = "CROSS_NAMESPACE")]
    pub cross_namespace: bool,

    /// A namespace whose BackupStores may leave out credentialsSecretRef, and are read by what this controller
    /// itself is at the cloud: web identity, workload identity, a machine's role (may be repeated)
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "AMBIENT_NAMESPACE",
        value_delimiter = ','
    )]
    pub ambient_namespace: Vec<String>,

    /// The directory of archives that file:// URLs name, of each namespace in a folder of its name; the agents
    /// must see it at the same path. Default: files are not read
    #[arg(long, value_name = "DIRECTORY", env = "FILE_ROOT")]
    pub file_root: Option<PathBuf>,

    /// For how long a signed URL works, from 30s to 7d; it is renewed at half of that
    #[arg(long, value_name = "TIME", env = "URL_LIFETIME", default_value = "1h", value_parser = lifetime)]
    pub url_lifetime: Duration,

    /// How many PVCs are worked on at the same time
    #[arg(long, env = "CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
}

/// Why flags make no sense.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
pub enum ArgumentsError {
    /// No namespace.
    #[error("--namespace is empty; name the namespace of the populator")]
    Namespace,
    /// A driver without a name.
    #[error(
        "--direct-driver {0:?} is no name of a CSI driver; write it as in the StorageClass's provisioner"
    )]
    Driver(String),
}

impl Arguments {
    /// Refuses what could not work.
    pub fn check(&self) -> Result<(), ArgumentsError> {
        if self.namespace.is_empty() {
            return Err(ArgumentsError::Namespace);
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        };
        match self.direct_driver.iter().find(|driver| !is_name(driver)) {
            Some(driver) => Err(ArgumentsError::Driver(driver.clone())),
            None => Ok(()),
        }
    }

    /// The drivers that were named, each once.
    pub fn drivers(&self) -> Vec<String> {
        let mut drivers = self.direct_driver.clone();
        drivers.sort();
        drivers.dedup();
        drivers
    }

    /// What stores may be.
    pub fn reach(&self) -> Reach {
        Reach {
            addresses: Addresses::from(&self.stores),
            files: self.file_root.clone().map(FileRoot::from),
            ambient: Ambient::new(&self.ambient_namespace),
        }
    }

    /// The name under which this replica leads. A container that restarts in its pod keeps it, and
    /// with it the Lease.
    pub fn identity(&self) -> String {
        match self.identity.as_deref() {
            Some(given) if !given.is_empty() => given.to_owned(),
            _ => format!("controller-{}", uuid::Uuid::new_v4()),
        }
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a number with s, m, h or d, from 30s to 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let scale = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number
        .checked_mul(scale)
        .filter(|seconds| (LIFETIME_MIN..=LIFETIME_MAX).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::HttpAddress;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(lifetime("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "h",
            "1",
            "29s",
            "8d",
            "1w",
            "-1h",
            "99999999999999999999d",
            "1µ",
        ] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn odd_names_are_refused() {
        let arguments = |namespace: &str, driver: &str| Arguments {
            serving: Serving {
                http_address: HttpAddress::Off,
            },
            namespace: namespace.to_owned(),
            identity: None,
            direct_driver: vec![driver.to_owned(), driver.to_owned()],
            stores: Allowance::default(),
            cross_namespace: false,
            ambient_namespace: Vec::new(),
            file_root: None,
            url_lifetime: Duration::from_secs(60),
            concurrency: 1,
        };
        assert_eq!(arguments("n", DRIVER).check(), Ok(()));
        assert_eq!(arguments("n", DRIVER).drivers(), [DRIVER]);
        assert_eq!(
            arguments("", DRIVER).check(),
            Err(ArgumentsError::Namespace)
        );
        let refused = arguments("n", "a/b").check();
        assert_eq!(refused, Err(ArgumentsError::Driver("a/b".to_owned())));
    }
}
