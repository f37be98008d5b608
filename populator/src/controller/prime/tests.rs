use super::*;
use crate::controller::claim::tests::example;
use crate::controller::decision::tests::order;
use serde_json::{Value, json};

fn volume(change: impl FnOnce(&mut Value)) -> PersistentVolume {
    let mut value = json!({
        "metadata": {
            "name": "pvc-prime", "annotations": {PROVISIONED_BY: "d"},
            "creationTimestamp": "2026-01-01T00:00:01Z",
        },
        "spec": {
            "capacity": {"storage": "1Ki"},
            "claimRef": {"uid": "p1"},
            "mountOptions": ["noatime"],
            "csi": {"driver": "d", "volumeHandle": "h", "fsType": "xfs",
                    "volumeAttributes": {"a": "b"}},
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn prime() -> PrimeClaim {
    PrimeClaim {
        uid: "p1".to_owned(),
        order: "o1".to_owned(),
        created: Some("2026-01-01T00:00:01Z".parse().unwrap()),
        deleting: false,
        lost: false,
        volume: Some("pvc-prime".to_owned()),
        selected_node: None,
    }
}

#[test]
fn what_was_provisioned_is_taken_over() {
    let wanted = order(|_| ()).spec.volume;
    let made = provisioned(&volume(|_| ()), &prime(), &wanted).unwrap();
    assert_eq!(made.volume.handle, "h");
    assert_eq!(made.volume.capacity_bytes, 1024);
    assert_eq!(
        (made.fs_type.as_str(), &made.mount_options[..]),
        ("xfs", &["noatime".to_owned()][..])
    );
    for (pointer, value, unfit) in [
        ("/spec/claimRef/uid", json!("other"), Unfit::Found),
        ("/metadata/annotations", json!({}), Unfit::Found),
        (
            "/metadata/annotations",
            json!({PROVISIONED_BY: "d", BOUND_BY_CONTROLLER: "yes"}),
            Unfit::Found,
        ),
        (
            "/metadata/creationTimestamp",
            json!("2025-12-31T23:59:00Z"),
            Unfit::Found,
        ),
        ("/spec/csi/driver", json!("e"), Unfit::OtherDriver),
        ("/spec/csi", Value::Null, Unfit::OtherDriver),
    ] {
        let volume = volume(|volume| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            volume.pointer_mut(parent).unwrap()[key] = value;
        });
        assert_eq!(
            provisioned(&volume, &prime(), &wanted),
            Err(unfit),
            "{pointer}"
        );
    }
}

#[test]
fn a_volume_names_the_secrets_for_its_driver() {
    let read = |csi: Value| {
        let named = |volume: &mut Value| {
            let all = volume["spec"]["csi"].as_object_mut().unwrap();
            all.extend(csi.as_object().unwrap().clone());
        };
        let wanted = order(|_| ()).spec.volume;
        provisioned(&volume(named), &prime(), &wanted)
            .unwrap()
            .secrets
    };
    // Those of other calls are for others.
    assert_eq!(read(json!({"nodeExpandSecretRef": {"name": "s"}})), None);
    let read = read(json!({"nodeStageSecretRef": {"namespace": "n", "name": "s"}})).unwrap();
    let named = read.stage.unwrap();
    assert_eq!((&*named.namespace, &*named.name), ("n", "s"));
    assert_eq!((read.publish, &*read.sealed), (None, ""));
}

#[test]
fn the_prime_claim_is_the_users_for_the_node_of_the_order() {
    let mut users = example();
    users["metadata"]["labels"] = json!({"team": "a", CLAIM: "forged"});
    let users = Claim::read(&serde_json::from_value(users).unwrap()).unwrap();
    let order = order(|order| order.spec.volume.access_modes = vec!["ReadOnlyMany".into()]);
    let made = claim(&order, &users);
    assert_eq!(made.name_any(), "prime-u1");
    assert_eq!(made.namespace().as_deref(), Some("populator"));
    assert_eq!(made.labels()["team"], "a");
    assert_eq!(made.labels()[CLAIM], "u1");
    let key = concerned(&made.metadata).unwrap();
    assert_eq!(
        (key.namespace.as_str(), key.uid.as_str()),
        ("default", "u1")
    );
    assert_eq!(PrimeClaim::read(&made).selected_node.as_deref(), Some("n1"));
    let spec = made.spec.unwrap();
    assert_eq!(spec.storage_class_name.as_deref(), Some("fast-csi-storage"));
    assert_eq!(spec.access_modes.unwrap(), ["ReadWriteOnce"]);
    assert_eq!(spec.data_source_ref, None);
}

#[test]
fn attachments_have_the_name_that_kubelet_looks_for() {
    let given = provisioned(&volume(|_| ()), &prime(), &order(|_| ()).spec.volume).unwrap();
    let made = attachment(&order(|_| ()), &given);
    // printf 'hdn1' | sha256sum
    let digest = hex::encode(Sha256::digest(b"hdn1"));
    assert_eq!(made.name_any(), format!("csi-{digest}"));
    assert!(!Attachment::read(&made).attached);
}

#[test]
fn drivers_say_what_they_want() {
    let read = |spec: Value| {
        let driver = json!({"metadata": {"name": "d"}, "spec": spec});
        DriverWishes::read(Some(&serde_json::from_value(driver).unwrap()))
    };
    assert!(DriverWishes::read(None).prime.attach_required);
    let plain = read(json!({"attachRequired": false, "podInfoOnMount": true}));
    assert!(!plain.prime.attach_required && plain.prime.pod_info_on_mount);
    assert_eq!(plain.refusal("d"), None);
    assert!(
        read(json!({"requiresRepublish": true}))
            .refusal("d")
            .is_some()
    );
    let tokens = read(json!({"tokenRequests": [{"audience": "a"}]}));
    assert!(tokens.refusal("d").is_some());
}

#[test]
fn the_last_warning_counts() {
    let event = |kind: &str, time: &str, message: &str| -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "type": kind, "message": message,
            "lastTimestamp": time,
        }))
        .unwrap()
    };
    let said = complaint([
        event("Warning", "2026-01-01T00:00:02Z", "no room"),
        event("Warning", "2026-01-01T00:00:01Z", "an older one"),
        event("Normal", "2026-01-01T00:00:03Z", "waiting"),
    ]);
    assert_eq!(said.as_deref(), Some("no room"));
    assert_eq!(complaint([]), None);
}

#[test]
fn a_volume_says_from_where_it_is_reached() {
    let labels = |node: &str| BTreeMap::from([("node".to_owned(), node.to_owned())]);
    let at = |operator: &str| {
        volume(|volume| {
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "node", "operator": operator, "values": ["a"]}]},
            ]}});
        })
    };
    assert!(!is_elsewhere(&volume(|_| ()), &labels("b")));
    assert!(!is_elsewhere(&at("In"), &labels("a")));
    assert!(is_elsewhere(&at("In"), &labels("b")));
    assert!(!is_elsewhere(&at("Gt"), &labels("b")), "not understood");
}
