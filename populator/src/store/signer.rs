//! What makes URLs that read one object without credentials, for each kind of store.

use std::time::Duration;

use crds::BackupStoreSpec;
use http::{HeaderMap, Method};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::{AzureAuthorizer, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as SignsUrls};
use url::Url;

use super::ambient::{self, Ambient};
use super::location::shown;
use super::{Credentials, Location, Scheme, StoreError};

/// Longer than asking a cloud for credentials takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// One bucket in one store, for which URLs are signed.
pub(super) enum Signer {
    Amazon(Box<AmazonS3>),
    Google(Box<GoogleCloudStorage>),
    Azure {
        store: Box<MicrosoftAzure>,
        account: String,
        /// The container's own URL.
        container: Url,
    },
    /// Somebody else has signed the URL, or nobody has to.
    Given(String),
}

/// A request that may be sent: where to, and what says who asks.
pub(super) type Authorized = (String, HeaderMap);

/// What a signer is made of.
#[derive(Clone, Copy)]
struct Parts<'a> {
    location: &'a Location,
    store: &'a BackupStoreSpec,
    credentials: &'a Credentials,
    ambient: &'a Ambient,
}

impl Signer {
    /// Prepares to sign. Nothing is sent yet.
    pub(super) fn new(
        location: &Location,
        store: Option<&BackupStoreSpec>,
        credentials: &Credentials,
        ambient: &Ambient,
    ) -> Result<Self, StoreError> {
        let parts = store.map(|store| Parts {
            location,
            store,
            credentials,
            ambient,
        });
        match (location, parts) {
            (Location::Object(url), _) if !url.scheme.needs_credentials() => {
                Ok(Self::Given(url.whole()))
            }
            (_, Some(parts)) => match location.scheme() {
                Scheme::S3 => parts.amazon(),
                Scheme::Gs => parts.google(),
                Scheme::Az => parts.azure(),
                Scheme::Https | Scheme::File => Err(StoreError::NoListing {
                    url: location.to_string(),
                }),
            },
            (_, None) => Err(StoreError::Signing {
                url: location.to_string(),
                why: "no BackupStore says by what".to_owned(),
            }),
        }
    }

