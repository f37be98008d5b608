//! What nodes keep of VolumeBackups, in their status.

use std::time::Duration;

use crds::VolumeBackup;
use crds::cache::CachedSnapshot;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::api;
use super::context::{Context, Key};
use crate::failpoint;
use crate::lease::{self, Snapshots};
use crate::units;

/// After an attempt to write.
const AGAIN: Duration = Duration::from_secs(10);

/// Snapshots that a status tells of, those of the first nodes.
const TOLD: usize = 100;

/// The snapshots that a Lease tells of.
pub fn told(lease: &Lease) -> Snapshots {
    let told = lease.annotations().get(lease::SNAPSHOTS);
    told.and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

/// The node whose agent holds a Lease.
pub fn node(lease: &Lease) -> Option<String> {
    let name = lease.name_any();
    name.strip_prefix(&lease::name("")).map(ToOwned::to_owned)
}

/// What nodes keep of the VolumeBackup `NAMESPACE/NAME`, the node and then the time deciding the order.
fn of<'a>(
    backup: &str,
    leases: impl IntoIterator<Item = &'a Lease>,
    now: Timestamp,
) -> Vec<CachedSnapshot> {
    let mut cached = Vec::new();
    for lease in leases {
        let Some(node) = node(lease) else {
            continue;
        };
        let of_it = told(lease).into_iter();
        let of_it = of_it.filter(|it| it.backup == backup && it.expires > now);
        cached.extend(of_it.map(|it| CachedSnapshot {
            node_name: node.clone(),
            // As the API server will show it.
            expires: Time(Timestamp::from_second(it.expires.as_second()).unwrap_or(it.expires)),
            human_size: units::bytes(it.size_bytes.unsigned_abs()),
        }));
    }
    cached.sort_by(|a, b| (&a.node_name, a.expires.0).cmp(&(&b.node_name, b.expires.0)));
    cached.truncate(TOLD);
    cached
}

/// Writes into the status of a VolumeBackup what nodes keep of it, and again when that ends. By a change of that
/// alone: the rest is written by whoever looks at the archive.
pub async fn tell(context: &Context, namespace: &str, name: &str) {
    let Some(backup) = context.stores.backup(namespace, name) else {
        return;
    };
    let again = |pause| {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let key = Key::Cached { namespace, name };
        context.queue.add_after(key, pause);
    };
    let (leases, now) = (context.stores.leases(), Timestamp::now());
    let leases = leases.iter().map(AsRef::as_ref);
    let cached = of(&format!("{namespace}/{name}"), leases, now);
    // Its node may be gone, and tell nothing any more.
    if let Some(first) = cached.iter().map(|it| it.expires.0).min() {
        let left = Duration::try_from(first.duration_since(now)).unwrap_or_default();
        again(left + Duration::from_secs(1));
    }
    let before = backup.status.as_ref().map(|it| it.cached.as_slice());
    if before.unwrap_or_default() == cached {
        return;
    }
    let change = json!({
        "metadata": { "uid": backup.uid() },
        "status": { "cached": cached },
    });
    failpoint::reached("controller.write-cached.before");
    let written = context
        .of::<VolumeBackup>(namespace)
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&change))
        .await;
    failpoint::reached("controller.write-cached.after");
    if let Err(error) = written {
        tracing::warn!(
            namespace,
            name,
            error = api::short(&error),
            "what nodes keep of a VolumeBackup could not be told"
        );
    }
    // What was shown of the VolumeBackup meanwhile may be what was there before.
    again(AGAIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backup_has_its_own_of_all_nodes() {
        let lease = |node: &str, snapshots: serde_json::Value| -> Lease {
            serde_json::from_value(json!({"metadata": {
                "name": format!("agent-{node}"),
                "annotations": {lease::SNAPSHOTS: snapshots.to_string()},
            }}))
            .unwrap()
        };
        let snapshot = |backup: &str, expires: &str| json!({"content": "k", "backup": backup, "sizeBytes": 1_u64 << 30, "expires": expires});
        let later = "2026-01-01T00:00:10.5Z";
        let leases = [
            lease(
                "b",
                json!([snapshot("n/one", later), snapshot("n/two", later)]),
            ),
            lease(
                "a",
                json!([
                    snapshot("n/one", "2026-01-01T00:00:00Z"),
                    snapshot("n/one", later)
                ]),
            ),
            lease("c", json!("rubbish")),
        ];
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        let cached = of("n/one", &leases, now);
        let seen: Vec<_> = cached
            .iter()
            .map(|it| {
                (
                    it.node_name.as_str(),
                    it.expires.0.to_string(),
                    it.human_size.as_str(),
                )
            })
            .collect();
        let at = || "2026-01-01T00:00:10Z".to_owned();
        assert_eq!(seen, [("a", at(), "1 GiB"), ("b", at(), "1 GiB")]);
        assert!(of("n/none", &leases, now).is_empty());
    }
}
