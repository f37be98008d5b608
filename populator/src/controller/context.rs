//! What every part of a leading controller shares.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::claim;
use super::memory::Memory;
use super::metrics::Metrics;
use super::node::Cordoned;
use super::queue::Queue;
use super::resolution::Listings;
use super::watches::Stores;
use crate::store::Reach;

/// The field manager of everything that the controller applies.
pub const MANAGER: &str = "populator-controller";

/// What is worked on, one at a time for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The restore of one PVC.
    Claim(ClaimKey),
    /// The node of a PVC that is made from a snapshot or from another PVC.
    Steering(ClaimKey),
    /// What is seen of a VolumeBackup.
    Backup {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What nodes keep of a VolumeBackup.
    Cached {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A PersistentVolume that is perhaps nobody's.
    Leftover {
        /// Its name.
        volume: String,
    },
    /// What is seen of a BackupStore.
    Store {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Key {
    /// What there is to do for a PVC of those that are watched.
    pub fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let key = ClaimKey::of(claim)?;
        Some(if claim::is_ours(claim) {
            Self::Claim(key)
        } else {
            Self::Steering(key)
        })
    }
}

/// One PVC: another one of the same name is another key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl ClaimKey {
    /// The key of a PVC.
    pub fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        Some(Self {
            namespace: claim.namespace()?,
            name: claim.name_any(),
            uid: claim.uid()?,
        })
    }
}

/// What every part of a leading controller shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The namespace of orders and Leases.
    pub namespace: String,
    /// The drivers that the administrator named.
    pub drivers: Arc<[String]>,
    /// Who may look through listings of stores.
    pub listings: Listings,
    /// What stores may be.
    pub reach: Reach,
    /// Whether PVCs may name VolumeBackups of other namespaces, where those allow it.
    pub cross_namespace: bool,
    /// For how long URLs are signed.
    pub url_lifetime: Duration,
    /// What the watches show.
    pub stores: Stores,
    /// The nodes that take no pods.
    pub cordoned: Cordoned,
    /// What is to be worked on.
    pub queue: Arc<Queue<Key>>,
    /// What this process remembers.
    pub memory: Arc<Memory>,
    /// Figures.
    pub metrics: Metrics,
}

impl Context {
    /// An API of the populator's own namespace.
    pub fn own<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An API of a user's namespace.
    pub fn of<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes `status` the status of the object of that name and UID.
    pub async fn apply_status<K, S>(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        status: &S,
    ) -> Result<K, kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
        S: Serialize,
    {
        // With the UID, a status never lands on an object of the same name made later.
        let patch = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name, "uid": uid },
            "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        self.of::<K>(namespace)
            .patch_status(name, &parameters, &Patch::Apply(&patch))
            .await
    }
}
