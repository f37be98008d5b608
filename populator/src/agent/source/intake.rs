//! What comes in of an archive: counted, and no faster than the node and the store may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crds::restore_order::SignedAccess;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::Clients;
use super::pace::Pace;

/// How an archive may be read at the time, and how much of it was.
#[derive(Debug)]
pub struct Intake {
    pub(super) clients: Arc<Clients>,
    /// Of the store.
    pace: Arc<Pace>,
    pub(super) access: watch::Receiver<SignedAccess>,
    fetched: Arc<AtomicU64>,
    counter: Counter,
}

impl Intake {
    /// From `store`, whatever that is called, by what `access` holds at the time. The counter lives on.
    pub fn new(
        clients: Arc<Clients>,
        store: &str,
        access: watch::Receiver<SignedAccess>,
        counter: Counter,
    ) -> Self {
        Self {
            pace: clients.paces.store(store),
            clients,
            access,
            fetched: Arc::default(),
            counter,
        }
    }

    /// Bytes received so far, those of broken answers included.
    pub fn fetched(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.fetched)
    }

    /// Counts what was received, and waits until no more is read than may be.
    pub(super) async fn pass(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.counter.inc_by(bytes);
        let rate = self.access.borrow().bytes_per_second;
        if let Some(rate) = rate.and_then(|rate| u64::try_from(rate).ok()) {
            self.pace.pass(bytes, rate).await;
        }
        self.clients.paces.pass(bytes).await;
    }
}
