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
    /// A parameter by which Secrets would be handed to the driver.
    pub secret_parameter: Option<String>,
}

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
        let secret_parameter = parameters
            .keys()
            .find(|name| name.starts_with(SIDECARS) && name.ends_with("-secret-name"))
            .cloned();
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
            secret_parameter,
        }
    }

    /// What speaks against restores into volumes of this class.
    pub fn refusal(&self, drivers: &[String]) -> Option<Refusal> {
        if !drivers.contains(&self.driver) {
            return Some(Refusal::ForeignDriver {
                class: self.name.clone(),
                driver: self.driver.clone(),
                supported: drivers.join(", "),
            });
        }
        if let Some(parameter) = &self.secret_parameter {
            return Some(Refusal::ClassSecrets {
                class: self.name.clone(),
                parameter: parameter.clone(),
            });
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
        assert_eq!(class.refusal(&["d.example.com".to_owned()]), None);
    }

    #[test]
    fn refusals() {
        let drivers = ["d.example.com".to_owned()];
        let foreign = class(&json!({})).refusal(&["other".to_owned()]).unwrap();
        assert_eq!(foreign.reason(), "DriverUnsupported");
        assert!(foreign.to_string().contains("d.example.com"));
        let secrets = class(&json!({"csi.storage.k8s.io/node-stage-secret-name": "s"}));
        assert!(matches!(
            secrets.refusal(&drivers),
            Some(Refusal::ClassSecrets { .. })
        ));
        let mut immediate = class(&json!({}));
        immediate.waits_for_consumer = false;
        immediate.allowed_topologies = true;
        assert!(matches!(
            immediate.refusal(&drivers),
            Some(Refusal::ClassTopologies { .. })
        ));
    }
}
