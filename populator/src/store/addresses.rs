//! Which network addresses a store may have. Its endpoint is the tenant's choice, and the populator sends its
//! requests from a pod that may reach more than the tenant: so what belongs to a node alone or to a cloud's
//! own services is no store's, whatever name leads there.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Addresses at which clouds serve machines their metadata and credentials, where they are not link-local.
const METADATA: [&str; 7] = [
    // Amazon EC2, IPv6, and what gives pods of EKS their credentials.
    "fd00:ec2::254",
    "fd00:ec2::23",
    // Google Cloud, IPv6.
    "fd20:ce::254",
    // Scaleway, IPv6.
    "fd00:42::42",
    // Alibaba Cloud.
    "100.100.100.200",
    // Azure's WireServer.
    "168.63.129.16",
    // Oracle Cloud, of old.
    "192.0.0.192",
];

/// The flag by which an administrator makes exceptions.
#[derive(Args, Clone, Debug, Default)]
pub struct Allowance {
    /// A network in which stores may be though it is loopback, link-local or a cloud's metadata service, for
    /// example 127.0.0.0/8 (may be repeated)
    #[arg(
        long,
        value_name = "CIDR",
        env = "ALLOW_STORE_NETWORK",
        value_delimiter = ','
    )]
    pub allow_store_network: Vec<IpNet>,
}

/// The addresses to which connections are made. As a resolver of names it shows no others, so that what is
/// connected to is what was examined.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    allowed: Arc<[IpNet]>,
}

/// An address that no store may have.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error("{0} is loopback, link-local or a cloud's own")]
pub struct Denied(pub IpAddr);

impl From<&Allowance> for Addresses {
    fn from(allowance: &Allowance) -> Self {
        Self {
            allowed: allowance.allow_store_network.clone().into(),
        }
    }
}

impl Addresses {
    /// All that there are, for who names a server on a command line.
    pub fn anywhere() -> Self {
        let all = ["0.0.0.0/0", "::/0"].map(str::parse);
        Self {
            allowed: all.into_iter().flatten().collect(),
        }
    }

    fn examine(&self, address: IpAddr) -> Result<(), Denied> {
        let address = translated(address.to_canonical());
        let is_allowed = self.allowed.iter().any(|net| net.contains(&address));
        if is_allowed || !is_reserved(address) {
            Ok(())
        } else {
            Err(Denied(address))
        }
    }

    /// Examines an address that stands in a URL, which nobody resolves. That of a name is examined when it
    /// is resolved.
    pub fn examine_url(&self, url: &Url) -> Result<(), Denied> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.examine(address.into()),
            Some(Host::Ipv6(address)) => self.examine(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }
}

/// The IPv4 address behind one of NAT64 (RFC 6052, 2.1).
fn translated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(it) if it.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = it.octets();
            IpAddr::from([a, b, c, d])
        }
        other => other,
    }
}

fn is_reserved(address: IpAddr) -> bool {
    let is_metadata = METADATA.iter().any(|it| it.parse() == Ok(address));
    is_metadata
        || match address {
            IpAddr::V4(it) => {
                it.is_loopback()
                    || it.is_link_local()
                    || it.is_unspecified()
                    || it.is_multicast()
                    || it.is_broadcast()
                    // "This network" (RFC 1122, 3.2.1.3).
                    || it.octets()[0] == 0
            }
            IpAddr::V6(it) => {
                it.is_loopback()
                    || it.is_unicast_link_local()
                    || it.is_unspecified()
                    || it.is_multicast()
            }
        }
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let examined = found
                .into_iter()
                .map(|it| addresses.examine(it.ip()).map(|()| it));
            // One that may be is enough.
            let (permitted, denied): (Vec<_>, Vec<_>) = examined.partition(Result::is_ok);
            match denied.into_iter().find_map(Result::err) {
                Some(denied) if permitted.is_empty() => Err(denied.into()),
                _ => Ok(Box::new(permitted.into_iter().flatten()) as Addrs),
            }
        })
    }
}

/// The error of this type that another one has for a cause.
pub(crate) fn cause<'a, E: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An io::Error's own source() skips the error that it wraps.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped as _),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(networks: &[&str]) -> Addresses {
        Addresses::from(&Allowance {
            allow_store_network: networks.iter().map(|it| it.parse().unwrap()).collect(),
        })
    }

    fn permits(addresses: &Addresses, address: &str) -> bool {
        addresses.examine(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn what_belongs_to_a_node_or_a_cloud_is_no_store() {
        let strict = allowing(&[]);
        for denied in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::1",
            "::",
            "fe80::1",
            "64:ff9b::a9fe:a9fe",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!permits(&strict, denied), "{denied}");
        }
        for permitted in [
            "10.96.0.1",
            "192.168.1.1",
            "52.216.0.1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(permits(&strict, permitted), "{permitted}");
        }
    }

    #[test]
    fn an_administrator_makes_exceptions() {
        let lenient = allowing(&["127.0.0.0/8", "fe80::/64"]);
        assert!(permits(&lenient, "127.0.0.1") && permits(&lenient, "::ffff:127.0.0.1"));
        assert!(permits(&lenient, "fe80::1") && !permits(&lenient, "fe80:1::1"));
        assert!(!permits(&lenient, "169.254.169.254"));
        let all = Addresses::anywhere();
        assert!(permits(&all, "169.254.169.254") && permits(&all, "::1"));
    }

    #[test]
    fn addresses_in_urls_are_examined() {
        let examine = |url: &str| allowing(&[]).examine_url(&Url::parse(url).unwrap());
        for denied in [
            "http://127.1:80/",
            "http://[::1]/",
            "http://2130706433/",
            "http://0x7f.1/",
        ] {
            assert!(examine(denied).is_err(), "{denied}");
        }
        assert_eq!(examine("http://localhost/"), Ok(()), "it is resolved first");
    }

    #[tokio::test]
    async fn a_name_that_leads_there_is_refused() {
        let get = async |addresses: Addresses| {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
            let client = client.dns_resolver(addresses).build().unwrap();
            // Nobody listens there.
            client.get("http://localhost:1/").send().await.unwrap_err()
        };
        let refused = get(allowing(&[])).await;
        assert!(cause::<Denied>(&refused).is_some(), "{refused:?}");
        let allowed = get(allowing(&["127.0.0.0/8", "::1/128"])).await;
        assert!(cause::<Denied>(&allowed).is_none(), "{allowed:?}");
    }
}
