//! Telling Kubernetes that VolumeBackups are a data source: a VolumePopulator object, where the
//! cluster has that kind. Without it volume-data-source-validator warns of every PVC.

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::json;

use super::api;
use crate::failpoint;

const NAME: &str = "volumebackup.backup.example.com";

/// The kind may be installed later; one request in this time is cheap enough.
const PAUSE: Duration = Duration::from_secs(300);

/// Creates the object; returns when it is there.
pub async fn register(client: Client) {
    let kind = GroupVersionKind::gvk("populator.storage.k8s.io", "v1beta1", "VolumePopulator");
    let resource = ApiResource::from_gvk_with_plural(&kind, "volumepopulators");
    let populators = Api::<DynamicObject>::all_with(client, &resource);
    // Not a spec: the kind has its one field at the top.
    let object = DynamicObject::new(NAME, &resource).data(json!({
        "sourceKind": { "group": crds::GROUP, "kind": "VolumeBackup" },
    }));
    loop {
        failpoint::reached("controller.register.before");
        let created = populators.create(&PostParams::default(), &object).await;
        failpoint::reached("controller.register.after");
        match created {
            Ok(_) => {
                tracing::info!(name = NAME, "registered as VolumePopulator");
                return;
            }
            Err(error) if api::already_exists(&error) => return,
            Err(error) if api::not_found(&error) => {
                tracing::debug!("this cluster has no VolumePopulator kind");
            }
            Err(error) => tracing::warn!(
                error = api::short(&error),
                "the VolumePopulator object could not be created; it is tried again"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
