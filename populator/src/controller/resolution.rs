//! From a VolumeBackup to one exact object: which store, with what keys, and what is there that was asked
//! for.

mod keys;
mod listings;
mod names;
mod point_in_time;

pub use keys::credentials;
pub use listings::Listings;
use point_in_time::Finder;
pub use point_in_time::PointInTime;

use std::sync::Arc;

use crds::cache::Cache;
use crds::volume_backup::ResolvedArchive;
use crds::volume_restore::Basis;
use crds::{BackupStore, RestoreOptions, VolumeBackup};
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::context::Context;
use super::refusal::{Refusal, Trouble};
use super::status;
use crate::choices;
use crate::store::{
    Access, Credentials, Location, ObjectUrl, Scheme, SignedUrl, archive, longest_prefix, shown,
};

/// An archive, pinned for one restore.
#[derive(Clone)]
pub struct Pinned {
    /// Which object exactly.
    pub archive: ResolvedArchive,
    /// How it is to be restored.
    pub options: RestoreOptions,
    /// What may be kept of volumes that hold it.
    pub cache: Option<Cache>,
    /// The VolumeBackup, as it was read.
    pub basis: Basis,
    /// How it is known to be no newer than was asked for.
    pub point_in_time: PointInTime,
    /// The BackupStore that it lies in, empty where none is needed.
    pub store: String,
    /// How it can be read.
    pub signed: SignedUrl,
}

// A signed URL is as good as the data: it is not to be printed.
impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned")
            .field("archive", &self.archive)
            .field("options", &self.options)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Finds the archive of a VolumeBackup, signs a URL for it, and writes what was seen into the
/// status of VolumeBackup and BackupStore.
///
/// What the watches do not show is asked for before it is called missing: people write a backup, its
/// store and a PVC in one go, and what they wrote last may be known here first.
pub async fn resolve(context: &Context, namespace: &str, backup: &str) -> Result<Pinned, Trouble> {
    let backup = find(context, namespace, backup).await?;
    let store = among_stores(context, namespace, |stores| choose(stores, &backup)).await?;
    let pinned = match &store {
        Ok(store) => pin(context, &backup, store.as_deref()).await,
        Err(refusal) => Err(refusal.clone()),
    };
    if let Ok(Some(store)) = &store {
        status::tell_store(context, store, pinned.as_ref().err()).await;
    }
    status::tell_backup(context, &backup, &pinned).await;
    Ok(pinned?)
}

/// What a restore from this VolumeBackup rests on.
pub fn basis(backup: &VolumeBackup) -> Basis {
    Basis {
        backup_uid: backup.uid().unwrap_or_default(),
        backup_generation: backup.metadata.generation.unwrap_or_default(),
        retry: None,
    }
}

async fn pin(
    context: &Context,
    backup: &VolumeBackup,
    store: Option<&BackupStore>,
) -> Result<Pinned, Refusal> {
    let options = &backup.spec.options;
    choices::check(options).map_err(|why| Refusal::BackupInvalid {
        backup: backup.name_any(),
        why: why.to_string(),
    })?;
    let location = Location::parse(&backup.spec.backup_url)?;
    let namespace = backup.namespace().unwrap_or_default();
    let access = access(context, &location, &namespace, store).await?;
    let finder = Finder {
        access: &access,
        listings: &context.listings,
        namespace: &namespace,
        restore_point: backup.spec.restore_point.0,
    };
    let chosen = finder.find(&location).await?;
    let version = chosen.found.version.as_deref();
    let signed = access
        .sign(&chosen.url, version, context.url_lifetime)
        .await?;
    Ok(Pinned {
        archive: archive(chosen.url.to_string(), &chosen.found),
        options: options.clone(),
        cache: backup.spec.cache,
        basis: basis(backup),
        point_in_time: chosen.point_in_time,
        store: store.map(BackupStore::name_any).unwrap_or_default(),
        signed,
    })
}

/// The way to what a URL names.
async fn access(
    context: &Context,
    location: &Location,
    namespace: &str,
    store: Option<&BackupStore>,
) -> Result<Access, Refusal> {
    let credentials = match store {
        Some(store) => credentials(context, store).await?,
        None => Credentials::Unneeded,
    };
    let spec = store.map(|store| &store.spec);
    let access = Access::new(location, namespace, spec, &credentials, &context.reach);
    Ok(access?)
}

/// Signs a fresh URL for an order that exists, from the BackupStore as it is now.
pub async fn renew(context: &Context, order: &crds::RestoreOrder) -> Result<SignedUrl, Trouble> {
    let (namespace, name) = order.store();
    let named = |stores: &[Arc<BackupStore>]| {
        if name.is_empty() {
            return Ok(None);
        }
        let found = stores.iter().find(|store| store.name_any() == name);
        found
            .cloned()
            .map(Some)
            .ok_or_else(|| Refusal::StoreNotFound {
                store: name.to_owned(),
                namespace: namespace.to_owned(),
            })
    };
    let store = among_stores(context, namespace, named).await??;
    let archive = &order.spec.archive;
    let url = ObjectUrl::parse(&archive.url).map_err(Refusal::from)?;
    // The secret part of what somebody else has signed stands in the order only.
    let url = match url.scheme {
        Scheme::Https => ObjectUrl::parse(&order.spec.access.url).map_err(Refusal::from)?,
        Scheme::S3 | Scheme::Gs | Scheme::Az | Scheme::File => url,
    };
    let location = Location::Object(url.clone());
    let access = access(context, &location, namespace, store.as_deref()).await?;
    let signed = access
        .sign(&url, archive.version.as_deref(), context.url_lifetime)
        .await
        .map_err(Refusal::from)?;
    Ok(signed)
}

