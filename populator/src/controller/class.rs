//! A StorageClass as far as a restore is concerned.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt as _;

use super::refusal::Refusal;

/// Parameters under this prefix are for the sidecars, not for the driver.
///
/// Source: external-provisioner, "StorageClass parameters".
const SIDECARS: &str = "csi.storage.k8s.io/";
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// A StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// The CSI driver.
    pub driver: String,
    /// Whether the scheduler chooses the node.
    pub waits_for_consumer: bool,
    /// Whether it restricts where volumes may lie.
    pub allowed_topologies: bool,
    /// What becomes of the volume when its PVC goes.
    pub reclaim_policy: String,
    /// Mount options of its volumes.
    pub mount_options: Vec<String>,
    /// The file system, empty for the driver's default.
    pub fs_type: String,
    /// What the driver gets.
    pub parameters: BTreeMap<String, String>,
    /// The parameters by which Secrets are handed to the driver.
    pub secrets: BTreeMap<String, String>,
}

/// What begins the name of a Secret that follows from the PVC's own.
const OF_THE_CLAIM: &str = "${pvc.";

/// What begins the names of provisioners that are none of CSI.
const IN_TREE: &str = "kubernetes.io/";

impl Class {
    /// Reads a StorageClass.
    pub fn read(class: &StorageClass) -> Self {
        let parameters = class.parameters.clone().unwrap_or_default();
        let fs_type = parameters
            .get(FS_TYPE)
            // The name from before CSI, which external-provisioner still takes.
            .or_else(|| parameters.get("fstype"))
            .cloned()
            .unwrap_or_default();
        let names_secret = |name: &String| {
            let suffixes = ["-secret-name", "-secret-namespace"];
            name.starts_with(SIDECARS) && suffixes.iter().any(|it| name.ends_with(it))
        };
        let secrets = parameters.iter().filter(|(name, _)| names_secret(name));
        let secrets = secrets
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self {
            name: class.name_any(),
            driver: class.provisioner.clone(),
            waits_for_consumer: class.volume_binding_mode.as_deref()
                == Some("WaitForFirstConsumer"),
            allowed_topologies: class
                .allowed_topologies
                .as_ref()
                .is_some_and(|terms| !terms.is_empty()),
            reclaim_policy: class
                .reclaim_policy
                .clone()
                .unwrap_or_else(|| "Delete".to_owned()),
            mount_options: class.mount_options.clone().unwrap_or_default(),
            fs_type,
            parameters: parameters
                .into_iter()
                .filter(|(name, _)| !name.starts_with(SIDECARS) && name != "fstype")
                .collect(),
            secrets,
        }
    }

    /// What speaks against restores into volumes of this class, which the agent makes if the way
    /// `is_direct`, and otherwise the driver's own provisioner.
    pub fn refusal(&self, is_direct: bool) -> Option<Refusal> {
        if self.driver.starts_with(IN_TREE) {
            return Some(Refusal::NotCsi {
                class: self.name.clone(),
                provisioner: self.driver.clone(),
            });
        }
        let class = || self.name.clone();
        if let (true, Some(parameter)) = (is_direct, self.secrets.keys().next()) {
            let (class, parameter) = (class(), parameter.clone());
            return Some(Refusal::ClassSecrets { class, parameter });
        }
        let templates = |(_, value): &(&String, &String)| value.contains(OF_THE_CLAIM);
        if let Some((parameter, _)) = self.secrets.iter().find(templates) {
            let (class, parameter) = (class(), parameter.clone());
            return Some(Refusal::ClassTemplates { class, parameter });
        }
        (self.allowed_topologies && !self.waits_for_consumer).then(|| Refusal::ClassTopologies {
            class: self.name.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(parameters: &serde_json::Value) -> Class {
        Class::read(
            &serde_json::from_value(json!({
                "metadata": {"name": "fast"},
                "provisioner": "d.example.com",
                "volumeBindingMode": "WaitForFirstConsumer",
                "parameters": parameters,
            }))
            .unwrap(),
        )
    }

    #[test]
    fn sidecar_parameters_stay_with_the_sidecars() {
        let class = class(&json!({"csi.storage.k8s.io/fstype": "xfs", "speed": "high"}));
        assert_eq!(class.fs_type, "xfs");
        assert_eq!(class.reclaim_policy, "Delete");
        assert_eq!(
            class.parameters,
            BTreeMap::from([("speed".to_owned(), "high".to_owned())])
        );
        assert_eq!((class.refusal(true), class.refusal(false)), (None, None));
    }

    #[test]
    fn refusals() {
        let mut in_tree = class(&json!({}));
        in_tree.driver = "kubernetes.io/no-provisioner".to_owned();
        assert_eq!(
            in_tree.refusal(false).unwrap().reason(),
            "DriverUnsupported"
        );
        let node = class(&json!({"csi.storage.k8s.io/node-stage-secret-name": "s"}));
        let controller = class(&json!({"csi.storage.k8s.io/provisioner-secret-name": "s"}));
        for class in [node, controller] {
            let refused = class.refusal(true);
            assert!(matches!(refused, Some(Refusal::ClassSecrets { .. })));
            assert_eq!(class.refusal(false), None);
        }
        let template = json!({"csi.storage.k8s.io/provisioner-secret-name": "${pvc.name}"});
        let refused = class(&template).refusal(false);
        assert!(matches!(refused, Some(Refusal::ClassTemplates { .. })));
        let mut immediate = class(&json!({}));
        immediate.waits_for_consumer = false;
        immediate.allowed_topologies = true;
        assert!(matches!(
            immediate.refusal(true),
            Some(Refusal::ClassTopologies { .. })
        ));
    }
}
