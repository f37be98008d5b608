//! ReferenceGrants: who may name what of another namespace (Gateway API, KEP-3294). The owner of a namespace
//! writes them there; without one, nothing of it can be named from elsewhere.

use kube::api::ListParams;
use kube::{CustomResource, ResourceExt as _};
use serde::{Deserialize, Serialize};

use super::api;
use super::claim::Claim;
use super::context::Context;
use super::refusal::Refusal;

/// Whose references to what are allowed, in the namespace of the latter.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1beta1",
    kind = "ReferenceGrant",
    namespaced,
    schema = "disabled"
)]
pub struct ReferenceGrantSpec {
    /// Who may refer: each of these.
    #[serde(default)]
    pub from: Vec<ReferenceGrantFrom>,
    /// To what: each of these.
    #[serde(default)]
    pub to: Vec<ReferenceGrantTo>,
}

/// Who may refer to something.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ReferenceGrantFrom {
    /// The group, empty for Kubernetes' own.
    #[serde(default)]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ReferenceGrantTo {
    /// The group, empty for Kubernetes' own.
    #[serde(default)]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// One object; all of the kind where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a PVC names in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The PVC's namespace.
    pub from: &'a str,
    /// The group of what it names.
    pub group: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Whether a PVC may name something of another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// A ReferenceGrant of that namespace allows it.
    Granted,
    /// None does.
    Denied,
    /// The cluster has no such kind.
    NoKind,
    /// The administrator has not enabled it.
    Off,
}

/// What is known of the permission to name the VolumeBackup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantSight {
    /// It is in the PVC's own namespace: nobody needs to permit that.
    Own,
    /// As the watch last showed it.
    Cached(Permission),
    /// As the API server has just said, or as it cannot change.
    Live(Permission),
}

impl Permission {
    /// Why the restore of `claim` cannot begin, or go on; none where it may.
    pub fn refusal(self, claim: &Claim) -> Option<Refusal> {
        let namespace = claim.backup_namespace.clone();
        match self {
            Self::Granted => None,
            Self::Denied => Some(Refusal::NotGranted {
                backup: claim.backup.clone(),
                namespace,
                from: claim.namespace.clone(),
            }),
            Self::NoKind => Some(Refusal::NoGrants { namespace }),
            Self::Off => Some(Refusal::CrossNamespaceOff { namespace }),
        }
    }
}

/// What the reference of `claim` to its VolumeBackup is, where that is of another namespace.
pub fn reference(claim: &Claim) -> Option<Reference<'_>> {
    claim.is_crossing().then_some(Reference {
        from: &claim.namespace,
        group: crds::GROUP,
        kind: "VolumeBackup",
        namespace: &claim.backup_namespace,
        name: &claim.backup,
    })
}

/// What the watch shows of the permission for `claim`.
pub fn shown(context: &Context, claim: &Claim) -> GrantSight {
    match reference(claim) {
        None => GrantSight::Own,
        Some(_) if !context.cross_namespace => GrantSight::Live(Permission::Off),
        Some(reference) => {
            let grants = context.stores.grants_of(reference.namespace);
            GrantSight::Cached(permission(grants.iter().map(AsRef::as_ref), &reference))
        }
    }
}

/// What the API server says of it at this moment.
pub async fn look(context: &Context, reference: &Reference<'_>) -> Result<Permission, kube::Error> {
    if !context.cross_namespace {
        return Ok(Permission::Off);
    }
    let grants = context.of::<ReferenceGrant>(reference.namespace);
    match grants.list(&ListParams::default()).await {
        Ok(grants) => Ok(permission(&grants, reference)),
        Err(error) if api::not_found(&error) => Ok(Permission::NoKind),
        Err(error) => Err(error),
    }
}

fn permission<'a>(
    grants: impl IntoIterator<Item = &'a ReferenceGrant>,
    reference: &Reference<'_>,
) -> Permission {
    if grants.into_iter().any(|grant| allows(grant, reference)) {
        Permission::Granted
    } else {
        Permission::Denied
    }
}

fn allows(grant: &ReferenceGrant, reference: &Reference<'_>) -> bool {
    let is_from = |from: &ReferenceGrantFrom| {
        from.group.is_empty()
            && from.kind == "PersistentVolumeClaim"
            && from.namespace == reference.from
    };
    let is_to = |to: &ReferenceGrantTo| {
        let is_named = |name: &str| name.is_empty() || name == reference.name;
        to.group == reference.group
            && to.kind == reference.kind
            && to.name.as_deref().is_none_or(is_named)
    };
    // A grant speaks for its own namespace alone.
    grant.namespace().as_deref() == Some(reference.namespace)
        && grant.spec.from.iter().any(is_from)
        && grant.spec.to.iter().any(is_to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const REFERENCE: Reference<'static> = Reference {
        from: "app",
        group: crds::GROUP,
        kind: "VolumeBackup",
        namespace: "backups",
        name: "nightly",
    };

    fn grant(change: impl FnOnce(&mut Value)) -> ReferenceGrant {
        let mut grant = json!({
            "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"name": "g", "namespace": "backups"},
            "spec": {
                "from": [{"group": "", "kind": "PersistentVolumeClaim", "namespace": "app"}],
                "to": [{"group": "backup.example.com", "kind": "VolumeBackup"}],
            },
        });
        change(&mut grant);
        serde_json::from_value(grant).unwrap()
    }

    #[test]
    fn a_grant_is_for_those_that_it_names_alone() {
        assert!(allows(&grant(|_| ()), &REFERENCE));
        for (pointer, other) in [
            ("/metadata/namespace", "app"),
            ("/spec/from/0/group", "apps"),
            ("/spec/from/0/kind", "Pod"),
            ("/spec/from/0/namespace", "backups"),
            ("/spec/to/0/group", ""),
            ("/spec/to/0/kind", "BackupStore"),
        ] {
            let other = grant(|grant| *grant.pointer_mut(pointer).unwrap() = json!(other));
            assert!(!allows(&other, &REFERENCE), "{pointer}");
        }
        let none = grant(|grant| grant["spec"] = json!({}));
        assert!(!allows(&none, &REFERENCE));
    }

    #[test]
    fn a_grant_is_for_one_object_where_it_names_one() {
        let named = |name: &str| grant(|grant| grant["spec"]["to"][0]["name"] = json!(name));
        assert!(allows(&named("nightly"), &REFERENCE));
        assert!(allows(&named(""), &REFERENCE));
        assert!(!allows(&named("weekly"), &REFERENCE));
    }

    #[test]
    fn one_grant_of_many_is_enough_and_halves_of_two_are_none() {
        let whole = grant(|_| ());
        let others_from = grant(|grant| grant["spec"]["from"][0]["namespace"] = json!("x"));
        let others_to = grant(|grant| grant["spec"]["to"][0]["kind"] = json!("BackupStore"));
        let halves = [others_from, others_to];
        assert_eq!(permission(&halves, &REFERENCE), Permission::Denied);
        let all = [halves.as_slice(), &[whole]].concat();
        assert_eq!(permission(&all, &REFERENCE), Permission::Granted);
    }
}
