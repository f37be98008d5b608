//! Who may look through a listing. A store is the tenant's choice and may be slow or large, while few places of
//! work serve all: so a namespace looks through one listing at a time, and all through a few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::controller::refusal::Refusal;

/// Listings at a time.
const ALL: usize = 8;

/// For how long others are waited for: no longer than one look at an object may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The places.
#[derive(Debug)]
pub struct Listings {
    all: Arc<Semaphore>,
    of: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL)),
            of: Mutex::default(),
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_namespace: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Listings {
    /// A place for `namespace`, to look through what lies under `url`.
    pub(super) async fn place(&self, namespace: &str, url: &str) -> Result<Place, Refusal> {
        let own = self.of(namespace);
        let both = async {
            let of_namespace = own.acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place {
                _of_namespace: of_namespace,
                _of_all: of_all,
            })
        };
        let place = tokio::time::timeout(PATIENCE, both).await.ok().flatten();
        place.ok_or_else(|| Refusal::ListingBusy {
            url: url.to_owned(),
        })
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, semaphore| semaphore.strong_count() > 0);
        let known = of.get(namespace).and_then(Weak::upgrade);
        let semaphore = known.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
        of.insert(namespace.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_namespace_has_one_place_and_waits_for_no_other() {
        let listings = Listings::default();
        let first = listings.place("a", "s3://b/").await.unwrap();
        let _other = listings.place("b", "s3://b/").await.unwrap();
        let second = listings.place("a", "s3://b/");
        let mut second = std::pin::pin!(second);
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut second).await.is_err());
        drop(first);
        second.await.unwrap();
        let known = listings.of.lock().unwrap().len();
        assert!(known <= 2, "{known}");
    }

    #[tokio::test]
    async fn all_have_a_few() {
        let listings = Listings::default();
        let mut places = Vec::new();
        for namespace in 0..ALL {
            let namespace = namespace.to_string();
            places.push(listings.place(&namespace, "s3://b/").await.unwrap());
        }
        let soon = Duration::from_millis(50);
        let another = listings.place("another", "s3://b/");
        assert!(tokio::time::timeout(soon, another).await.is_err());
    }
}