/// The VolumeBackup of that name.
async fn find(
    context: &Context,
    namespace: &str,
    backup: &str,
) -> Result<Arc<VolumeBackup>, Trouble> {
    if let Some(shown) = context.stores.backup(namespace, backup) {
        return Ok(shown);
    }
    let found = context
        .of::<VolumeBackup>(namespace)
        .get_opt(backup)
        .await?;
    Ok(found.map(Arc::new).ok_or_else(|| Refusal::BackupNotFound {
        backup: backup.to_owned(),
        namespace: namespace.to_owned(),
    })?)
}

/// What `choose` says of the BackupStores of a namespace; where that is a refusal, what it says of
/// those that the API server has at this moment.
async fn among_stores(
    context: &Context,
    namespace: &str,
    choose: impl Fn(&[Arc<BackupStore>]) -> Result<Option<Arc<BackupStore>>, Refusal>,
) -> Result<Result<Option<Arc<BackupStore>>, Refusal>, kube::Error> {
    if let Ok(shown) = choose(&context.stores.stores_of(namespace)) {
        return Ok(Ok(shown));
    }
    let stores = context.of::<BackupStore>(namespace);
    let there = stores.list(&ListParams::default()).await?;
    let there: Vec<_> = there.items.into_iter().map(Arc::new).collect();
    Ok(choose(&there))
}

/// The BackupStore that a VolumeBackup is read from: none where its URL says it all and none serves it.
fn choose(
    stores: &[Arc<BackupStore>],
    backup: &VolumeBackup,
) -> Result<Option<Arc<BackupStore>>, Refusal> {
    let url = shown(&backup.spec.backup_url);
    let namespace = backup.namespace().unwrap_or_default();
    let serving = |among: &[Arc<BackupStore>]| {
        longest_prefix(
            among,
            &url,
            |store| &store.spec.url,
            |store| store.metadata.name.as_deref().unwrap_or_default(),
        )
        .cloned()
    };
    let Some(named) = &backup.spec.store_ref else {
        let needed = Scheme::of(&url).is_none_or(Scheme::needs_credentials);
        return match serving(stores) {
            None if needed => Err(Refusal::StoreNotMatched {
                url: url.clone(),
                namespace,
            }),
            chosen => Ok(chosen),
        };
    };
    let store = stores
        .iter()
        .find(|store| store.name_any() == named.name)
        .ok_or_else(|| Refusal::StoreNotFound {
            store: named.name.clone(),
            namespace,
        })?;
    let served = serving(std::slice::from_ref(store));
    served.map(Some).ok_or_else(|| Refusal::StoreElsewhere {
        store: named.name.clone(),
        prefix: store.spec.url.clone(),
        url: url.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stores(list: &[(&str, &str)]) -> Vec<Arc<BackupStore>> {
        list.iter()
            .map(|(name, url)| {
                Arc::new(
                    serde_json::from_value(json!({
                        "apiVersion": "backup.example.com/v1", "kind": "BackupStore",
                        "metadata": {"name": name, "namespace": "n"},
                        "spec": {"url": url, "credentialsSecretRef": {"name": "keys"}},
                    }))
                    .unwrap(),
                )
            })
            .collect()
    }

    fn backup(store: Option<&str>) -> VolumeBackup {
        serde_json::from_value(json!({
            "apiVersion": "backup.example.com/v1", "kind": "VolumeBackup",
            "metadata": {"name": "b", "namespace": "n"},
            "spec": {
                "backupURL": "s3://b/team/k.tar", "restorePoint": "2025-01-01T10:00:00Z",
                "storeRef": store.map(|name| json!({"name": name})),
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_store_named_or_the_longest_prefix() {
        let stores = stores(&[
            ("all", "s3://b"),
            ("team", "s3://b/team"),
            ("other", "s3://o"),
        ]);
        let choose = |name| choose(&stores, &backup(name));
        let chosen = |name| choose(name).unwrap().unwrap().name_any();
        assert_eq!(chosen(None), "team");
        assert_eq!(chosen(Some("all")), "all");
        let reason = |name| choose(name).unwrap_err().reason();
        assert_eq!(reason(Some("other")), "BackupStoreMismatch");
        assert_eq!(reason(Some("none")), "BackupStoreNotFound");
        let none = super::choose(&stores[2..], &backup(None)).unwrap_err();
        assert_eq!(none.reason(), "BackupStoreNotFound");
    }

    #[test]
    fn what_a_url_opens_alone_needs_no_store() {
        let mut web = backup(None);
        web.spec.backup_url = "https://h/team/k.tar?sig=c0ffee/".to_owned();
        let none = stores(&[
            ("other", "https://o"),
            ("query", "https://h/team/k.tar?sig=c0ffee"),
        ]);
        assert!(super::choose(&none, &web).unwrap().is_none());
        let some = stores(&[("host", "https://h"), ("team", "https://h/team/")]);
        let chosen = super::choose(&some, &web).unwrap().unwrap();
        assert_eq!(chosen.name_any(), "team");
        web.spec.store_ref = Some(crds::volume_backup::StoreRef {
            name: "other".to_owned(),
        });
        let said = super::choose(&none, &web).unwrap_err().to_string();
        assert!(!said.contains("c0ffee"), "{said}");
    }
}
