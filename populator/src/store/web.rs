//! What a web server gives out, for whoever runs the program: pinned and read as agents do.

use std::sync::Arc;

use crds::restore_order::SignedAccess;
use crds::volume_backup::ResolvedArchive;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::{
    Access, Addresses, Credentials, Found, Location, OpenError, Reach, SignedUrl, StoreError,
};
use crate::agent::source::{Clients, Intake, Limits, SignedSource};
use crate::units;

/// One exact object behind a URL.
#[derive(Debug)]
pub(super) struct Web {
    pub(super) found: Found,
    pub(super) source: SignedSource,
}

impl Web {
    /// Opens what a URL names, wherever its server is: it was written by who runs the program.
    pub(super) async fn open(url: &str) -> Result<Self, OpenError> {
        let location = Location::parse(url)?;
        let Location::Object(object) = &location else {
            return Err(StoreError::NoListing {
                url: location.to_string(),
            }
            .into());
        };
        let reach = Reach {
            addresses: Addresses::anywhere(),
            ..Reach::default()
        };
        let access = Access::new(&location, "", None, &Credentials::Unneeded, &reach)?;
        let found = access.look(object, None).await?;
        let lifetime = std::time::Duration::ZERO;
        let SignedUrl { url, signed, .. } = access.sign(object, None, lifetime).await?;
        let archive = archive(object.to_string(), &found);
        let clients = Clients::new(Limits::default(), reach.addresses, None)?;
        let (_, receiver) = watch::channel(SignedAccess {
            url,
            signed: Time(signed),
            // Nobody knows, but its server.
            expires: Time(jiff::Timestamp::MAX),
            ca_bundle: None,
            bytes_per_second: None,
        });
        let intake = Intake::new(Arc::new(clients), "", receiver, Counter::default());
        let source = SignedSource::new(&archive, intake).ok_or(StoreError::NoEtag {
            url: object.to_string(),
            server: object.bucket.clone(),
        })?;
        Ok(Self { found, source })
    }
}

/// An object as it is pinned.
pub(crate) fn archive(url: String, found: &Found) -> ResolvedArchive {
    ResolvedArchive {
        url,
        version: found.version.clone(),
        etag: found.etag.clone(),
        size: i64::try_from(found.size).unwrap_or(i64::MAX),
        human_size: units::bytes(found.size),
        last_modified: found.last_modified.map(Time),
    }
}
