//! PVCs made at once, and waiting until they are bound.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tests::cluster::AuditEvent;
use tests::tenant::{Tenant, Wish};

/// The VolumeBackup that ours are filled from.
pub const BACKUP: &str = "backup";

/// The VolumeBackup of the PVC of this number, where each has one of its own.
pub fn own_backup(index: usize) -> String {
    format!("{BACKUP}-{index}")
}

/// Makes VolumeBackups of one archive for so many PVCs, and each of another content: restores of the same one
/// would share a download, and all but one be copies of its volume.
pub async fn own_backups(tenant: &Tenant<'_>, archive: &str, count: usize) -> Result<()> {
    for index in 0..count {
        let choices = json!({"exclude": [format!("nothing-{index}")]});
        tenant
            .backup_as(&own_backup(index), archive, choices)
            .await?;
    }
    Ok(())
}

/// How many requests to make one are under way at the same time, each on a connection of its own.
const AT_ONCE: usize = 50;

/// How PVCs are filled.
pub struct Filled {
    class: String,
    size: &'static str,
    /// Whether their nodes are named, as by the scheduler.
    on_nodes: bool,
    /// The API group, kind and name of what they name.
    source: Option<[String; 3]>,
    /// Whether each names one of its own.
    own: bool,
    /// A program that asks the API server as the administrator, and counts nevertheless.
    program: Option<String>,
}

impl Filled {
    /// Not at all: csi-provisioner makes them.
    pub fn empty(class: &str) -> Self {
        Self {
            class: class.to_owned(),
            size: "1Gi",
            on_nodes: false,
            source: None,
            own: false,
            program: None,
        }
    }

    /// From the VolumeBackup.
    pub fn by_us(class: &str) -> Self {
        let source = [crds::GROUP, "VolumeBackup", BACKUP].map(str::to_owned);
        Self {
            source: Some(source),
            ..Self::empty(class)
        }
    }

    /// The same, each from a VolumeBackup of its own.
    pub fn of_their_own(self) -> Self {
        Self { own: true, ..self }
    }

    /// From an object of this API group, kind and name, by a program of this name.
    pub fn by(class: &str, source: [&str; 3], program: &str) -> Self {
        Self {
            source: Some(source.map(str::to_owned)),
            program: Some(program.to_owned()),
            ..Self::empty(class)
        }
    }

    /// The same, of another size than 1 GiB.
    pub fn sized(self, size: &'static str) -> Self {
        Self { size, ..self }
    }

    /// The same, of a class that waits for the first consumer, each on the next node.
    pub fn on_nodes(self) -> Self {
        Self {
            on_nodes: true,
            ..self
        }
    }

    /// Whether a request belongs to what these PVCs cost.
    pub fn counts(&self, event: &AuditEvent) -> bool {
        let program = event.user_agent.split('/').next();
        let is_counted = event.user != "admin" || program == self.program.as_deref();
        is_counted
            && event.verb != "watch"
            && !["leases", "nodes", "csistoragecapacities", ""].contains(&event.resource.as_str())
            && program != Some("kubelet")
    }
}

/// Makes PVCs of these names; where nodes are named, on these in turn.
pub async fn make(
    tenant: &Tenant<'_>,
    filled: &Filled,
    names: &[String],
    nodes: &[String],
) -> Result<()> {
    let wish = Wish {
        class: &filled.class,
        size: filled.size,
        backup: None,
    };
    let made = names.iter().enumerate().map(|(index, name)| {
        let node = nodes.get(index % nodes.len().max(1));
        let node = node.filter(|_| filled.on_nodes);
        tenant.claim_with(name, &wish, move |claim| {
            if let Some(node) = node {
                claim["metadata"]["annotations"] =
                    json!({"volume.kubernetes.io/selected-node": node});
            }
            if let Some([group, kind, name]) = &filled.source {
                let own = filled.own.then(|| own_backup(index));
                let name = own.as_ref().unwrap_or(name);
                claim["spec"]["dataSourceRef"] =
                    json!({"apiGroup": group, "kind": kind, "name": name});
            }
        })
    });
    let made = stream::iter(made).buffer_unordered(AT_ONCE);
    made.try_for_each(async |_| Ok(())).await
}

/// Waits until all of them are bound, by a watch, so that no polling blurs the figure; `count` tells how
/// many are so far.
pub async fn bound(tenant: &Tenant<'_>, names: &[String], count: &AtomicUsize) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = tenant.api();
    let changes = watcher(claims, watcher::Config::default()).applied_objects();
    let mut changes = pin!(changes);
    let mut left: HashSet<&str> = names.iter().map(String::as_str).collect();
    while let Some(claim) = changes.try_next().await? {
        let phase = claim.status.as_ref().and_then(|it| it.phase.as_deref());
        if phase == Some("Bound") {
            left.remove(&*claim.name_any());
        }
        count.store(names.len() - left.len(), Ordering::Relaxed);
        if left.is_empty() {
            return Ok(());
        }
    }
    bail!("the watch ended")
}
