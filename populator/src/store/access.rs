//! What lies in stores, whatever kind they are of: looked at, listed, and made readable without credentials.

use std::time::Duration;

use crds::BackupStoreSpec;
use jiff::Timestamp;

use super::addresses::Addresses;
use super::ambient::Ambient;
use super::answer::Found;
use super::files::{FileRoot, Files};
use super::listing::{Entry, Version};
use super::server::Server;
use super::{Credentials, Location, ObjectUrl, PrefixUrl, Scheme, StoreError};

/// A look reads one byte, so a server that needs longer than this is not serving.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// A listing that takes longer is given up.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// Pages of 1,000 objects that are looked through.
pub(super) const PAGES: usize = 1000;

/// What the administrator lets stores be, and lends them.
#[derive(Clone, Default)]
pub struct Reach {
    /// Where servers may be.
    pub addresses: Addresses,
    /// Where files lie, if any are read.
    pub files: Option<FileRoot>,
    /// What the controller itself runs as.
    pub ambient: Ambient,
}

/// A URL that reads one object without credentials, for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    /// The URL: whoever has it can read the object. Of a file, where it lies under the administrator's
    /// directory.
    pub url: String,
    /// When that was.
    pub signed: Timestamp,
    /// When it stops working.
    pub expires: Timestamp,
    /// Certificates in PEM by which the server is trusted, in place of the public authorities.
    pub ca_bundle: Option<String>,
    /// The most that a node may read from the store, in bytes a second.
    pub bytes_per_second: Option<i64>,
}

/// One bucket in one store, one object of a web server, or the files of a namespace.
pub struct Access(Kind);

enum Kind {
    Server(Box<Server>),
    Files(Files),
}

impl Access {
    /// Prepares to read what `location` names for a namespace. Nothing is sent yet.
    pub fn new(
        location: &Location,
        namespace: &str,
        store: Option<&BackupStoreSpec>,
        credentials: &Credentials,
        reach: &Reach,
    ) -> Result<Self, StoreError> {
        Ok(Self(match (location.scheme(), &reach.files) {
            (Scheme::File, Some(root)) => {
                Kind::Files(Files::new(root, namespace, store.and_then(bandwidth)))
            }
            (Scheme::File, None) => {
                return Err(StoreError::FilesDisabled {
                    url: location.to_string(),
                });
            }
            _ => Kind::Server(Box::new(Server::new(location, store, credentials, reach)?)),
        }))
    }

    /// Looks at an object, as it is now or as that version.
    pub async fn look(&self, url: &ObjectUrl, version: Option<&str>) -> Result<Found, StoreError> {
        match &self.0 {
            Kind::Server(server) => server.look(url, version).await,
            Kind::Files(files) => files.look(url).await,
        }
    }

    /// Shows `each` of the objects under a prefix, as they are now.
    pub async fn list(
        &self,
        prefix: &PrefixUrl,
        each: impl FnMut(Entry),
    ) -> Result<(), StoreError> {
        match &self.0 {
            Kind::Server(server) => server.list(prefix, each).await,
            Kind::Files(files) => files.list(prefix, each).await,
        }
    }

    /// Shows `each` of what the store has kept of an object, deletions too: the newest first of each kind.
    /// Only of servers that speak S3 it is known how to ask.
    pub async fn versions(
        &self,
        url: &ObjectUrl,
        each: impl FnMut(Version),
    ) -> Result<(), StoreError> {
        match &self.0 {
            Kind::Server(server) if url.scheme == Scheme::S3 => server.versions(url, each).await,
            Kind::Server(_) | Kind::Files(_) => Ok(()),
        }
    }

    /// `listing`, as long as it may take.
    pub async fn in_time<T>(
        &self,
        listing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(LISTING_TIMEOUT, listing).await;
        done.unwrap_or_else(|_| {
            Err(match &self.0 {
                Kind::Server(server) => server.late(),
                Kind::Files(_) => Files::late(),
            })
        })
    }

    /// Signs a URL that reads the object (of that version) for `lifetime`, or less where the credentials live
    /// no longer.
    pub async fn sign(
        &self,
        url: &ObjectUrl,
        version: Option<&str>,
        lifetime: Duration,
    ) -> Result<SignedUrl, StoreError> {
        match &self.0 {
            Kind::Server(server) => server.sign(url, version, lifetime).await,
            Kind::Files(files) => Ok(files.sign(url, lifetime)),
        }
    }
}

/// As the API server has it checked, so that nothing else comes here.
pub(super) fn bandwidth(store: &BackupStoreSpec) -> Option<i64> {
    let quantity = store.bandwidth_per_node.as_deref()?;
    i64::try_from(crate::units::quantity(quantity)?).ok()
}