    /// A URL that reads the object `key`, or with an empty one the bucket, with these in its query.
    pub(super) async fn sign(
        &self,
        key: &str,
        query: Vec<(&'static str, String)>,
        lifetime: Duration,
    ) -> Result<String, SignError> {
        let path = Path::parse(key).map_err(|_| SignError::Key)?;
        let options = SignedUrlOptions::default().with_query(query);
        let store: &dyn SignsUrls = match self {
            Self::Amazon(store) => store.as_ref(),
            Self::Google(store) => store.as_ref(),
            Self::Azure { store, .. } => store.as_ref(),
            Self::Given(url) => return Ok(url.clone()),
        };
        let signed = store.signed_url_opts(Method::GET, &path, lifetime, &options);
        in_time(signed).await.map(String::from)
    }

    /// A request to list a part of the bucket.
    pub(super) async fn listing(
        &self,
        query: Vec<(&'static str, String)>,
        lifetime: Duration,
    ) -> Result<Authorized, SignError> {
        let Self::Azure {
            store,
            account,
            container,
        } = self
        else {
            let url = self.sign("", query, lifetime).await?;
            return Ok((url, HeaderMap::new()));
        };
        // A URL that is signed for a container would have to be of another form than those for its blobs.
        let mut url = container.clone();
        url.query_pairs_mut().extend_pairs(&query);
        let credential = in_time(store.credentials().get_credential()).await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(|_| SignError::Key)?;
        let authorizer = AzureAuthorizer::new(&credential, account);
        authorizer
            .try_authorize(&mut request)
            .map_err(SignError::Store)?;
        Ok((url.into(), std::mem::take(request.headers_mut())))
    }
}

/// Why a URL is not signed.
#[derive(Debug)]
pub(super) enum SignError {
    /// No URL can have the key.
    Key,
    /// The client said no.
    Store(object_store::Error),
    /// Whoever gives out credentials was silent.
    Silent,
}

async fn in_time<T>(
    signing: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, SignError> {
    match tokio::time::timeout(PATIENCE, signing).await {
        Ok(signed) => signed.map_err(SignError::Store),
        Err(_) => Err(SignError::Silent),
    }
}

impl Parts<'_> {
    fn amazon(&self) -> Result<Signer, StoreError> {
        let store = self.store;
        let builder = AmazonS3Builder::new()
            .with_bucket_name(self.location.bucket())
            .with_region(&store.region)
            .with_virtual_hosted_style_request(!store.path_style)
            .with_client_options(silent());
        let builder = match self.credentials {
            Credentials::Amazon {
                access_key_id,
                secret_access_key,
                session_token,
            } => {
                let builder = builder
                    .with_access_key_id(access_key_id)
                    .with_secret_access_key(secret_access_key);
                let builder = match session_token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                };
                let in_host = (!store.path_style).then(|| self.location.bucket());
                match self.endpoint(in_host)? {
                    Some(endpoint) => builder.with_endpoint(endpoint),
                    None => builder,
                }
            }
            // It becomes a part of a host's name, which has to stay Amazon's.
            Credentials::Ambient if is_name(&store.region) => {
                let provider = self.ambient.amazon();
                builder.with_credentials(provider.map_err(|it| self.no_ambient(&it))?)
            }
            Credentials::Ambient => return Err(self.wrong("the region is no name of one")),
            _ => return Err(self.wrong(OTHER_KEYS)),
        };
        let store = builder.build().map_err(|it| self.wrong(it))?;
        Ok(Signer::Amazon(Box::new(store)))
    }

    fn google(&self) -> Result<Signer, StoreError> {
        let builder = GoogleCloudStorageBuilder::new().with_bucket_name(self.location.bucket());
        let builder = match self.credentials {
            Credentials::Google(signing) => {
                let builder = builder
                    .with_signing_credentials(signing.clone())
                    // Nobody is asked for a token.
                    .with_bearer_token("")
                    .with_client_options(silent());
                match self.endpoint(None)? {
                    Some(endpoint) => builder.with_base_url(&endpoint),
                    None => builder,
                }
            }
            Credentials::Ambient => {
                let providers = self.ambient.google();
                let (asking, signing) = providers.map_err(|it| self.no_ambient(&it))?;
                builder
                    .with_credentials(asking)
                    .with_signing_credentials(signing)
                    .with_retry(ambient::retries())
            }
            _ => return Err(self.wrong(OTHER_KEYS)),
        };
        let store = builder.build().map_err(|it| self.wrong(it))?;
        Ok(Signer::Google(Box::new(store)))
    }

    fn azure(&self) -> Result<Signer, StoreError> {
        let bucket = self.location.bucket();
        // It becomes a part of a host's name.
        let account = self.store.account.as_ref().filter(|it| is_name(it));
        let account = account.ok_or_else(|| self.wrong("the BackupStore names no account"))?;
        let builder = MicrosoftAzureBuilder::new()
            .with_account(account)
            .with_container_name(bucket);
        let own = format!("https://{account}.blob.core.windows.net");
        let (builder, endpoint) = match self.credentials {
            Credentials::Azure(key) => {
                let path_style = self.store.path_style;
                let given = self.endpoint((!path_style).then_some(account.as_str()))?;
                let endpoint = match given {
                    Some(endpoint) if path_style => format!("{endpoint}/{account}"),
                    Some(endpoint) => endpoint,
                    None => own,
                };
                let builder = builder.with_access_key(key).with_client_options(silent());
                (builder, endpoint)
            }
            Credentials::Ambient => {
                let provider = self.ambient.azure();
                let builder = builder
                    .with_credentials(provider.map_err(|it| self.no_ambient(&it))?)
                    .with_retry(ambient::retries());
                (builder, own)
            }
            _ => return Err(self.wrong(OTHER_KEYS)),
        };
        let container = Url::parse(&format!("{endpoint}/{bucket}"));
        let store = builder.with_endpoint(endpoint).build();
        Ok(Signer::Azure {
            store: Box::new(store.map_err(|it| self.wrong(it))?),
            account: account.clone(),
            container: container.map_err(|it| self.wrong(it))?,
        })
    }

    /// The address that requests go to, with the bucket or account in the host's name where that is wanted.
    fn endpoint(&self, in_host: Option<&str>) -> Result<Option<String>, StoreError> {
        let Some(endpoint) = self.store.endpoint.as_deref() else {
            return Ok(None);
        };
        let address = address(endpoint, in_host);
        address.map(Some).ok_or_else(|| StoreError::Endpoint {
            endpoint: shown(endpoint),
        })
    }

    fn wrong(&self, why: impl std::fmt::Display) -> StoreError {
        StoreError::Signing {
            url: self.location.to_string(),
            why: why.to_string(),
        }
    }

    fn no_ambient(&self, error: &object_store::Error) -> StoreError {
        no_ambient(&self.location.to_string(), error)
    }
}

/// The Secret was read for a store of another kind.
const OTHER_KEYS: &str = "the keys are of another kind of store";

/// What went wrong stands in the log only: it may be of the cloud's own services.
pub(super) fn no_ambient(url: &str, error: &dyn std::fmt::Debug) -> StoreError {
    tracing::warn!(
        url,
        ?error,
        "the controller's own credentials could not be had"
    );
    StoreError::AmbientMissing {
        url: url.to_owned(),
    }
}

/// It only signs; the client that looks connects.
fn silent() -> ClientOptions {
    ClientOptions::new()
        .with_no_system_certificates(true)
        .with_allow_http(true)
}

/// Whether it is one part of a host's name.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_part)
}

fn address(endpoint: &str, in_host: Option<&str>) -> Option<String> {
    let url = Url::parse(endpoint).ok()?;
    let (scheme, host) = (url.scheme(), url.host_str()?);
    if !matches!(scheme, "http" | "https") || url.path() != "/" || !url.username().is_empty() {
        return None;
    }
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    Some(match in_host {
        Some(name) => format!("{scheme}://{name}.{host}{port}"),
        None => format!("{scheme}://{host}{port}"),
    })
}
