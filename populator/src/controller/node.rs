//! What Kubernetes knows of nodes: which take no pods, and whether one that does not answer is down.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

/// For how long a list of nodes counts: many PVCs that come together are served by one.
const FRESH: Duration = Duration::from_secs(5);

/// The nodes that are cordoned, as they were a moment ago.
#[derive(Debug, Default)]
pub struct Cordoned(Mutex<Option<(Instant, Arc<BTreeSet<String>>)>>);

impl Cordoned {
    /// Their names, where they were asked for of late.
    pub fn known(&self) -> Option<Arc<BTreeSet<String>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, names) = known.as_ref().filter(|(at, _)| at.elapsed() < FRESH)?;
        Some(Arc::clone(names))
    }

    /// Asks the API server for them.
    pub async fn look(&self, client: &Client) -> Result<Arc<BTreeSet<String>>, kube::Error> {
        let cordoned = ListParams::default().fields("spec.unschedulable=true");
        let nodes = Api::<Node>::all(client.clone())
            .list_metadata(&cordoned)
            .await?;
        let names: Arc<BTreeSet<_>> = Arc::new(nodes.iter().map(ResourceExt::name_any).collect());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), Arc::clone(&names)));
        Ok(names)
    }
}

/// After so long without a kubelet, Kubernetes gives a node's pods up too
/// (`tolerationSeconds` of `node.kubernetes.io/unreachable`).
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// By which an administrator says that a node is down for certain (KEP-2268, non-graceful node shutdown).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether the node is down: an administrator says so, or its kubelet has not been ready for long.
pub fn is_down(node: &Node, now: Timestamp) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    if taints
        .into_iter()
        .flatten()
        .any(|taint| taint.key == OUT_OF_SERVICE)
    {
        return true;
    }
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    ready.is_some_and(|ready| {
        let since = ready.last_transition_time.as_ref();
        ready.status != "True" && since.is_some_and(|since| now.duration_since(since.0) >= PATIENCE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_down_where_that_is_certain() {
        let down = |taint: &str, ready: &str, since: &str| {
            let node = serde_json::from_value(json!({
                "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [
                    {"type": "MemoryPressure", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"},
                    {"type": "Ready", "status": ready, "lastTransitionTime": since},
                ]},
            }));
            is_down(&node.unwrap(), "2026-01-01T00:05:00Z".parse().unwrap())
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        assert!(down("other", "Unknown", early) && down("other", "False", early));
        assert!(!down("other", "Unknown", late) && !down("other", "True", early));
        assert!(down(OUT_OF_SERVICE, "True", late));
        assert!(!is_down(&Node::default(), Timestamp::now()));
    }
}
