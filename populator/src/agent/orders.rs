//! Watches the orders of this node and gives each to a worker of its own.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use crds::restore_order::{OrderVolume, RestoreOrder};
use futures::TryStreamExt as _;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_orders};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::node::Node;
use super::record::Record;
use super::turns::{Turn, Turns};
use super::worker::{Sight, Surroundings, Worker};

/// The orders of one node, each with its worker.
pub struct Orders {
    node: Arc<Node>,
    api: Api<RestoreOrder>,
    fenced: watch::Receiver<bool>,
    stop: CancellationToken,
    turns: Turns<(String, String)>,
    /// Records whose orders have not been seen yet, with the turns that they hold: nobody else may
    /// begin with a volume that an earlier process has left, or fetch what it has fetched in part.
    remembered: HashMap<String, (Record, Turn, Option<Turn>)>,
    workers: HashMap<String, watch::Sender<Sight>>,
    tasks: TaskTracker,
}

impl Orders {
    /// The orders in `api`, carried out on `node`, with what it remembers of earlier ones.
    pub fn new(
        node: Arc<Node>,
        api: Api<RestoreOrder>,
        fenced: watch::Receiver<bool>,
        stop: CancellationToken,
        records: Vec<Record>,
    ) -> Self {
        let turns = Turns::default();
        let remembered = records
            .into_iter()
            .map(|record| {
                let turn = turns.take(volume(&record.volume));
                let goes_on = record.is_worth_keeping() && node.records.state(&record.uid).is_dir();
                let line = record.line.as_deref().filter(|_| goes_on);
                let line = line.map(|line| node.snapshots.line(line));
                (record.uid.clone(), (record, turn, line))
            })
            .collect();
        Self {
            node,
            api,
            fenced,
            stop,
            turns,
            remembered,
            workers: HashMap::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Watches until the end is asked for, and then returns the workers, which still clean up.
    pub async fn dispatch(mut self, node_name: &str) -> TaskTracker {
        let own = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
        let mut events = pin!(watch_orders(self.api.clone(), own).default_backoff());
        let mut listed = HashSet::new();
        let stop = self.stop.clone();
        while let Some(event) = stop.run_until_cancelled(events.try_next()).await {
            match event {
                Ok(Some(event)) => self.take(event, &mut listed),
                Ok(None) => break,
                Err(error) => tracing::warn!(%error, "the watch on orders begins again"),
            }
        }
        self.tasks.close();
        self.tasks
    }

    fn take(&mut self, event: Event<RestoreOrder>, listed: &mut HashSet<String>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(order) => {
                listed.insert(order.metadata.uid.clone().unwrap_or_default());
                self.seen(order);
            }
            Event::InitDone => self.all_listed(listed),
            Event::Apply(order) => self.seen(order),
            Event::Delete(order) => {
                if let Some(worker) = self
                    .workers
                    .get(order.metadata.uid.as_deref().unwrap_or(""))
                {
                    worker.send_replace(None);
                }
            }
        }
        self.workers.retain(|_, worker| !worker.is_closed());
    }

    fn seen(&mut self, order: RestoreOrder) {
        let uid = order.metadata.uid.clone().unwrap_or_default();
        if let Some(worker) = self.workers.get(&uid) {
            worker.send_if_modified(|sight| {
                // Most events are the echo of our own reports.
                let new = sight.as_ref().is_none_or(|known| known.spec != order.spec);
                if new {
                    *sight = Some(Arc::new(order));
                }
                new
            });
            return;
        }
        let name = order.metadata.name.clone().unwrap_or_default();
        let (record, turn, line) = match self.remembered.remove(&uid) {
            Some((record, turn, line)) => (Some(record), turn, line),
            None => (None, self.turns.take(volume(&order.spec.volume)), None),
        };
        let worker = self.worker(&uid, &name, Some(Arc::new(order)), record);
        self.tasks.spawn(worker.run(turn, line));
    }

    /// What is in no list is gone.
    fn all_listed(&mut self, listed: &HashSet<String>) {
        for (uid, worker) in &self.workers {
            if !listed.contains(uid) {
                worker.send_replace(None);
            }
        }
        for (uid, (record, turn, _)) in std::mem::take(&mut self.remembered) {
            let name = record.order.clone();
            let worker = self.worker(&uid, &name, None, Some(record));
            self.tasks.spawn(worker.run(turn, None));
        }
    }

    fn worker(&mut self, uid: &str, name: &str, sight: Sight, record: Option<Record>) -> Worker {
        let (sender, sight) = watch::channel(sight);
        let around = Surroundings {
            sight,
            fenced: self.fenced.clone(),
            stop: self.stop.clone(),
        };
        let (node, api) = (Arc::clone(&self.node), self.api.clone());
        self.workers.insert(uid.to_owned(), sender);
        Worker::new(node, api, name, around, record)
    }
}

/// Which volume: the driver's name and the volume's.
fn volume(volume: &OrderVolume) -> (String, String) {
    (volume.driver.clone(), volume.name.clone())
}
