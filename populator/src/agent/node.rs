//! What all orders of this node share.

use std::sync::Arc;
use std::time::Duration;

use archive::{Budget, Options};
use tokio::sync::Notify;

use super::metrics::Metrics;
use super::places::Places;
use super::plugin::{Patience, Plugin};
use super::record::Records;
use super::registry::Drivers;
use super::snapshots::Snapshots;
use super::source::Clients;
use super::volume::Pod;
use crate::seal::Key;
use crate::store::FileRoot;

/// Of what archives a restore notes how far it is, and how often: an attempt after one that came to no
/// good end goes on from there.
#[derive(Debug, Clone, Copy)]
pub struct Resumption {
    /// Bytes of the smallest archive: a smaller one is quickly fetched again, and a checkpoint takes the
    /// disk some time.
    pub from: u64,
    /// Bytes written from one checkpoint to the next, at most.
    pub bytes: u64,
    /// Time from one to the next, at most.
    pub time: Duration,
}

impl Default for Resumption {
    fn default() -> Self {
        Self {
            from: 64 << 20,
            bytes: 1 << 30,
            time: Duration::from_secs(30),
        }
    }
}

/// The means by which orders are carried out.
#[derive(Debug)]
pub struct Node {
    /// What this node remembers.
    pub records: Records,
    /// What it keeps of volumes that were filled.
    pub snapshots: Snapshots,
    /// Its CSI drivers.
    pub drivers: Arc<Drivers>,
    /// How long a driver is waited for.
    pub patience: Patience,
    /// What reads archives.
    pub clients: Arc<Clients>,
    /// Where archives lie that are files, if any are read.
    pub files: Option<FileRoot>,
    /// How archives are restored; the memory in it is shared.
    pub options: Options,
    /// Which restores can go on.
    pub resumption: Resumption,
    /// One for each volume that is filled at the same time.
    pub places: Arc<Places>,
    /// Told when room was taken or given back.
    pub room_changed: Notify,
    /// The pod that this is.
    pub pod: Pod,
    /// By which it opens what was sealed for it.
    pub key: Key,
    /// What is counted.
    pub metrics: Metrics,
}

impl Node {
    /// A node where `concurrency` volumes are filled at once.
    pub fn new(
        records: Records,
        snapshots: Snapshots,
        drivers: Arc<Drivers>,
        clients: Clients,
        concurrency: u16,
        metrics: Metrics,
    ) -> Self {
        Self {
            records,
            snapshots,
            drivers,
            patience: Patience::default(),
            clients: Arc::new(clients),
            files: None,
            // Who has its turn does not wait for memory.
            options: Options::new(Budget::of(concurrency)),
            resumption: Resumption::default(),
            places: Places::new(concurrency),
            room_changed: Notify::new(),
            pod: Pod::default(),
            key: Key::generate(),
            metrics,
        }
    }

    /// The driver of this name.
    pub fn plugin(&self, name: &str) -> Plugin {
        Plugin::new(
            Arc::clone(&self.drivers),
            name,
            self.patience,
            self.metrics.clone(),
        )
    }
}
