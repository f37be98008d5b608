//! The CustomResourceDefinitions as YAML, one file each, as they are checked in beside this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{BackupStore, RestoreOrder, VolumeBackup, VolumeRestore};

/// All definitions, in the order in which they are worth reading.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        VolumeBackup::crd(),
        BackupStore::crd(),
        VolumeRestore::crd(),
        RestoreOrder::crd(),
    ]
}

/// The checked-in files: name and content.
///
/// # Panics
///
/// Never with the definitions of this crate: they are plain data, which always serializes.
pub fn files() -> Vec<(String, String)> {
    definitions()
        .into_iter()
        .map(|definition| {
            let yaml = serde_saphyr::to_string(&definition).expect("plain data serializes");
            let name = format!("{}.yaml", definition.spec.names.plural);
            (
                name,
                format!("# Generated from crds/src by `make crds`; do not edit.\n{yaml}"),
            )
        })
        .collect()
}
