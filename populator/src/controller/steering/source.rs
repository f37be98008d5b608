//! What a PVC is made from, and on which node that lies.

use std::fmt;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::{Expression, GroupVersionKind, Selector};
use kube::{Api, ResourceExt as _};

use crate::controller::claim;
use crate::controller::context::Context;
use crate::controller::grants::{self, Permission, Reference};

const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

/// The node whose csi-snapshotter a snapshot belongs to, set by snapshot-controller with
/// `--enable-distributed-snapshotting`.
const MANAGED_BY: &str = "snapshot.storage.kubernetes.io/managed-by";

/// What a PVC is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What that is.
    pub kind: Kind,
    /// Its namespace, where it is not the PVC's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// What a PVC may be made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A VolumeSnapshot.
    Snapshot,
    /// A PVC.
    Claim,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Snapshot => f.write_str("the VolumeSnapshot ")?,
            Kind::Claim => f.write_str("the PVC ")?,
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// What `claim` is made from, where that is a snapshot or another PVC. It follows from fields that never
/// change.
pub fn of(claim: &PersistentVolumeClaim) -> Option<Source> {
    let spec = claim.spec.as_ref()?;
    // The API server keeps both fields the same, and provisioners look at the first one first.
    let (group, kind, name) = match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), _) => (&source.api_group, &source.kind, &source.name),
        (None, Some(source)) => (&source.api_group, &source.kind, &source.name),
        (None, None) => return None,
    };
    let kind = match (group.as_deref().unwrap_or_default(), kind.as_str()) {
        (SNAPSHOTS, "VolumeSnapshot") => Kind::Snapshot,
        ("", "PersistentVolumeClaim") => Kind::Claim,
        _ => return None,
    };
    // With a namespace, only the second one is there.
    let namespace = claim::other_namespace(claim).filter(|_| spec.data_source.is_none());
    Some(Source {
        kind,
        namespace: namespace.map(ToOwned::to_owned),
        name: name.clone(),
    })
}

/// Where a source lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is not there, or is being made.
    Unknown,
    /// Not on one certain node, as far as Kubernetes knows; or it is another driver's.
    Anywhere,
    /// In another namespace, which does not allow to name it: nobody will make the volume, and where it lies
    /// is not the PVC's business.
    Closed,
    /// On this node, and on no other.
    Node(String),
}

/// Where `source` of a PVC in `namespace` lies, if its volume is one of `driver`'s.
pub async fn place(
    context: &Context,
    namespace: &str,
    source: &Source,
    driver: &str,
) -> Result<Place, kube::Error> {
    let (group, kind) = match source.kind {
        Kind::Snapshot => (SNAPSHOTS, "VolumeSnapshot"),
        Kind::Claim => ("", "PersistentVolumeClaim"),
    };
    let name = source.name.as_str();
    let within = match source.namespace.as_deref() {
        None => namespace,
        Some(other) => {
            let reference = Reference {
                from: namespace,
                group,
                kind,
                namespace: other,
                name,
            };
            if grants::look(context, &reference).await? != Permission::Granted {
                return Ok(Place::Closed);
            }
            other
        }
    };
    match source.kind {
        Kind::Snapshot => place_of_snapshot(context, within, name, driver).await,
        Kind::Claim => place_of_claim(context, within, name, driver).await,
    }
}

/// In a cluster that does not have these kinds, or not yet, there is simply no such snapshot.
async fn place_of_snapshot(
    context: &Context,
    namespace: &str,
    name: &str,
    driver: &str,
) -> Result<Place, kube::Error> {
    let snapshots = resource("VolumeSnapshot", "volumesnapshots");
    let snapshot =
        Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &snapshots)
            .get_opt(name)
            .await?;
    let Some(content) = snapshot.as_ref().and_then(content_of) else {
        return Ok(Place::Unknown);
    };
    let contents = resource("VolumeSnapshotContent", "volumesnapshotcontents");
    let content = Api::<DynamicObject>::all_with(context.client.clone(), &contents)
        .get_opt(content)
        .await?;
    Ok(content.map_or(Place::Unknown, |content| place_of_content(&content, driver)))
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(SNAPSHOTS, "v1", kind), plural)
}

fn content_of(snapshot: &DynamicObject) -> Option<&str> {
    snapshot
        .data
        .pointer("/status/boundVolumeSnapshotContentName")?
        .as_str()
}

fn place_of_content(content: &DynamicObject, driver: &str) -> Place {
    let theirs = content.data.pointer("/spec/driver");
    if theirs.and_then(|driver| driver.as_str()) != Some(driver) {
        return Place::Anywhere;
    }
    match content.labels().get(MANAGED_BY) {
        Some(node) if !node.is_empty() => Place::Node(node.clone()),
        Some(_) | None => Place::Anywhere,
    }
}

async fn place_of_claim(
    context: &Context,
    namespace: &str,
    name: &str,
    driver: &str,
) -> Result<Place, kube::Error> {
    let claim = context
        .of::<PersistentVolumeClaim>(namespace)
        .get_opt(name)
        .await?;
    let volume = claim
        .and_then(|claim| claim.spec?.volume_name)
        .filter(|volume| !volume.is_empty());
    let Some(volume) = volume else {
        return Ok(Place::Unknown);
    };
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    let Some(volume) = volumes.get_opt(&volume).await? else {
        return Ok(Place::Unknown);
    };
    let Some(selector) = nodes_of_volume(&volume, driver) else {
        return Ok(Place::Anywhere);
    };
    // Two are enough to know that it is not one.
    let nodes = Api::<Node>::all(context.client.clone())
        .list_metadata(&ListParams::default().labels_from(&selector).limit(2))
        .await?;
    Ok(match nodes.items.as_slice() {
        [node] => Place::Node(node.name_any()),
        _ => Place::Anywhere,
    })
}

