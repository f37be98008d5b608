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
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig,
};

use super::{ObjectUrl, StoreError};

/// How URLs of objects in S3 begin.
const S3_SCHEME: &str = "s3://";

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
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] StoreError),
    /// Of a kind that is not read.
    #[error("{url}: URLs of that kind are not read; write s3://BUCKET/KEY, file:///PATH or a path")]
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
pub struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    meta: ObjectMeta,
    /// Whether an answer is of one object to its end. A file may be written to meanwhile, so that each of
    /// its ranges is looked at anew.
    is_remote: bool,
}

impl Object {
    /// Opens what `url` names: `s3://BUCKET/KEY`, `file:///PATH`, or a path.
    pub async fn open(url: &str, s3: &S3) -> Result<Self, OpenError> {
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
        Ok(Self {
            store,
            path,
            meta,
            is_remote: url.starts_with(S3_SCHEME),
        })
    }

    /// What the store says of its content, where it says so.
    pub fn etag(&self) -> Option<&str> {
        self.meta.e_tag.as_deref()
    }

    /// Its version, where the bucket keeps versions.
    pub fn version(&self) -> Option<&str> {
        self.meta.version.as_deref()
    }

    async fn get(&self, range: Range<u64>) -> Result<GetResult, SourceError> {
        let mut options = GetOptions::default().with_range(Some(range));
        options.if_match.clone_from(&self.meta.e_tag);
        options.version.clone_from(&self.meta.version);
        let answer = self.store.get_opts(&self.path, options).await;
        answer.map_err(|error| refusal(&error))
    }

    /// When it was last written, to the second.
    pub fn modified(&self) -> Timestamp {
        let seconds = self.meta.last_modified.timestamp();
        Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl Source for Object {
    fn length(&self) -> u64 {
        self.meta.size
    }

    fn identity(&self) -> Option<String> {
        identity(self.etag(), self.version())
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        async move {
            let answer = self.get(range).await?;
            answer.bytes().await.map_err(|error| refusal(&error))
        }
        .boxed()
    }

    fn stream(&self, range: Range<u64>) -> Option<BoxStream<'_, Result<Bytes, SourceError>>> {
        let answer = self.get(range).map_ok(|answer| {
            let body = answer.into_stream();
            body.map_err(|error| refusal(&error))
        });
        self.is_remote.then(|| answer.try_flatten_stream().boxed())
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
    if url.starts_with(S3_SCHEME) {
        bucket(url, s3, retry)
    } else if let Some(path) = url.strip_prefix("file://") {
        file(url, FilePath::new(path))
    } else if url.contains("://") {
        Err(OpenError::Scheme {
            url: url.to_owned(),
        })
    } else {
        file(url, FilePath::new(url))
    }
}

fn bucket(
    url: &str,
    s3: &S3,
    retry: RetryConfig,
) -> Result<(Arc<dyn ObjectStore>, Path), OpenError> {
    let object = ObjectUrl::parse(url)?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&object.bucket)
        .with_region(&s3.region)
        .with_skip_signature(s3.anonymous)
        .with_retry(retry);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    let settings = |why: String| OpenError::Settings {
        url: url.to_owned(),
        why,
    };
    let store = builder.build().map_err(|error| settings(said(&error)))?;
    let path = Path::parse(&object.key).map_err(|error| settings(error.to_string()))?;
    Ok((Arc::new(store), path))
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
            ("s3://bucket", "does not name an object"),
        ] {
            let error = Object::open(url, &nowhere()).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
