//! HTTP clients, one for each bundle of certificates by which stores are trusted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use archive::{SourceError, SourceErrorKind};
use reqwest::{Certificate, Client};
use url::Url;

use super::pace::Paces;
use super::{Limits, answer};
use crate::store::Addresses;

/// More clients than stores that are read from at a time.
const KEPT: usize = 64;

/// What stores are asked with, and how fast. No redirects (the signature is for one host), no proxies of the environment,
/// and a connection for each answer: in a shared one (HTTP/2) a restore that waits for its volume would hold
/// up the others.
#[derive(Debug)]
pub struct Clients {
    /// How long things may take.
    pub(super) limits: Limits,
    addresses: Addresses,
    trusting: Mutex<HashMap<String, Client>>,
    public: Client,
    pub(super) paces: Paces,
}

impl Clients {
    /// Clients that go to these addresses only, and read so many bytes a second, all of them together.
    pub fn new(
        limits: Limits,
        addresses: Addresses,
        bandwidth: Option<u64>,
    ) -> Result<Self, reqwest::Error> {
        let public = build(&limits, &addresses, None)?;
        Ok(Self {
            limits,
            addresses,
            trusting: Mutex::default(),
            public,
            paces: Paces::new(bandwidth),
        })
    }

    /// The client for a URL of a store that is trusted by `bundle`, or else by public authorities.
    pub(super) fn of(&self, url: &str, bundle: Option<&str>) -> Result<Client, SourceError> {
        let url = Url::parse(url)
            .map_err(|_| SourceError::new(SourceErrorKind::Other, "the signed URL is not one"))?;
        self.addresses
            .examine_url(&url)
            .map_err(|denied| SourceError::new(SourceErrorKind::Denied, denied.to_string()))?;
        let Some(bundle) = bundle.filter(|_| url.scheme() == "https") else {
            return Ok(self.public.clone());
        };
        let mut trusting = self.trusting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = trusting.get(bundle) {
            return Ok(known.clone());
        }
        let client = build(&self.limits, &self.addresses, Some(bundle));
        let client = client.map_err(answer::transport)?;
        if trusting.len() >= KEPT {
            trusting.clear();
        }
        trusting.insert(bundle.to_owned(), client.clone());
        Ok(client)
    }
}

fn build(
    limits: &Limits,
    addresses: &Addresses,
    bundle: Option<&str>,
) -> Result<Client, reqwest::Error> {
    let mut builder = Client::builder()
        .http1_only()
        .connect_timeout(limits.connect)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(addresses.clone())
        .user_agent(concat!("populator/", env!("CARGO_PKG_VERSION")));
    if let Some(bundle) = bundle {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(bundle.as_bytes())?);
    }
    builder.build()
}
