//! Looking at one object, and signing URLs for it.

use std::error::Error as _;
use std::time::Duration;

use crds::BackupStoreSpec;
use http::Method;
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};

use super::answer::{Found, Question};
use super::{ObjectUrl, StoreError};

/// A look reads one byte, so a server that needs longer than this is not serving.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long the URL of a look is good.
const LOOK_LIFETIME: Duration = Duration::from_secs(60);

/// No error document is longer; more of an answer is not read.
const ANSWER_MAX: usize = 64 << 10;

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
}

/// One object in one store, with credentials.
pub struct Access {
    signer: AmazonS3,
    client: reqwest::Client,
    path: Path,
    url: ObjectUrl,
    server: String,
}

impl Access {
    /// Prepares to read `url` from the server that `store` describes. Nothing is sent yet.
    pub fn new(
        store: &BackupStoreSpec,
        credentials: &Credentials,
        url: &ObjectUrl,
    ) -> Result<Self, StoreError> {
        let signing = |why: &dyn std::fmt::Display| StoreError::Signing {
            url: url.to_string(),
            why: why.to_string(),
        };
        let endpoint = store.endpoint.as_deref().map(|endpoint| {
            address(endpoint, &url.bucket, store.path_style).ok_or_else(|| StoreError::Endpoint {
                endpoint: endpoint.to_owned(),
            })
        });
        let plain = store
            .endpoint
            .as_deref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&url.bucket)
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
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint?);
        }
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LOOK_TIMEOUT)
            // A redirect would leave the server that the BackupStore names.
            .redirect(reqwest::redirect::Policy::none());
        if plain {
            // No certificates need to be there where none are used.
            client = client.tls_certs_only([]);
        }
        Ok(Self {
            signer: builder.build().map_err(|error| signing(&error))?,
            client: client.build().map_err(|error| signing(&error))?,
            path: Path::parse(&url.key).map_err(|_| StoreError::Url {
                url: url.to_string(),
            })?,
            url: url.clone(),
            server: store.endpoint.as_deref().map_or_else(
                || format!("Amazon S3 in {}", store.region),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
        })
    }

    /// Looks at the object as it is now.
    pub async fn look(&self) -> Result<Found, StoreError> {
        let signed = self.sign(None, LOOK_LIFETIME).await?;
        let mut response = self
            .client
            .get(&signed.url)
            .header(http::header::RANGE, "bytes=0-0")
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let mut body = Vec::new();
        // The whole object, from a server that ignores Range, is nothing to read.
        if response.status() != http::StatusCode::OK {
            while let Some(chunk) = response
                .chunk()
                .await
                .map_err(|error| self.unreachable(&error))?
            {
                body.extend_from_slice(&chunk);
                if body.len() > ANSWER_MAX {
                    break;
                }
            }
        }
        Question {
            url: &self.url,
            server: &self.server,
        }
        .read(response.status(), response.headers(), &body)
    }

    /// Signs a URL that reads the object (of that version) for `lifetime`.
    pub async fn sign(
        &self,
        version: Option<&str>,
        lifetime: Duration,
    ) -> Result<SignedUrl, StoreError> {
        let options =
            SignedUrlOptions::default().with_query(version.map(|version| ("versionId", version)));
        let now = Timestamp::now();
        let url = self
            .signer
            .signed_url_opts(Method::GET, &self.path, lifetime, &options)
            .await
            .map_err(|error| StoreError::Signing {
                url: self.url.to_string(),
                why: error.to_string(),
            })?;
        Ok(SignedUrl {
            url: url.to_string(),
            expires: now + lifetime,
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> StoreError {
        let server = self.server.clone();
        if is_tls(error) {
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

fn is_tls(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<rustls::Error>() {
            return true;
        }
        // An io::Error's own source() skips the error that it wraps.
        let wrapped = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        source = match wrapped {
            Some(wrapped) => Some(wrapped as _),
            None => cause.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(endpoint: Option<&str>, path_style: bool) -> BackupStoreSpec {
        BackupStoreSpec {
            url: "s3://my-bucket".to_owned(),
            endpoint: endpoint.map(ToOwned::to_owned),
            region: "eu-central-1".to_owned(),
            path_style,
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
        let url = ObjectUrl::parse("s3://my-bucket/a/b c.tar.gz")?;
        Access::new(store, &credentials, &url)
    }

    #[tokio::test]
    async fn a_signed_url_names_object_version_and_lifetime_and_no_secret() {
        let access = access(&store(Some("http://127.0.0.1:7070/"), true)).unwrap();
        let signed = access
            .sign(Some("v 1"), Duration::from_secs(3600))
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
            let signed = access.sign(None, Duration::from_secs(60)).await.unwrap();
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
        let error = access.look().await.unwrap_err();
        assert_eq!(error.reason(), "StoreUnreachable");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }

    #[test]
    fn odd_endpoints_are_refused() {
        for endpoint in ["ftp://x", "http://x/path", "x", "http://u@x"] {
            let error = access(&store(Some(endpoint), true)).err().unwrap();
            assert_eq!(error.reason(), "EndpointInvalid", "{endpoint}");
        }
    }
}
