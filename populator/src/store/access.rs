//! Looking at objects, listing them, and signing URLs for them.

use std::time::Duration;

use crds::BackupStoreSpec;
use http::Method;
use http::header::RANGE;
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};

use super::addresses::{Addresses, Denied, cause};
use super::answer::{Found, Question};
use super::listing::{self, Entry, Page, Read, Unreadable, Version};
use super::{ObjectUrl, PrefixUrl, StoreError};

/// A look reads one byte, so a server that needs longer than this is not serving.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long the URL of a look is good.
const LOOK_LIFETIME: Duration = Duration::from_secs(60);

/// No error document is longer; more of an answer is not read.
const ANSWER_MAX: usize = 64 << 10;

/// No page of a listing is longer: 1,000 objects with keys of 1,024 bytes, most of which are written as one.
const PAGE_MAX: usize = 4 << 20;

/// A listing that takes longer is given up.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// Pages of 1,000 objects that are looked through.
const PAGES: usize = 1000;

/// The keys of a BackupStore's Secret. Never printed, never written anywhere.
#[derive(Clone)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`, for temporary credentials.
    pub session_token: Option<String>,
}

/// A URL that reads one object without credentials, for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    /// The URL: whoever has it can read the object.
    pub url: String,
    /// When it stops working.
    pub expires: Timestamp,
    /// Certificates in PEM by which the server is trusted, in place of the public authorities.
    pub ca_bundle: Option<String>,
    /// The most that a node may read from the store, in bytes a second.
    pub bytes_per_second: Option<i64>,
}

/// One bucket in one store, with credentials.
pub struct Access {
    signer: AmazonS3,
    client: reqwest::Client,
    bucket: String,
    server: String,
    ca_bundle: Option<String>,
    bytes_per_second: Option<i64>,
    addresses: Addresses,
}

