use std::collections::HashMap;
use std::io::Read as _;

use super::*;

fn entries(bytes: &[u8]) -> HashMap<String, Vec<u8>> {
    tar::Archive::new(bytes)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        })
        .collect()
}

#[test]
fn the_configuration_names_the_layer_by_its_digest() {
    let image = Image::builder("example/tool:dev")
        .text("/etc/greeting", "hello")
        .link("/bin/tool", "busybox")
        .entrypoint(&["/bin/tool", "--serve"])
        .build()
        .unwrap();
    let outer = entries(&std::fs::read(image.archive()).unwrap());
    let manifest: serde_json::Value = serde_json::from_slice(&outer["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["example/tool:dev"]));
    let config: serde_json::Value = serde_json::from_slice(&outer["config.json"]).unwrap();
    let digest = hex::encode(Sha256::digest(&outer["layer.tar"]));
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([format!("sha256:{digest}")])
    );
    assert_eq!(
        config["config"]["Entrypoint"],
        json!(["/bin/tool", "--serve"])
    );
    let layer = entries(&outer["layer.tar"]);
    assert_eq!(layer["etc/greeting"], b"hello");
    assert!(layer.contains_key("bin/tool") && layer.contains_key("tmp/"));
}

#[test]
fn a_program_brings_its_libraries() {
    let image = Image::program("example/ls:dev", Path::new("/bin/ls")).unwrap();
    let outer = entries(&std::fs::read(image.archive()).unwrap());
    let layer = entries(&outer["layer.tar"]);
    assert!(layer.contains_key("bin/ls"));
    assert!(
        layer.keys().any(|path| path.contains("libc.so.6")),
        "{:?}",
        layer.keys()
    );
}
