//! The checked-in YAML is the one that the code generates, and each table is worth looking at.

use std::{fs, path::Path};

#[test]
fn checked_in_yaml_is_generated_from_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, content) in crds::yaml::files() {
        let stored = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert_eq!(stored, content, "crds/{name} is stale: run `make crds`");
    }
}

#[test]
fn every_table_tells_more_than_the_age_and_every_status_can_be_waited_for() {
    for definition in crds::yaml::definitions() {
        let kind = &definition.spec.names.kind;
        let version = &definition.spec.versions[0];
        let columns = version
            .additional_printer_columns
            .as_deref()
            .unwrap_or_default();
        assert!(columns.len() >= 5, "{kind} shows {} columns", columns.len());
        assert!(columns.iter().all(|column| !column.json_path.is_empty()));
        let schema = serde_json::to_value(&version.schema).unwrap();
        let status = &schema["openAPIV3Schema"]["properties"]["status"]["properties"];
        assert!(
            status["observedGeneration"].is_object(),
            "{kind} lacks observedGeneration"
        );
        assert!(
            status["conditions"]["x-kubernetes-list-type"] == "map" || kind == "RestoreOrder",
            "{kind} lacks conditions"
        );
    }
}
