//! Whom a change concerns.
//!
//! No order of events may lose one: a PVC whose last look was before a change must be looked at
//! again. That holds as long as three rules do.
//!
//! - A store has a change before it is told of ([`Route::tell`]).
//! - A PVC is put into the queue by its own watch, and looks into all stores only then.
//! - Whom a change concerns follows from the changed object and from the PVC as its store shows
//!   it, and from nothing that another watch shows: that may be late. What this process decided
//!   itself is another matter, as long as a PVC counts that is being looked at just now.
//!
//! Then a change that does not find its PVC in the store comes before the PVC is looked at, and one
//! that finds it puts it into the queue. The tests try all orders.

use std::sync::Arc;

use crds::cache::CachedSnapshot;
use crds::{BackupStore, READY, RestoreOrder, VolumeBackup, VolumeRestore};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::ResourceExt as _;

use super::Stores;
use super::changes::{self, Change, Route};
use crate::controller::context::{ClaimKey, Key};
use crate::controller::grants::ReferenceGrant;
use crate::controller::memory::Memory;
use crate::controller::queue::Queue;
use crate::controller::{cached, claim, conditions, prime, steering};

/// Puts those whom a change concerns into the queue.
#[derive(Clone)]
pub(super) struct Routes {
    pub(super) stores: Stores,
    pub(super) queue: Arc<Queue<Key>>,
    pub(super) memory: Arc<Memory>,
}

impl Route<PersistentVolumeClaim> for Routes {
    /// By what never changes: or a store would go on showing what is no longer kept.
    fn keep(claim: &PersistentVolumeClaim) -> bool {
        claim::is_ours(claim) || steering::source::of(claim).is_some()
    }

    fn mark(claim: &PersistentVolumeClaim) -> u64 {
        changes::any_change(claim)
    }

    fn tell(&self, claim: &PersistentVolumeClaim, _: Change) {
        self.add(claim);
    }
}

impl Route<VolumeRestore> for Routes {
    fn mark(restore: &VolumeRestore) -> u64 {
        changes::generation(restore)
    }

    /// One that goes, or is changed by a person, concerns the PVC that it speaks of, and the one whose name
    /// it bears. One that comes was made for a PVC that is being worked on already.
    fn tell(&self, restore: &VolumeRestore, _: Change) {
        let Some(namespace) = restore.namespace() else {
            return;
        };
        let name = restore.name_any();
        let is_as_made = restore.metadata.generation == Some(1);
        if is_as_made
            && restore.metadata.deletion_timestamp.is_none()
            && self.stores.restore(&namespace, &name).is_some()
        {
            return;
        }
        if let Some(claim) = self.stores.claim(&namespace, &name) {
            self.add(&claim);
        }
        let spoken_of = &restore.spec.persistent_volume_claim;
        self.queue.add(Key::Claim(ClaimKey {
            namespace,
            name: spoken_of.name.clone(),
            uid: spoken_of.uid.clone(),
        }));
    }
}

impl Route<RestoreOrder> for Routes {
    fn mark(order: &RestoreOrder) -> u64 {
        changes::any_change(order)
    }

    fn tell(&self, order: &RestoreOrder, _: Change) {
        let claim = &order.spec.claim;
        self.queue.add(Key::Claim(ClaimKey {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
        }));
    }
}

impl Route<VolumeBackup> for Routes {
    fn mark(backup: &VolumeBackup) -> u64 {
        changes::generation(backup)
    }

    fn tell(&self, backup: &VolumeBackup, change: Change) {
        let Some(namespace) = backup.namespace() else {
            return;
        };
        let name = backup.name_any();
        if change == Change::Happened {
            self.claims_where(|claim| backup_of(claim) == Some((&namespace, &name)));
        }
        // A controller that begins does not look at everything that was found before.
        if change == Change::Happened || !is_settled(backup) {
            let (namespace, name) = (namespace.clone(), name.clone());
            self.queue.add(Key::Backup { namespace, name });
        }
        // Leases may have been shown before it.
        self.queue.add(Key::Cached { namespace, name });
    }
}

impl Route<BackupStore> for Routes {
    fn mark(store: &BackupStore) -> u64 {
        changes::generation(store)
    }

    fn tell(&self, store: &BackupStore, change: Change) {
        let Some(namespace) = store.namespace() else {
            return;
        };
        if change == Change::Happened {
            self.claims_where(|claim| {
                backup_of(claim).is_some_and(|(within, _)| within == namespace)
            });
            for backup in self
                .stores
                .backups
                .state_filter(|backup| backup.metadata.namespace.as_deref() == Some(&namespace))
            {
                self.queue.add(Key::Backup {
                    namespace: namespace.clone(),
                    name: backup.name_any(),
                });
            }
        }
        if change == Change::Happened || store.status.is_none() {
            self.queue.add(Key::Store {
                namespace,
                name: store.name_any(),
            });
        }
    }
}

impl Route<ReferenceGrant> for Routes {
    const OPTIONAL: bool = true;

    fn mark(grant: &ReferenceGrant) -> u64 {
        changes::generation(grant)
    }

