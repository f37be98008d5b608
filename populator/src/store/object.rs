//! One object, opened with the credentials of whoever runs the program, and read in ranges.

use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use archive::{Source, SourceError, SourceErrorKind};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig,
};

use super::web::Web;
use super::{ObjectUrl, Scheme, StoreError, shown};

/// How an S3 server is spoken to.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Where it is not Amazon's.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Whether requests are not signed.
    pub anonymous: bool,
}

/// Why an object cannot be opened.
#[derive(thiserror::Error, Debug)]
pub enum OpenError {
    /// The URL is not one, or the web server does not give the object out.
    #[error(transparent)]
    Url(#[from] StoreError),
    /// No HTTPS client can be made.
    #[error("nothing can be read by HTTPS: {0}; install the certificates of public authorities")]
    Https(#[from] reqwest::Error),
    /// Of a kind that is not read, or not written.
    #[error(
        "{url}: URLs of that kind are not read, or not written; write s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, file:///PATH or a path, or to read https://HOST/PATH"
    )]
    Scheme {
        /// As written.
        url: String,
    },
    /// The settings make no sense together.
    #[error("{url} cannot be opened: {why}; check endpoint, region and credentials")]
    Settings {
        /// The object.
        url: String,
        /// What the client said.
        why: String,
    },
    /// An object is to be made, and there is one.
    #[error("{url} is there already; choose another name, or allow with --overwrite to replace it")]
    Exists {
        /// The object.
        url: String,
    },
    /// There is no such object.
    #[error("{url} does not exist; upload it or correct the URL")]
    Missing {
        /// The object.
        url: String,
    },
    /// The store does not let it be read, or does not answer.
    #[error("{url} cannot be read: {why}; check endpoint, region and credentials")]
    Refused {
        /// The object.
        url: String,
        /// What the store said.
        why: String,
    },
}

/// One exact object: another in its place is an error and never read.
#[derive(Debug)]
pub struct Object(Held);

/// By what it is read.
#[derive(Debug)]
enum Held {
    Stored(Stored),
    Web(Box<Web>),
}

/// In a store, or a file.
#[derive(Debug)]
struct Stored {
    store: Arc<dyn ObjectStore>,
    path: Path,
    meta: ObjectMeta,
    /// Whether an answer is of one object to its end. A file may be written to meanwhile, so that each of
    /// its ranges is looked at anew.
    is_remote: bool,
}

impl Object {
    /// Opens what `url` names: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `az://CONTAINER/KEY`,
    /// `https://HOST/PATH`, `file:///PATH`, or a path.
    pub async fn open(url: &str, s3: &S3) -> Result<Self, OpenError> {
        let scheme = Scheme::of(url);
        if scheme == Some(Scheme::Https) {
            return Ok(Self(Held::Web(Box::new(Web::open(url).await?))));
        }
        // The engine asks again, for as long as it is told to.
        let once = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let (store, path) = locate(url, s3, once)?;
        let meta = store.head(&path).await.map_err(|error| match error {
            Error::NotFound { .. } => OpenError::Missing {
                url: url.to_owned(),
            },
            error => OpenError::Refused {
                url: url.to_owned(),
                why: said(&error),
            },
        })?;
        Ok(Self(Held::Stored(Stored {
            store,
            path,
            meta,
            is_remote: !matches!(scheme, Some(Scheme::File) | None),
        })))
    }

    /// What the store says of its content, where it says so.
    pub fn etag(&self) -> Option<&str> {
        match &self.0 {
            Held::Stored(stored) => stored.meta.e_tag.as_deref(),
            Held::Web(web) => web.found.etag.as_deref(),
        }
    }

    /// Its version, where the bucket keeps versions.
    pub fn version(&self) -> Option<&str> {
        match &self.0 {
            Held::Stored(stored) => stored.meta.version.as_deref(),
            Held::Web(_) => None,
        }
    }

