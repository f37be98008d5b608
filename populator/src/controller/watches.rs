//! The watches: what they show, and whom their changes concern.

mod changes;
mod routes;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crds::{BackupStore, RestoreOrder, VolumeBackup, VolumeRestore};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::context::Key;
use super::grants::ReferenceGrant;
use super::leftover;
use super::memory::Memory;
use super::prime::{self, Attachment, PrimeClaim, Sight};
use super::queue::Queue;
use changes::watch;

/// What the watches show.
#[derive(Clone)]
pub struct Stores {
    claims: Store<PersistentVolumeClaim>,
    restores: Store<VolumeRestore>,
    orders: Store<RestoreOrder>,
    backups: Store<VolumeBackup>,
    places: Store<BackupStore>,
    classes: Store<StorageClass>,
    leases: Store<Lease>,
    primes: Store<PersistentVolumeClaim>,
    attachments: Store<VolumeAttachment>,
    grants: Store<ReferenceGrant>,
}

/// What is watched, of what not everybody has.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The populator's namespace.
    pub namespace: &'a str,
    /// Whether ReferenceGrants count.
    pub grants: bool,
}

/// Starts all watches. Their changes go into `queue`; `tasks` holds them.
pub fn start(
    client: &Client,
    watched: &Watched<'_>,
    queue: &Arc<Queue<Key>>,
    memory: &Arc<Memory>,
    tasks: &mut JoinSet<()>,
) -> Stores {
    let (shown, writers) = stores();
    let routes = routes::Routes {
        stores: shown.clone(),
        queue: Arc::clone(queue),
        memory: Arc::clone(memory),
    };

    let namespace = watched.namespace;
    let all = Config::default;
    let ours = || Config::default().labels(prime::CLAIM);
    let claims = Api::all(client.clone());
    tasks.spawn(watch(claims, all(), writers.claims, routes.clone()));
    let restores = Api::all(client.clone());
    tasks.spawn(watch(restores, all(), writers.restores, routes.clone()));
    let backups = Api::all(client.clone());
    tasks.spawn(watch(backups, all(), writers.backups, routes.clone()));
    let places = Api::all(client.clone());
    tasks.spawn(watch(places, all(), writers.places, routes.clone()));
    let classes = Api::all(client.clone());
    tasks.spawn(watch(classes, all(), writers.classes, routes.clone()));
    let orders = Api::namespaced(client.clone(), namespace);
    tasks.spawn(watch(orders, all(), writers.orders, routes.clone()));
    let leases = Api::namespaced(client.clone(), namespace);
    tasks.spawn(watch(leases, all(), writers.leases, routes.clone()));
    let primes = Api::namespaced(client.clone(), namespace);
    let route = routes::Primes(Arc::clone(queue));
    tasks.spawn(watch(primes, ours(), writers.primes, route));
    let attachments = Api::all(client.clone());
    tasks.spawn(watch(
        attachments,
        ours(),
        writers.attachments,
        routes.clone(),
    ));
    let queue = Arc::clone(queue);
    tasks.spawn(leftover::watch(client.clone(), namespace.to_owned(), queue));
    if watched.grants {
        let grants = Api::all(client.clone());
        tasks.spawn(watch(grants, all(), writers.grants, routes));
    }
    shown
}

/// What fills the stores.
struct Writers {
    claims: Writer<PersistentVolumeClaim>,
    restores: Writer<VolumeRestore>,
    orders: Writer<RestoreOrder>,
    backups: Writer<VolumeBackup>,
    places: Writer<BackupStore>,
    classes: Writer<StorageClass>,
    leases: Writer<Lease>,
    primes: Writer<PersistentVolumeClaim>,
    attachments: Writer<VolumeAttachment>,
    grants: Writer<ReferenceGrant>,
}

fn stores() -> (Stores, Writers) {
    let (claims, claim_writer) = reflector::store();
    let (restores, restore_writer) = reflector::store();
    let (orders, order_writer) = reflector::store();
    let (backups, backup_writer) = reflector::store();
    let (places, place_writer) = reflector::store();
    let (classes, class_writer) = reflector::store();
    let (leases, lease_writer) = reflector::store();
    let (primes, prime_writer) = reflector::store();
    let (attachments, attachment_writer) = reflector::store();
    let (grants, grant_writer) = reflector::store();
    let stores = Stores {
        claims,
        restores,
        orders,
        backups,
        places,
        classes,
        leases,
        primes,
        attachments,
        grants,
    };
    let writers = Writers {
        claims: claim_writer,
        restores: restore_writer,
        orders: order_writer,
        backups: backup_writer,
        places: place_writer,
        classes: class_writer,
        leases: lease_writer,
        primes: prime_writer,
        attachments: attachment_writer,
        grants: grant_writer,
    };
    (stores, writers)
}

impl Stores {
    /// Waits until every watch has shown what there is, that of ReferenceGrants apart: the cluster may not
    /// have them, and what it does not show is asked for.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        self.claims.wait_until_ready().await?;
        self.restores.wait_until_ready().await?;
        self.orders.wait_until_ready().await?;
        self.backups.wait_until_ready().await?;
        self.places.wait_until_ready().await?;
        self.classes.wait_until_ready().await?;
        self.leases.wait_until_ready().await?;
        self.primes.wait_until_ready().await?;
        self.attachments.wait_until_ready().await
    }

    /// A PVC that is to be filled from a VolumeBackup, or made from a snapshot or another PVC.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(&ObjectRef::new(name).within(namespace))
    }

    /// A VolumeRestore.
    pub fn restore(&self, namespace: &str, name: &str) -> Option<Arc<VolumeRestore>> {
        self.restores.get(&ObjectRef::new(name).within(namespace))
    }

    /// The order of that name in the populator's `namespace`.
    pub fn order(&self, namespace: &str, name: &str) -> Option<Arc<RestoreOrder>> {
        self.orders.get(&ObjectRef::new(name).within(namespace))
    }

    /// A VolumeBackup.
    pub fn backup(&self, namespace: &str, name: &str) -> Option<Arc<VolumeBackup>> {
        self.backups.get(&ObjectRef::new(name).within(namespace))
    }

    /// The BackupStores of a namespace.
    pub fn stores_of(&self, namespace: &str) -> Vec<Arc<BackupStore>> {
        self.places
            .state_filter(|store| store.metadata.namespace.as_deref() == Some(namespace))
    }

    /// The ReferenceGrants of a namespace.
    pub fn grants_of(&self, namespace: &str) -> Vec<Arc<ReferenceGrant>> {
        self.grants
            .state_filter(|grant| grant.metadata.namespace.as_deref() == Some(namespace))
    }

    /// A StorageClass.
    pub fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(&ObjectRef::new(name))
    }

    /// What was made in the populator's `namespace` and in the cluster for the PVC of this UID.
    pub fn made_for(&self, namespace: &str, uid: &str) -> Sight {
        let claim = ObjectRef::new(&prime::name(uid)).within(namespace);
        let is_its = |it: &&Arc<VolumeAttachment>| {
            let labels = it.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(prime::CLAIM))
                .is_some_and(|it| it == uid)
        };
        let attachments = self.attachments.state();
        let attachments = attachments
            .iter()
            .filter(is_its)
            .map(|it| Attachment::read(it));
        Sight {
            claim: self
                .primes
                .get(&claim)
                .map(|claim| PrimeClaim::read(&claim)),
            attachment: prime::foremost(attachments),
            ..Sight::default()
        }
    }

    /// The Leases of the populator's namespace.
    pub fn leases(&self) -> Vec<Arc<Lease>> {
        self.leases.state()
    }
}
