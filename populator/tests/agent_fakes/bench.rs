//! An order being carried out, among fakes.

use std::sync::Arc;
use std::time::Duration;

use crds::restore_order::{Cure, RestoreOrder, RestoreOrderStatus};
use populator::agent::attempt::Attempt;
use populator::agent::failure::AttemptError;
use populator::agent::metrics::Metrics;
use populator::agent::node::Node;
use populator::agent::record::{Record, Records};
use populator::agent::registry::Drivers;
use populator::agent::snapshots::{Kept, Snapshots};
use populator::agent::source::{Clients, Limits};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::driver::{self, Driver, Fault};
use super::store::Store;
use super::{access, archive, nearby, order};

/// The ETag of the archive.
pub const ETAG: &str = "\"pinned\"";
pub const MIB: u64 = 1 << 20;
/// A driver, a store, and an order for a volume.
pub struct Bench {
    pub driver: Driver,
    pub store: Store,
    pub node: Node,
    pub order: RestoreOrder,
    pub work: tempfile::TempDir,
    pub status: watch::Sender<RestoreOrderStatus>,
    pub record: Option<Record>,
    pub copy: Option<Kept>,
}

impl Bench {
    pub async fn new(fault: Fault) -> Self {
        Self::sized(fault, 64 * MIB, 300_000).await
    }

    /// A driver whose volumes hold `room` bytes, and an archive of `bytes`.
    pub async fn sized(fault: Fault, room: u64, bytes: usize) -> Self {
        let driver = Driver::start(fault, room);
        let object = super::tar(bytes);
        let size = object.len();
        let store = Store::start(object, ETAG).await;
        let work = tempfile::tempdir().unwrap();
        let drivers = Drivers::new([].into(), driver.registry(), Duration::from_secs(10));
        let mut node = Node::new(
            Records::open(work.path()).unwrap(),
            Snapshots::open(work.path()).unwrap(),
            Arc::new(drivers),
            Clients::new(Limits::default(), nearby(), None).unwrap(),
            4,
            Metrics::default(),
        );
        node.patience = driver::PATIENCE;
        let order = order(archive(size, ETAG), access(&store.url("s"), 600));
        Self {
            driver,
            store,
            node,
            order,
            work,
            status: watch::Sender::new(RestoreOrderStatus::default()),
            record: None,
            copy: None,
        }
    }

    pub async fn fill(&mut self) -> Result<(), AttemptError> {
        self.fill_until(CancellationToken::new()).await
    }

    pub async fn fill_until(&mut self, cancel: CancellationToken) -> Result<(), AttemptError> {
        let (_renew, access) = watch::channel(self.order.spec.access.clone());
        let attempt = Attempt {
            node: &self.node,
            order: &self.order,
            access,
            status: &self.status,
            fetched_before: 7,
            copy: self.copy.clone(),
            cancel,
        };
        attempt.fill(&mut self.record).await
    }

    pub async fn failure(&mut self) -> (String, Cure) {
        let failure = self.fill().await.unwrap_err().failure();
        (failure.reason, failure.cure)
    }

    /// Nothing is mounted, and of the order there is the record alone.
    pub fn assert_clean(&self) {
        assert_eq!(driver::mounts(self.work.path()), Vec::<String>::new());
        let folder = self.node.records.folder("order-uid");
        let left: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["record.json"]);
        let read = self.node.records.load().unwrap();
        assert_eq!(
            read.first(),
            self.record.as_ref(),
            "the disk has what the process knows"
        );
    }
}
