//! From a VolumeBackup to one exact object: which store, with what keys, and what is there that was asked
//! for.

mod listings;
mod names;
mod point_in_time;

pub use listings::Listings;
use point_in_time::Finder;
pub use point_in_time::PointInTime;

use std::sync::Arc;

use crds::cache::Cache;
use crds::volume_backup::ResolvedArchive;
use crds::volume_restore::Basis;
use crds::{BackupStore, RestoreOptions, VolumeBackup};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::context::Context;
use super::refusal::{Refusal, Trouble};
use super::status;
use crate::choices;
use crate::store::{Access, Credentials, Found, Location, ObjectUrl, SignedUrl, longest_prefix};
use crate::units;

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
    /// The BackupStore that it lies in.
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
        Ok(store) => pin(context, &backup, store).await,
        Err(refusal) => Err(refusal.clone()),
    };
    if let Ok(store) = &store {
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
    store: &BackupStore,
) -> Result<Pinned, Refusal> {
    let options = &backup.spec.options;
    choices::check(options).map_err(|why| Refusal::BackupInvalid {
        backup: backup.name_any(),
        why: why.to_string(),
    })?;
    let location = Location::parse(&backup.spec.backup_url)?;
    let namespace = backup.namespace().unwrap_or_default();
    let credentials = credentials(context, store).await?;
    let access = Access::new(
        &store.spec,
        &credentials,
        location.bucket(),
        &context.addresses,
    )?;
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
        archive: archive(&chosen.url, &chosen.found),
        options: options.clone(),
        cache: backup.spec.cache,
        basis: basis(backup),
        point_in_time: chosen.point_in_time,
        store: store.name_any(),
        signed,
    })
}

fn archive(url: &ObjectUrl, found: &Found) -> ResolvedArchive {
    ResolvedArchive {
        url: url.to_string(),
        version: found.version.clone(),
        etag: Some(found.etag.clone()),
        size: i64::try_from(found.size).unwrap_or(i64::MAX),
        human_size: units::bytes(found.size),
        last_modified: found.last_modified.map(Time),
    }
}

/// Signs a fresh URL for an order that exists, from the BackupStore as it is now.
pub async fn renew(context: &Context, order: &crds::RestoreOrder) -> Result<SignedUrl, Trouble> {
    let (namespace, name) = order.store();
    let named = |stores: &[Arc<BackupStore>]| {
        let found = stores.iter().find(|store| store.name_any() == name);
        found.cloned().ok_or_else(|| Refusal::StoreNotFound {
            store: name.to_owned(),
            namespace: namespace.to_owned(),
        })
    };
    let store = among_stores(context, namespace, named).await??;
    let archive = &order.spec.archive;
    let url = ObjectUrl::parse(&archive.url).map_err(Refusal::from)?;
    let credentials = credentials(context, &store).await?;
    let access = Access::new(&store.spec, &credentials, &url.bucket, &context.addresses)
        .map_err(Refusal::from)?;
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
    choose: impl Fn(&[Arc<BackupStore>]) -> Result<Arc<BackupStore>, Refusal>,
) -> Result<Result<Arc<BackupStore>, Refusal>, kube::Error> {
    if let Ok(shown) = choose(&context.stores.stores_of(namespace)) {
        return Ok(Ok(shown));
    }
    let stores = context.of::<BackupStore>(namespace);
    let there = stores.list(&ListParams::default()).await?;
    let there: Vec<_> = there.items.into_iter().map(Arc::new).collect();
    Ok(choose(&there))
}

/// The BackupStore that a VolumeBackup is read from.
fn choose(stores: &[Arc<BackupStore>], backup: &VolumeBackup) -> Result<Arc<BackupStore>, Refusal> {
    let url = &backup.spec.backup_url;
    let namespace = backup.namespace().unwrap_or_default();
    let serving = |among: &[Arc<BackupStore>]| {
        longest_prefix(
            among,
            url,
            |store| &store.spec.url,
            |store| store.metadata.name.as_deref().unwrap_or_default(),
        )
        .cloned()
    };
    let Some(named) = &backup.spec.store_ref else {
        return serving(stores).ok_or_else(|| Refusal::StoreNotMatched {
            url: url.clone(),
            namespace,
        });
    };
    let store = stores
        .iter()
        .find(|store| store.name_any() == named.name)
        .ok_or_else(|| Refusal::StoreNotFound {
            store: named.name.clone(),
            namespace,
        })?;
    serving(std::slice::from_ref(store)).ok_or_else(|| Refusal::StoreElsewhere {
        store: named.name.clone(),
        prefix: store.spec.url.clone(),
        url: url.clone(),
    })
}

/// Reads the keys of a store. Nothing watches Secrets: the controller sees one only when a
/// BackupStore of the same namespace names it, and only then.
pub async fn credentials(context: &Context, store: &BackupStore) -> Result<Credentials, Refusal> {
    let namespace = store.namespace().unwrap_or_default();
    let secret = &store.spec.credentials_secret_ref.name;
    let found = Api::<Secret>::namespaced(context.client.clone(), &namespace)
        .get_opt(secret)
        .await
        .map_err(|error| Refusal::SecretUnreadable {
            secret: secret.clone(),
            store: store.name_any(),
            why: super::api::short(&error),
        })?;
    let found = found.ok_or_else(|| Refusal::SecretNotFound {
        secret: secret.clone(),
        store: store.name_any(),
        namespace,
    })?;
    read_keys(&found).map_err(|key| Refusal::SecretIncomplete {
        secret: secret.clone(),
        store: store.name_any(),
        key,
    })
}

/// The keys, or the name of the one that is missing.
fn read_keys(secret: &Secret) -> Result<Credentials, &'static str> {
    let key = |name: &'static str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .and_then(|value| std::str::from_utf8(&value.0).ok())
            // A line end that came with a file is never a part of a key.
            .map(|value| value.trim_end().to_owned())
            .filter(|value| !value.is_empty())
            .ok_or(name)
    };
    Ok(Credentials {
        access_key_id: key("AWS_ACCESS_KEY_ID")?,
        secret_access_key: key("AWS_SECRET_ACCESS_KEY")?,
        session_token: key("AWS_SESSION_TOKEN").ok(),
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
        assert_eq!(choose(None).unwrap().name_any(), "team");
        assert_eq!(choose(Some("all")).unwrap().name_any(), "all");
        let reason = |name| choose(name).unwrap_err().reason();
        assert_eq!(reason(Some("other")), "BackupStoreMismatch");
        assert_eq!(reason(Some("none")), "BackupStoreNotFound");
        let none = super::choose(&stores[2..], &backup(None)).unwrap_err();
        assert_eq!(none.reason(), "BackupStoreNotFound");
    }

    #[test]
    fn keys_are_trimmed_and_required() {
        let secret = |data: serde_json::Value| -> Secret {
            serde_json::from_value(json!({ "data": data })).unwrap()
        };
        // "id\n" and "key".
        let good = read_keys(&secret(json!({
            "AWS_ACCESS_KEY_ID": "aWQK", "AWS_SECRET_ACCESS_KEY": "a2V5",
        })))
        .ok()
        .unwrap();
        assert_eq!(good.access_key_id, "id");
        assert_eq!(good.secret_access_key, "key");
        assert!(good.session_token.is_none());
        assert_eq!(
            read_keys(&secret(json!({"AWS_ACCESS_KEY_ID": "aWQK"}))).err(),
            Some("AWS_SECRET_ACCESS_KEY")
        );
        assert_eq!(
            read_keys(&Secret::default()).err(),
            Some("AWS_ACCESS_KEY_ID")
        );
    }
}