/// The labels of the nodes that reach a volume of `driver`, where its node affinity is such that
/// labels tell.
fn nodes_of_volume(volume: &PersistentVolume, driver: &str) -> Option<Selector> {
    let spec = volume.spec.as_ref()?;
    if spec.csi.as_ref()?.driver != driver {
        return None;
    }
    // Terms are alternatives; a selector has none.
    match spec
        .node_affinity
        .as_ref()?
        .required
        .as_ref()?
        .node_selector_terms
        .as_slice()
    {
        [term] => selector(term),
        _ => None,
    }
}

/// What the labels of a node must be for a term; none where it is about something else.
pub fn selector(term: &NodeSelectorTerm) -> Option<Selector> {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    if term
        .match_fields
        .as_ref()
        .is_some_and(|fields| !fields.is_empty())
        || expressions.is_empty()
    {
        return None;
    }
    let read = |expression: &k8s_openapi::api::core::v1::NodeSelectorRequirement| {
        let key = expression.key.clone();
        let values = expression.values.clone().unwrap_or_default();
        match expression.operator.as_str() {
            "In" => Some(Expression::In(key, values.into_iter().collect())),
            "NotIn" => Some(Expression::NotIn(key, values.into_iter().collect())),
            "Exists" => Some(Expression::Exists(key)),
            "DoesNotExist" => Some(Expression::DoesNotExist(key)),
            _ => None,
        }
    };
    expressions.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn source(spec: &Value) -> Option<Source> {
        let claim = json!({"metadata": {"namespace": "own"}, "spec": spec});
        of(&serde_json::from_value(claim).unwrap())
    }

    #[test]
    fn snapshots_and_claims_are_sources_and_nothing_else() {
        let snapshot = json!({"apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": "s"});
        let claim = json!({"kind": "PersistentVolumeClaim", "name": "c"});
        let of_kind = |kind, name: &str| {
            Some(Source {
                kind,
                namespace: None,
                name: name.to_owned(),
            })
        };
        let s = of_kind(Kind::Snapshot, "s");
        assert_eq!(source(&json!({"dataSource": snapshot})), s);
        assert_eq!(
            source(&json!({"dataSource": snapshot, "dataSourceRef": snapshot})),
            s
        );
        assert_eq!(source(&json!({"dataSourceRef": snapshot})), s);
        assert_eq!(
            source(&json!({"dataSourceRef": claim})),
            of_kind(Kind::Claim, "c")
        );
        let backup = json!({"apiGroup": crds::GROUP, "kind": "VolumeBackup", "name": "b"});
        assert_eq!(source(&json!({"dataSourceRef": backup})), None);
        assert_eq!(source(&json!({})), None);
    }

    #[test]
    fn a_source_may_be_of_another_namespace() {
        let snapshot = |namespace: &str| {
            let snapshot = json!({
                "apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": "s", "namespace": namespace,
            });
            source(&json!({"dataSourceRef": snapshot})).unwrap()
        };
        assert_eq!(snapshot("own").namespace, None);
        assert_eq!(snapshot("own").to_string(), "the VolumeSnapshot s");
        assert_eq!(snapshot("other").namespace.as_deref(), Some("other"));
        assert_eq!(snapshot("other").to_string(), "the VolumeSnapshot other/s");
    }

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_snapshot_lies_where_it_is_managed() {
        let content = |driver: &str, labels: Value| {
            object(json!({
                "metadata": {"name": "snapcontent-1", "labels": labels},
                "spec": {"driver": driver},
            }))
        };
        let labelled = content("d", json!({MANAGED_BY: "a"}));
        assert_eq!(
            place_of_content(&labelled, "d"),
            Place::Node("a".to_owned())
        );
        assert_eq!(place_of_content(&labelled, "other"), Place::Anywhere);
        let central = content("d", json!({}));
        assert_eq!(place_of_content(&central, "d"), Place::Anywhere);
        let bound = object(json!({
            "metadata": {}, "status": {"boundVolumeSnapshotContentName": "snapcontent-1"},
        }));
        assert_eq!(content_of(&bound), Some("snapcontent-1"));
        assert_eq!(content_of(&object(json!({"metadata": {}}))), None);
    }

    fn labels(terms: &Value) -> Option<String> {
        let volume = serde_json::from_value(json!({
            "spec": {
                "csi": {"driver": "d", "volumeHandle": "h"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            },
        }))
        .unwrap();
        assert_eq!(nodes_of_volume(&volume, "other"), None);
        nodes_of_volume(&volume, "d").map(|selector| selector.to_string())
    }

    #[test]
    fn a_volume_lies_on_the_nodes_that_its_affinity_names() {
        let term = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let one = term("topology.d/node", "In", json!(["a"]));
        assert_eq!(
            labels(&json!([one])).as_deref(),
            Some("topology.d/node in (a)")
        );
        assert_eq!(labels(&json!([one, one])), None, "alternatives");
        assert_eq!(labels(&json!([term("size", "Gt", json!(["3"]))])), None);
        assert_eq!(labels(&json!([{}])), None);
        let mut by_name = one;
        by_name["matchFields"] =
            json!([{"key": "metadata.name", "operator": "In", "values": ["a"]}]);
        assert_eq!(labels(&json!([by_name])), None);
        let free = serde_json::from_value(json!({
            "spec": {"csi": {"driver": "d", "volumeHandle": "h"}},
        }))
        .unwrap();
        assert_eq!(nodes_of_volume(&free, "d"), None);
    }
}