    /// Whom it allowed before is known no more: whoever names something of its namespace looks again. One
    /// that was listed is told too, since nobody waits for this watch.
    fn tell(&self, grant: &ReferenceGrant, _: Change) {
        let namespace = grant.namespace();
        self.claims_where(|claim| {
            let other = claim::other_namespace(claim);
            other.is_some() && other == namespace.as_deref()
        });
    }
}

impl Route<StorageClass> for Routes {
    fn mark(class: &StorageClass) -> u64 {
        changes::any_change(class)
    }

    fn tell(&self, class: &StorageClass, _: Change) {
        let name = class.name_any();
        self.claims_where(|claim| {
            claim
                .spec
                .as_ref()
                .and_then(|spec| spec.storage_class_name.as_deref())
                == Some(&name)
        });
    }
}

impl Route<Lease> for Routes {
    fn mark(lease: &Lease) -> u64 {
        changes::service(lease)
    }

    /// An agent has come, gone, or has more or less to offer: those who wait for one look again. It keeps
    /// more or less of VolumeBackups: of those that it tells of now, or did when that was last told.
    fn tell(&self, lease: &Lease, _: Change) {
        self.claims_where(|claim| claim::is_ours(claim) && self.waits_for_an_agent(claim));
        let node = cached::node(lease);
        let told = cached::told(lease);
        let concerned = self.stores.backups.state_filter(|backup| {
            let name = backup.metadata.name.as_deref().unwrap_or_default();
            let namespace = backup.metadata.namespace.as_deref().unwrap_or_default();
            let cached = backup.status.as_ref().map(|status| &status.cached);
            let was_told = |it: &CachedSnapshot| Some(&it.node_name) == node.as_ref();
            cached.is_some_and(|cached| cached.iter().any(was_told))
                || told
                    .iter()
                    .any(|it| it.backup.split_once('/') == Some((namespace, name)))
        });
        for backup in concerned {
            self.queue.add(Key::Cached {
                namespace: backup.namespace().unwrap_or_default(),
                name: backup.name_any(),
            });
        }
    }
}

impl Route<VolumeAttachment> for Routes {
    fn mark(attachment: &VolumeAttachment) -> u64 {
        changes::any_change(attachment)
    }

    fn tell(&self, attachment: &VolumeAttachment, _: Change) {
        if let Some(key) = prime::concerned(&attachment.metadata) {
            self.queue.add(Key::Claim(key));
        }
    }
}

/// Prime PVCs: of the same kind as users', and of another watch.
pub(super) struct Primes(pub(super) Arc<Queue<Key>>);

impl Route<PersistentVolumeClaim> for Primes {
    fn mark(claim: &PersistentVolumeClaim) -> u64 {
        changes::any_change(claim)
    }

    fn tell(&self, claim: &PersistentVolumeClaim, _: Change) {
        if let Some(key) = prime::concerned(&claim.metadata) {
            self.0.add(Key::Claim(key));
        }
    }
}

impl Routes {
    fn add(&self, claim: &PersistentVolumeClaim) {
        if let Some(key) = Key::of(claim) {
            self.queue.add(key);
        }
    }

    /// Whether a PVC was last told to wait for an agent, or is perhaps about to be.
    fn waits_for_an_agent(&self, claim: &PersistentVolumeClaim) -> bool {
        let Some(key) = ClaimKey::of(claim) else {
            return false;
        };
        let told = self.memory.recall(&key.uid).reported;
        let status = match told {
            Some(reported) => Some(reported.status),
            None => self
                .stores
                .restore(&key.namespace, &key.name)
                .and_then(|restore| restore.status.clone()),
        };
        let waits = status
            .and_then(|status| conditions::get(&status.conditions, READY).cloned())
            .is_some_and(|ready| {
                matches!(
                    ready.reason.as_str(),
                    "NoAgent" | "NoRoom" | "AgentSilent" | "AgentOutdated"
                )
            });
        waits || self.queue.is_running(&Key::Claim(key))
    }

    /// PVCs that are not bound yet, of those that `concerned` picks.
    fn claims_where(&self, concerned: impl Fn(&PersistentVolumeClaim) -> bool) {
        let unbound = |claim: &PersistentVolumeClaim| {
            claim
                .spec
                .as_ref()
                .is_some_and(|spec| spec.volume_name.is_none())
        };
        for claim in self
            .stores
            .claims
            .state_filter(|claim| unbound(claim) && concerned(claim))
        {
            self.add(&claim);
        }
    }
}

/// The namespace and the name of the VolumeBackup that a PVC is to be filled from.
fn backup_of(claim: &PersistentVolumeClaim) -> Option<(&str, &str)> {
    let source = claim.spec.as_ref()?.data_source_ref.as_ref()?;
    let own = claim.metadata.namespace.as_deref()?;
    let namespace = claim::other_namespace(claim).unwrap_or(own);
    claim::is_ours(claim).then_some((namespace, &source.name))
}

/// Whether the status says that this very spec was found.
fn is_settled(backup: &VolumeBackup) -> bool {
    backup.status.as_ref().is_some_and(|status| {
        status.observed_generation == backup.metadata.generation
            && conditions::get(&status.conditions, READY)
                .is_some_and(|ready| ready.status == "True")
    })
}