    /// When it was last written, to the second.
    pub fn modified(&self) -> Timestamp {
        let written = match &self.0 {
            Held::Stored(stored) => {
                let seconds = stored.meta.last_modified.timestamp();
                Timestamp::from_second(seconds).ok()
            }
            Held::Web(web) => web.found.last_modified,
        };
        written.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl Stored {
    async fn get(&self, range: Range<u64>) -> Result<GetResult, SourceError> {
        let mut options = GetOptions::default().with_range(Some(range));
        options.if_match.clone_from(&self.meta.e_tag);
        options.version.clone_from(&self.meta.version);
        let answer = self.store.get_opts(&self.path, options).await;
        answer.map_err(|error| refusal(&error))
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, SourceError> {
        let answer = self.get(range).await?;
        answer.bytes().await.map_err(|error| refusal(&error))
    }

    fn stream(&self, range: Range<u64>) -> Option<BoxStream<'_, Result<Bytes, SourceError>>> {
        let answer = self.get(range).map_ok(|answer| {
            let body = answer.into_stream();
            body.map_err(|error| refusal(&error))
        });
        self.is_remote.then(|| answer.try_flatten_stream().boxed())
    }
}

impl Source for Object {
    fn length(&self) -> u64 {
        match &self.0 {
            Held::Stored(stored) => stored.meta.size,
            Held::Web(web) => web.source.length(),
        }
    }

    fn identity(&self) -> Option<String> {
        match &self.0 {
            Held::Stored(_) => identity(self.etag(), self.version()),
            Held::Web(web) => web.source.identity(),
        }
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        match &self.0 {
            Held::Stored(stored) => stored.read(range).boxed(),
            Held::Web(web) => web.source.read_at(range),
        }
    }

    fn stream(&self, range: Range<u64>) -> Option<BoxStream<'_, Result<Bytes, SourceError>>> {
        match &self.0 {
            Held::Stored(stored) => stored.stream(range),
            Held::Web(web) => web.source.stream(range),
        }
    }
}

/// What tells an object from others of its name: an ETag alone may come again, a version may be "null".
pub(crate) fn identity(etag: Option<&str>, version: Option<&str>) -> Option<String> {
    ((etag, version) != (None, None)).then(|| format!("{etag:?} {version:?}"))
}

/// The store that a URL names, and the place in it.
pub(super) fn locate(
    url: &str,
    s3: &S3,
    retry: RetryConfig,
) -> Result<(Arc<dyn ObjectStore>, Path), OpenError> {
    match Scheme::of(url) {
        Some(Scheme::S3 | Scheme::Gs | Scheme::Az) => bucket(url, s3, retry),
        Some(Scheme::File) => {
            let path = url.strip_prefix(Scheme::File.prefix()).unwrap_or(url);
            file(url, FilePath::new(path))
        }
        None if !url.contains("://") => file(url, FilePath::new(url)),
        Some(Scheme::Https) | None => Err(OpenError::Scheme { url: shown(url) }),
    }
}

fn bucket(
    url: &str,
    s3: &S3,
    retry: RetryConfig,
) -> Result<(Arc<dyn ObjectStore>, Path), OpenError> {
    let object = ObjectUrl::parse(url)?;
    let settings = |why: String| OpenError::Settings {
        url: url.to_owned(),
        why,
    };
    let built: Result<Arc<dyn ObjectStore>, Error> = match object.scheme {
        Scheme::Gs => GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(&object.bucket)
            .with_skip_signature(s3.anonymous)
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        Scheme::Az => azure()
            .with_container_name(&object.bucket)
            .with_skip_signature(s3.anonymous)
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        Scheme::S3 | Scheme::Https | Scheme::File => {
            amazon(&object.bucket, s3, retry).map(|store| Arc::new(store) as _)
        }
    };
    let store = built.map_err(|error| settings(said(&error)))?;
    let path = Path::parse(&object.key).map_err(|error| settings(error.to_string()))?;
    Ok((store, path))
}

fn amazon(bucket: &str, s3: &S3, retry: RetryConfig) -> Result<AmazonS3, Error> {
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_region(&s3.region)
        .with_skip_signature(s3.anonymous)
        .with_retry(retry);
    let builder = match &s3.endpoint {
        Some(endpoint) => builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://")),
        None => builder,
    };
    builder.build()
}

/// With the names of variables that Azure's own tools have, too.
fn azure() -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env();
    if let Ok(account) = std::env::var("AZURE_STORAGE_ACCOUNT") {
        builder = builder.with_account(account);
    }
    if let Ok(key) = std::env::var("AZURE_STORAGE_KEY") {
        builder = builder.with_access_key(key);
    }
    builder
}

fn file(url: &str, path: &FilePath) -> Result<(Arc<dyn ObjectStore>, Path), OpenError> {
    let refused = |why: String| OpenError::Refused {
        url: url.to_owned(),
        why,
    };
    // The file itself may be about to be made.
    let name = path
        .file_name()
        .ok_or_else(|| refused("it is a directory".to_owned()))?;
    let folder = match path.parent() {
        Some(parent) if parent != FilePath::new("") => parent,
        _ => FilePath::new("."),
    };
    let folder: PathBuf = folder.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => OpenError::Missing {
            url: url.to_owned(),
        },
        _ => refused(error.to_string()),
    })?;
    let path =
        Path::from_absolute_path(folder.join(name)).map_err(|error| refused(error.to_string()))?;
    Ok((Arc::new(LocalFileSystem::new()), path))
}

pub(super) fn refusal(error: &Error) -> SourceError {
    let kind = match error {
        Error::NotFound { .. } => SourceErrorKind::NotFound,
        Error::Precondition { .. } | Error::NotModified { .. } => SourceErrorKind::Changed,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => SourceErrorKind::Denied,
        Error::Generic { .. } => SourceErrorKind::Unavailable,
        _ => SourceErrorKind::Other,
    };
    SourceError::new(kind, said(error))
}

/// The last cause says what happened; what is above it says that something did.
pub(super) fn said(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> S3 {
        S3 {
            endpoint: None,
            region: "us-east-1".to_owned(),
            anonymous: true,
        }
    }

    #[tokio::test]
    async fn a_file_is_an_object_that_may_not_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("an archive.tar");
        std::fs::write(&path, b"0123456789").unwrap();
        for url in [
            format!("file://{}", path.display()),
            path.display().to_string(),
        ] {
            let object = Object::open(&url, &nowhere()).await.unwrap();
            assert_eq!(object.length(), 10);
            assert_eq!(&object.read_at(2..5).await.unwrap()[..], b"234");
        }
        let object = Object::open(path.to_str().unwrap(), &nowhere())
            .await
            .unwrap();
        std::fs::write(&path, b"another, and longer").unwrap();
        let error = object.read_at(2..5).await.unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Changed, "{error}");
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_said() {
        for (url, expected) in [
            ("/nowhere/archive.tar", "does not exist"),
            ("ftp://host/archive.tar", "are not read"),
            ("s3://bucket", "does not name an archive"),
            ("https://host/folder/", "cannot be listed"),
        ] {
            let error = Object::open(url, &nowhere()).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
