//! What the controller itself runs as at a cloud: web identity, a container's or a machine's role, the default
//! credentials of an application. They serve the namespaces that the administrator lists, and go to the clouds'
//! own servers only.
//!
//! Where they come from (the service of metadata, those of tokens) is the administrator's, so that no list of
//! addresses is asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AwsCredentialProvider};
use object_store::azure::{AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::gcp::{
    GcpCredentialProvider, GcpSigningCredentialProvider, GoogleCloudStorageBuilder,
};
use object_store::{Error, RetryConfig};

/// For how long a URL is signed by them. They are renewed when five minutes are left of them, and a URL dies
/// with what it was signed by.
pub(super) const LIFETIME: Duration = Duration::from_secs(300);

/// A restore waits, and is looked at again later.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
        ..RetryConfig::default()
    }
}

/// Nothing is asked of a bucket of this name: it is what the builders want.
const NO_BUCKET: &str = "none";

type Google = (GcpCredentialProvider, GcpSigningCredentialProvider);

#[derive(Default)]
struct Providers {
    amazon: Option<AwsCredentialProvider>,
    google: Option<Google>,
    azure: Option<AzureCredentialProvider>,
}

/// The controller's own credentials, and for whom they are. They are kept until they are old, for all stores.
#[derive(Clone, Default)]
pub struct Ambient {
    namespaces: Arc<[String]>,
    providers: Arc<Mutex<Providers>>,
}

impl Ambient {
    /// Credentials that serve these namespaces.
    pub fn new(namespaces: &[String]) -> Self {
        Self {
            namespaces: namespaces.into(),
            ..Self::default()
        }
    }

    /// Whether they serve a namespace.
    pub fn serves(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|listed| listed == namespace)
    }

    pub(super) fn amazon(&self) -> Result<AwsCredentialProvider, Error> {
        self.kept(
            |providers| &mut providers.amazon,
            || {
                let builder = AmazonS3Builder::from_env().with_bucket_name(NO_BUCKET);
                let store = builder.with_retry(retries()).build()?;
                Ok(Arc::clone(store.credentials()))
            },
        )
    }

    pub(super) fn google(&self) -> Result<Google, Error> {
        self.kept(
            |providers| &mut providers.google,
            || {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(NO_BUCKET);
                let store = builder.with_retry(retries()).build()?;
                let signing = Arc::clone(store.signing_credentials());
                Ok((Arc::clone(store.credentials()), signing))
            },
        )
    }

    pub(super) fn azure(&self) -> Result<AzureCredentialProvider, Error> {
        self.kept(
            |providers| &mut providers.azure,
            || {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_account(NO_BUCKET)
                    .with_container_name(NO_BUCKET);
                let store = builder.with_retry(retries()).build()?;
                Ok(Arc::clone(store.credentials()))
            },
        )
    }

    fn kept<T: Clone>(
        &self,
        of: impl Fn(&mut Providers) -> &mut Option<T>,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut providers = self
            .providers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = of(&mut providers);
        if let Some(kept) = kept {
            return Ok(kept.clone());
        }
        let made = make()?;
        *kept = Some(made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_served_who_is_not_listed() {
        assert!(!Ambient::default().serves("team"));
        let listed = Ambient::new(&["team".to_owned()]);
        assert!(listed.serves("team") && !listed.serves("teammate") && !listed.serves(""));
    }
}
