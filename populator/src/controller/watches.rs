//! The watches: what they show, and whom their changes concern.

mod changes;
mod routes;

use std::sync::Arc;

use crds::{BackupStore, RestoreOrder, VolumeBackup, VolumeRestore};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::runtime::reflector::{ObjectRef, Store, store::WriterDropped};
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::context::Key;
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
}

/// Starts all watches. Their changes go into `queue`; `tasks` holds them.
pub fn start(
    client: &Client,
    namespace: &str,
    queue: &Arc<Queue<Key>>,
    tasks: &mut JoinSet<()>,
) -> Stores {
    // What a route looks up in other stores, it finds there once all watches have begun.
    let (claims, claim_writer) = kube::runtime::reflector::store();
    let (restores, restore_writer) = kube::runtime::reflector::store();
    let (orders, order_writer) = kube::runtime::reflector::store();
    let (backups, backup_writer) = kube::runtime::reflector::store();
    let (places, place_writer) = kube::runtime::reflector::store();
    let (classes, class_writer) = kube::runtime::reflector::store();
    let (leases, lease_writer) = kube::runtime::reflector::store();
    let shown = Stores {
        claims,
        restores,
        orders,
        backups,
        places,
        classes,
        leases,
    };
    let routes = routes::Routes {
        stores: shown.clone(),
        queue: Arc::clone(queue),
    };

    tasks.spawn(watch(
        Api::all(client.clone()),
        claim_writer,
        routes.clone(),
    ));
    tasks.spawn(watch(
        Api::all(client.clone()),
        restore_writer,
        routes.clone(),
    ));
    tasks.spawn(watch(
        Api::all(client.clone()),
        backup_writer,
        routes.clone(),
    ));
    tasks.spawn(watch(
        Api::all(client.clone()),
        place_writer,
        routes.clone(),
    ));
    tasks.spawn(watch(
        Api::all(client.clone()),
        class_writer,
        routes.clone(),
    ));
    let orders = Api::namespaced(client.clone(), namespace);
    tasks.spawn(watch(orders, order_writer, routes.clone()));
    let leases = Api::namespaced(client.clone(), namespace);
    tasks.spawn(watch(leases, lease_writer, routes));
    shown
}

impl Stores {
    /// Waits until every watch has shown what there is.
    pub async fn ready(&self) -> Result<(), WriterDropped> {
        self.claims.wait_until_ready().await?;
        self.restores.wait_until_ready().await?;
        self.orders.wait_until_ready().await?;
        self.backups.wait_until_ready().await?;
        self.places.wait_until_ready().await?;
        self.classes.wait_until_ready().await?;
        self.leases.wait_until_ready().await
    }

    /// A PVC that is to be filled from a VolumeBackup.
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

    /// A StorageClass.
    pub fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(&ObjectRef::new(name))
    }

    /// The Leases of the populator's namespace.
    pub fn leases(&self) -> Vec<Arc<Lease>> {
        self.leases.state()
    }
}
