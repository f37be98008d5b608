//! Looking at objects behind HTTP, listing them, and signing URLs for them.

use std::time::Duration;

use crds::BackupStoreSpec;
use http::StatusCode;
use http::header::RANGE;
use jiff::Timestamp;

use super::access::{LOOK_TIMEOUT, PAGES, bandwidth};
use super::addresses::{Addresses, Denied, cause};
use super::answer::{Found, Question};
use super::listing::{self, Entry, Page, Read, Unreadable, Version};
use super::signer::{self, SignError, Signer};
use super::{
    Credentials, Location, ObjectUrl, PrefixUrl, Reach, Scheme, SignedUrl, StoreError, ambient,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long the URL of a look is good.
const LOOK_LIFETIME: Duration = Duration::from_secs(60);

/// No error document is longer; more of an answer is not read.
const ANSWER_MAX: usize = 64 << 10;

/// No page of a listing is longer: 1,000 objects with keys of 1,024 bytes, most of which are written as one.
const PAGE_MAX: usize = 4 << 20;

/// Reads a page of objects.
type Reader = fn(&[u8]) -> Read<Entry, (&'static str, String)>;

/// One bucket in one store, with credentials, or what a URL alone opens.
pub(super) struct Server {
    scheme: Scheme,
    signer: Signer,
    client: reqwest::Client,
    bucket: String,
    name: String,
    /// Whether what it signs by are the controller's own credentials.
    is_ambient: bool,
    ca_bundle: Option<String>,
    bytes_per_second: Option<i64>,
    addresses: Addresses,
}

impl Server {
    /// Prepares to read what `location` names, as `store` describes its server. Nothing is sent yet.
    pub(super) fn new(
        location: &Location,
        store: Option<&BackupStoreSpec>,
        credentials: &Credentials,
        reach: &Reach,
    ) -> Result<Self, StoreError> {
        let endpoint = store.and_then(|store| store.endpoint.as_deref());
        let ca_bundle = store.and_then(|store| store.ca_bundle.clone());
        let signer = Signer::new(location, store, credentials, &reach.ambient)?;
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LOOK_TIMEOUT)
            // A redirect would leave the server that is named.
            .redirect(reqwest::redirect::Policy::none())
            // The agent has none either: what works here shall work there.
            .no_proxy()
            .dns_resolver(reach.addresses.clone());
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            // No certificates need to be there where none are used.
            client = client.tls_certs_only([]);
        } else if let Some(bundle) = &ca_bundle {
            client = client.tls_certs_only(certificates(bundle)?);
        }
        let client = client.build().map_err(|error| StoreError::Signing {
            url: location.to_string(),
            why: error.to_string(),
        })?;
        Ok(Self {
            scheme: location.scheme(),
            signer,
            client,
            bucket: location.bucket().to_owned(),
            name: name(location, store),
            is_ambient: matches!(credentials, Credentials::Ambient),
            ca_bundle,
            bytes_per_second: store.and_then(bandwidth),
            addresses: reach.addresses.clone(),
        })
    }

    /// Looks at an object, as it is now or as that version.
    pub(super) async fn look(
        &self,
        url: &ObjectUrl,
        version: Option<&str>,
    ) -> Result<Found, StoreError> {
        let signed = self.sign(url, version, LOOK_LIFETIME).await?;
        let request = self.get(&signed.url)?.header(RANGE, "bytes=0-0");
        let mut response = request.send().await.map_err(|it| self.unreachable(&it))?;
        // The whole object, from a server that ignores Range, is nothing to read.
        let body = match response.status() {
            StatusCode::OK => Vec::new(),
            _ => self.body(&mut response, ANSWER_MAX).await?,
        };
        let question = self.question(url.to_string());
        question.read(response.status(), response.headers(), &body)
    }

    /// Shows `each` of the objects under a prefix, as they are now.
    pub(super) async fn list(
        &self,
        prefix: &PrefixUrl,
        mut each: impl FnMut(Entry),
    ) -> Result<(), StoreError> {
        let question = self.question(prefix.to_string()).listing();
        let read: Reader = match self.scheme {
            Scheme::Az => listing::blobs,
            _ => listing::objects,
        };
        let form: &[(&'static str, &str)] = match self.scheme {
            Scheme::Az => &[
                ("restype", "container"),
                ("comp", "list"),
                ("maxresults", "1000"),
            ],
            _ => &[("list-type", "2")],
        };
        let mut next = None;
        for _ in 0..PAGES {
            let form = form
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()));
            let mut query: Vec<_> = form.collect();
            query.push(("prefix", prefix.prefix.clone()));
            query.extend(next);
            let page = self.page(&question, query, read).await?;
            page.entries.into_iter().for_each(&mut each);
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
        Err(question.too_many())
    }

    /// Shows `each` of what the store has kept of an object, deletions too: the newest first of each kind.
    pub(super) async fn versions(
        &self,
        url: &ObjectUrl,
        mut each: impl FnMut(Version),
    ) -> Result<(), StoreError> {
        let what = format!("the versions of {url}");
        let question = self.question(what).versions();
        let mut next = vec![("versions", String::new())];
        for _ in 0..PAGES {
            next.push(("prefix", url.key.clone()));
            let page = self.page(&question, next, listing::versions).await?;
            // Keys come in order, those that are longer after this one.
            let is_last = page.entries.last().is_some_and(|last| last.key > url.key);
            let of_it = page.entries.into_iter().filter(|it| it.key == url.key);
            of_it.for_each(&mut each);
            match page.next {
                Some((key, version)) if !is_last => {
                    next = vec![("versions", String::new()), ("key-marker", key)];
                    next.extend(version.map(|version| ("version-id-marker", version)));
                }
                Some(_) | None => return Ok(()),
            }
        }
        Err(question.too_many())
    }

    async fn page<E, N>(
        &self,
        question: &Question<'_>,
        query: Vec<(&'static str, String)>,
        read: fn(&[u8]) -> Read<E, N>,
    ) -> Result<Page<E, N>, StoreError> {
        let authorized = self.signer.listing(query, LOOK_LIFETIME).await;
        let (url, headers) = authorized.map_err(|error| self.unsigned(&question.url, error))?;
        let request = self.get(&url)?.headers(headers);
        let mut response = request.send().await.map_err(|it| self.unreachable(&it))?;
        let body = self.body(&mut response, PAGE_MAX).await?;
        question.listed(response.status(), &body)?;
        read(&body).map_err(|Unreadable| StoreError::Answer {
            server: self.name.clone(),
            code: "a listing that cannot be read".to_owned(),
        })
    }

    /// A request to where a store may be.
    fn get(&self, url: &str) -> Result<reqwest::RequestBuilder, StoreError> {
        let url = url::Url::parse(url).map_err(|error| StoreError::Signing {
            url: format!("{}{}", self.scheme.prefix(), self.bucket),
            why: error.to_string(),
        })?;
        let examined = self.addresses.examine_url(&url);
        examined.map_err(|denied| StoreError::AddressDenied {
            server: self.name.clone(),
            denied,
        })?;
        Ok(self.client.get(url))
    }

    /// No more than `most` bytes, or a little.
    async fn body(
        &self,
        response: &mut reqwest::Response,
        most: usize,
    ) -> Result<Vec<u8>, StoreError> {
        let mut body = Vec::new();
        while body.len() < most {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
        Ok(body)
    }

    /// Signs a URL that reads the object (of that version) for `lifetime`, or less where the credentials live
    /// no longer.
    pub(super) async fn sign(
        &self,
        url: &ObjectUrl,
        version: Option<&str>,
        lifetime: Duration,
    ) -> Result<SignedUrl, StoreError> {
        let version = version.map(|version| ("versionId", version.to_owned()));
        let lifetime = if self.is_ambient {
            lifetime.min(ambient::LIFETIME)
        } else {
            lifetime
        };
        let now = Timestamp::now();
        let query = version.into_iter().collect();
        let signed = self.signer.sign(&url.key, query, lifetime).await;
        Ok(SignedUrl {
            url: signed.map_err(|error| self.unsigned(&url.to_string(), error))?,
            signed: now,
            expires: now + lifetime,
            ca_bundle: self.ca_bundle.clone(),
            bytes_per_second: self.bytes_per_second,
        })
    }

    fn unsigned(&self, url: &str, error: SignError) -> StoreError {
        let url = url.to_owned();
        match error {
            SignError::Key => StoreError::Url { url },
            error if self.is_ambient => signer::no_ambient(&url, &error),
            SignError::Store(error) => StoreError::Signing {
                url,
                why: error.to_string(),
            },
            SignError::Silent => StoreError::Signing {
                url,
                why: "it took too long".to_owned(),
            },
        }
    }

    fn question(&self, url: String) -> Question<'_> {
        Question {
            scheme: self.scheme,
            url,
            bucket: &self.bucket,
            server: &self.name,
            permission: None,
        }
    }

    /// What is said of the server where it does not do what it should.
    pub(super) fn late(&self) -> StoreError {
        StoreError::Unreachable {
            server: self.name.clone(),
            why: "a listing was not complete in two minutes",
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> StoreError {
        let server = self.name.clone();
        if let Some(denied) = cause::<Denied>(error) {
            let denied = *denied;
            return StoreError::AddressDenied { server, denied };
        }
        if cause::<rustls::Error>(error).is_some() {
            return StoreError::Tls { server };
        }
        let why = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "no connection"
        } else {
            "the connection broke"
        };
        StoreError::Unreachable { server, why }
    }
}

/// What people know the server by.
fn name(location: &Location, store: Option<&BackupStoreSpec>) -> String {
    let endpoint = store.and_then(|store| store.endpoint.as_deref());
    match (location.scheme(), endpoint, store) {
        (Scheme::Https, _, _) => format!("https://{}", location.bucket()),
        (_, Some(endpoint), _) => endpoint.trim_end_matches('/').to_owned(),
        (Scheme::S3, None, Some(store)) => format!("Amazon S3 in {}", store.region),
        (Scheme::Az, None, Some(store)) => {
            let account = store.account.as_deref().unwrap_or_default();
            format!("Azure Blob Storage of the account {account}")
        }
        (Scheme::Gs, None, _) => "Google Cloud Storage".to_owned(),
        (_, None, _) => location.scheme().prefix().to_owned(),
    }
}

fn certificates(bundle: &str) -> Result<Vec<reqwest::Certificate>, StoreError> {
    match reqwest::Certificate::from_pem_bundle(bundle.as_bytes()) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(StoreError::CaBundle),
    }
}

#[cfg(test)]
mod tests;