impl Access {
    /// Prepares to read from `bucket` on the server that `store` describes. Nothing is sent yet.
    pub fn new(
        store: &BackupStoreSpec,
        credentials: &Credentials,
        bucket: &str,
        addresses: &Addresses,
    ) -> Result<Self, StoreError> {
        let signing = |why: &dyn std::fmt::Display| StoreError::Signing {
            url: format!("s3://{bucket}"),
            why: why.to_string(),
        };
        let endpoint = store.endpoint.as_deref().map(|endpoint| {
            address(endpoint, bucket, store.path_style).ok_or_else(|| StoreError::Endpoint {
                endpoint: endpoint.to_owned(),
            })
        });
        let endpoint = endpoint.transpose()?;
        let plain = store
            .endpoint
            .as_deref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&store.region)
            .with_access_key_id(&credentials.access_key_id)
            .with_secret_access_key(&credentials.secret_access_key)
            .with_virtual_hosted_style_request(!store.path_style)
            // It only signs; the client below connects.
            .with_client_options(ClientOptions::new().with_no_system_certificates(true))
            .with_allow_http(plain);
        if let Some(token) = &credentials.session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LOOK_TIMEOUT)
            // A redirect would leave the server that the BackupStore names.
            .redirect(reqwest::redirect::Policy::none())
            // The agent has none either: what works here shall work there.
            .no_proxy()
            .dns_resolver(addresses.clone());
        if plain {
            // No certificates need to be there where none are used.
            client = client.tls_certs_only([]);
        } else if let Some(bundle) = &store.ca_bundle {
            client = client.tls_certs_only(certificates(bundle)?);
        }
        let server = store.endpoint.as_deref().map_or_else(
            || format!("Amazon S3 in {}", store.region),
            |endpoint| endpoint.trim_end_matches('/').to_owned(),
        );
        Ok(Self {
            signer: builder.build().map_err(|error| signing(&error))?,
            client: client.build().map_err(|error| signing(&error))?,
            bucket: bucket.to_owned(),
            server,
            ca_bundle: store.ca_bundle.clone(),
            bytes_per_second: store.bandwidth_per_node.as_deref().and_then(bandwidth),
            addresses: addresses.clone(),
        })
    }

    /// Looks at an object, as it is now or as that version.
    pub async fn look(&self, url: &ObjectUrl, version: Option<&str>) -> Result<Found, StoreError> {
        let signed = self.sign(url, version, LOOK_LIFETIME).await?;
        let request = self.get(&signed)?.header(RANGE, "bytes=0-0");
        let mut response = request.send().await.map_err(|it| self.unreachable(&it))?;
        // The whole object, from a server that ignores Range, is nothing to read.
        let body = match response.status() {
            http::StatusCode::OK => Vec::new(),
            _ => self.body(&mut response, ANSWER_MAX).await?,
        };
        self.question(url.to_string(), None)
            .read(response.status(), response.headers(), &body)
    }

    /// Shows `each` of the objects under a prefix, as they are now.
    pub async fn list(
        &self,
        prefix: &PrefixUrl,
        mut each: impl FnMut(Entry),
    ) -> Result<(), StoreError> {
        let question = self.question(prefix.to_string(), Some("s3:ListBucket"));
        let mut next = vec![("list-type", "2".to_owned())];
        for _ in 0..PAGES {
            next.push(("prefix", prefix.prefix.clone()));
            let page = self.page(&question, next, listing::objects).await?;
            page.entries.into_iter().for_each(&mut each);
            match page.next {
                Some(token) => next = vec![("list-type", "2".to_owned()), token],
                None => return Ok(()),
            }
        }
        Err(too_many(&question))
    }

    /// Shows `each` of what the store has kept of an object, deletions too: the newest first of each kind.
    pub async fn versions(
        &self,
        url: &ObjectUrl,
        mut each: impl FnMut(Version),
    ) -> Result<(), StoreError> {
        let what = format!("the versions of {url}");
        let question = self.question(what, Some("s3:ListBucketVersions"));
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
        Err(too_many(&question))
    }

    /// `listing`, as long as it may take.
    pub async fn in_time<T>(
        &self,
        listing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(LISTING_TIMEOUT, listing).await;
        done.unwrap_or_else(|_| {
            Err(StoreError::Unreachable {
                server: self.server.clone(),
                why: "a listing was not complete in two minutes",
            })
        })
    }

    async fn page<E, N>(
        &self,
        question: &Question<'_>,
        query: Vec<(&'static str, String)>,
        read: fn(&[u8]) -> Read<E, N>,
    ) -> Result<Page<E, N>, StoreError> {
        let signed = self.signed(&Path::default(), query, LOOK_LIFETIME).await?;
        let request = self.get(&signed)?;
        let mut response = request.send().await.map_err(|it| self.unreachable(&it))?;
        let body = self.body(&mut response, PAGE_MAX).await?;
        question.listed(response.status(), &body)?;
        read(&body).map_err(|Unreadable| StoreError::Answer {
            server: self.server.clone(),
            code: "a listing that cannot be read".to_owned(),
        })
    }

    /// A request to where a store may be.
    fn get(&self, signed: &SignedUrl) -> Result<reqwest::RequestBuilder, StoreError> {
        let url = url::Url::parse(&signed.url).map_err(|error| StoreError::Signing {
            url: format!("s3://{}", self.bucket),
            why: error.to_string(),
        })?;
        let examined = self.addresses.examine_url(&url);
        examined.map_err(|denied| StoreError::AddressDenied {
            server: self.server.clone(),
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

    /// Signs a URL that reads the object (of that version) for `lifetime`.
    pub async fn sign(
        &self,
        url: &ObjectUrl,
        version: Option<&str>,
        lifetime: Duration,
    ) -> Result<SignedUrl, StoreError> {
        let path = Path::parse(&url.key).map_err(|_| StoreError::Url {
            url: url.to_string(),
        })?;
        let version = version.map(|version| ("versionId", version.to_owned()));
        self.signed(&path, version, lifetime).await
    }

    async fn signed(
        &self,
        path: &Path,
        query: impl IntoIterator<Item = (&'static str, String)>,
        lifetime: Duration,
    ) -> Result<SignedUrl, StoreError> {
        let options = SignedUrlOptions::default().with_query(query);
        let now = Timestamp::now();
        let url = self
            .signer
            .signed_url_opts(Method::GET, path, lifetime, &options)
            .await
            .map_err(|error| StoreError::Signing {
                url: format!("s3://{}/{path}", self.bucket),
                why: error.to_string(),
            })?;
        Ok(SignedUrl {
            url: url.to_string(),
            expires: now + lifetime,
            ca_bundle: self.ca_bundle.clone(),
            bytes_per_second: self.bytes_per_second,
        })
    }

    fn question(&self, url: String, permission: Option<&'static str>) -> Question<'_> {
        Question {
            url,
            bucket: &self.bucket,
            server: &self.server,
            permission,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> StoreError {
        let server = self.server.clone();
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

/// The address that requests go to: with the bucket in the host's name where the store wants that.
fn address(endpoint: &str, bucket: &str, path_style: bool) -> Option<String> {
    let url = url::Url::parse(endpoint).ok()?;
    let (scheme, host) = (url.scheme(), url.host_str()?);
    if !matches!(scheme, "http" | "https") || url.path() != "/" || !url.username().is_empty() {
        return None;
    }
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    Some(if path_style {
        format!("{scheme}://{host}{port}")
    } else {
        format!("{scheme}://{bucket}.{host}{port}")
    })
}

/// As the API server has it checked, so that nothing else comes here.
fn bandwidth(quantity: &str) -> Option<i64> {
    i64::try_from(crate::units::quantity(quantity)?).ok()
}

fn certificates(bundle: &str) -> Result<Vec<reqwest::Certificate>, StoreError> {
    match reqwest::Certificate::from_pem_bundle(bundle.as_bytes()) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(StoreError::CaBundle),
    }
}

fn too_many(question: &Question<'_>) -> StoreError {
    StoreError::TooMany {
        url: question.url.clone(),
        most: PAGES * 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Allowance;

    fn store(endpoint: Option<&str>, path_style: bool) -> BackupStoreSpec {
        BackupStoreSpec {
            url: "s3://my-bucket".to_owned(),
            endpoint: endpoint.map(ToOwned::to_owned),
            region: "eu-central-1".to_owned(),
            path_style,
            ca_bundle: None,
            bandwidth_per_node: None,
            credentials_secret_ref: crds::backup_store::SecretRef {
                name: "keys".to_owned(),
            },
        }
    }

    fn access(store: &BackupStoreSpec) -> Result<Access, StoreError> {
        // A second test may have been first: all install the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let credentials = Credentials {
            access_key_id: "AKID".to_owned(),
            secret_access_key: "topsecret".to_owned(),
            session_token: None,
        };
        let addresses = Addresses::from(&Allowance {
            allow_store_network: vec!["127.0.0.0/8".parse().unwrap()],
        });
        Access::new(store, &credentials, "my-bucket", &addresses)
    }

    fn url() -> ObjectUrl {
        ObjectUrl::parse("s3://my-bucket/a/b c.tar.gz").unwrap()
    }

    #[tokio::test]
    async fn a_signed_url_names_object_version_and_lifetime_and_no_secret() {
        let access = access(&store(Some("http://127.0.0.1:7070/"), true)).unwrap();
        let signed = access
            .sign(&url(), Some("v 1"), Duration::from_secs(3600))
            .await
            .unwrap();
        let url = url::Url::parse(&signed.url).unwrap();
        assert_eq!(url.path(), "/my-bucket/a/b%20c.tar.gz");
        assert_eq!(url.port(), Some(7070));
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        assert!(query.contains(&("versionId".to_owned(), "v 1".to_owned())));
        assert!(query.contains(&("X-Amz-Expires".to_owned(), "3600".to_owned())));
        assert!(!signed.url.contains("topsecret"));
    }

    #[tokio::test]
    async fn the_bucket_goes_where_the_store_wants_it() {
        for (endpoint, path_style, start) in [
            (
                None,
                true,
                "https://s3.eu-central-1.amazonaws.com/my-bucket/a/",
            ),
            (
                None,
                false,
                "https://my-bucket.s3.eu-central-1.amazonaws.com/a/",
            ),
            (
                Some("https://s.example.com"),
                true,
                "https://s.example.com/my-bucket/a/",
            ),
            (
                Some("https://s.example.com"),
                false,
                "https://my-bucket.s.example.com/a/",
            ),
        ] {
            let access = access(&store(endpoint, path_style)).unwrap();
            let signed = access
                .sign(&url(), None, Duration::from_secs(60))
                .await
                .unwrap();
            assert!(signed.url.starts_with(start), "{start}: {}", signed.url);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_down_is_unreachable() {
        // Bound and closed at once: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let access = access(&store(Some(&endpoint), true)).unwrap();
        let error = access.look(&url(), None).await.unwrap_err();
        assert_eq!(error.reason(), "StoreUnreachable");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }

    #[tokio::test]
    async fn addresses_that_are_no_stores_are_refused() {
        for endpoint in [
            "http://169.254.169.254",
            "http://[::1]:9000",
            "http://[::ffff:a9fe:a9fe]",
        ] {
            let access = access(&store(Some(endpoint), true)).unwrap();
            let error = access.look(&url(), None).await.unwrap_err();
            assert_eq!(error.reason(), "EndpointDenied", "{endpoint}");
        }
    }

    #[tokio::test]
    async fn a_region_leads_nowhere_else() {
        let mut odd = store(None, true);
        odd.region = "@169.254.169.254/".to_owned();
        let access = access(&odd).unwrap();
        let error = access.look(&url(), None).await.unwrap_err();
        assert_eq!(error.reason(), "EndpointDenied", "{error}");
    }

    #[test]
    fn odd_endpoints_are_refused() {
        for endpoint in ["ftp://x", "http://x/path", "x", "http://u@x"] {
            let error = access(&store(Some(endpoint), true)).err().unwrap();
            assert_eq!(error.reason(), "EndpointInvalid", "{endpoint}");
        }
    }
}
