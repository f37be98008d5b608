use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn answers_are_as_kubelet_reads_them() {
    let json = |answer: Answer| answer.json().unwrap();
    assert_eq!(json(Answer::SUCCESS), r#"{"status":"Success"}"#);
    assert_eq!(
        json(Answer::not_supported("x".into())),
        r#"{"status":"Not supported","message":"x"}"#
    );
    assert_eq!(
        json(Answer::failure("a \"b\"".into())),
        r#"{"status":"Failure","message":"a \"b\""}"#
    );
    assert_eq!(
        json(resized(4096)),
        r#"{"status":"Success","volumeNewSize":4096}"#
    );
    assert_eq!(
        serde_json::to_string(&CAPABILITIES).unwrap(),
        "{\"attach\":false,\"selinuxRelabel\":true,\"supportsMetrics\":false,\
         \"fsGroup\":true,\"requiresFSResize\":true}"
    );
}

#[test]
fn options_of_kubelet_secrets_and_class_are_told_apart() {
    let json = r#"{"kubernetes.io/fsType":"xfs","kubernetes.io/readwrite":"ro",
        "kubernetes.io/pvOrVolumeName":"pv","kubernetes.io/secret/key":"c2VjcmV0",
        "volume":"data","size":"1Gi","provisioning":"thick"}"#;
    let options = Options::parse(json).unwrap();
    assert_eq!(options.name(), "flexvolume-data");
    assert_eq!(options.size, Some(1 << 30));
    assert_eq!(options.file_system, "xfs");
    assert!(options.read_only);
    let parameters = BTreeMap::from([("provisioning".to_owned(), "thick".to_owned())]);
    assert_eq!(options.parameters, parameters);
    for (json, reason) in [
        ("{}", "option volume is missing"),
        (r#"{"volume":""}"#, "option volume is missing"),
        (r#"{"volume":"a","size":"1GB"}"#, "is not a size"),
        (
            r#"{"volume":"a","size":"9223372036854775808"}"#,
            "too large",
        ),
        (r#"{"volume":1}"#, "JSON object of texts"),
        ("", "JSON object of texts"),
    ] {
        let error = Options::parse(json).unwrap_err().to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
}

#[test]
fn calls_have_their_arguments_or_are_none() {
    let json = r#"{"volume":"a"}"#;
    let mount = parse(&words(&["mount", "/dir", json])).unwrap();
    assert!(matches!(mount, Some(Call::Mount(..))));
    let expand = parse(&words(&["expandfs", json, "", "/dir", "4096", "0"])).unwrap();
    assert!(matches!(expand, Some(Call::ExpandFs(_, _, 4096))));
    for unknown in [&["attach", json, "node"][..], &["waitforattach"], &[]] {
        assert_eq!(parse(&words(unknown)).unwrap(), None, "{unknown:?}");
    }
    for wrong in [
        &["mount", "/dir"][..],
        &["unmount"],
        &["expandvolume", json, "/dev/loop1", "-1", "0"],
        &["expandfs", json],
    ] {
        assert!(parse(&words(wrong)).is_err(), "{wrong:?}");
    }
}
