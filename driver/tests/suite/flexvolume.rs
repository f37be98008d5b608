//! FlexVolume, called as kubelet calls it.

use std::path::Path;

use csi::v1::ListVolumesRequest;
use driver::kernel::mounting;
use serde_json::{Value, json};

use crate::support::{Bench, Driver, MIB};

/// What is answered, and whether the exit code says the same.
fn call(bench: &Bench, words: &[&str]) -> Value {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_driver"))
        .env_clear()
        .env("FASTCOPY_ENDPOINT", bench.path("csi.sock"))
        .arg("flexvolume")
        .args(words)
        .output()
        .unwrap();
    // Kubelet reads both outputs as one.
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{words:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), answer["status"] == "Success");
    answer
}

fn options(further: &Value) -> String {
    let mut options = json!({
        "kubernetes.io/fsType": "xfs",
        "kubernetes.io/readwrite": "rw",
        "kubernetes.io/pvOrVolumeName": "pv-1",
        "kubernetes.io/pod.name": "pod",
        "kubernetes.io/pod.namespace": "default",
        "kubernetes.io/pod.uid": "0",
        "kubernetes.io/serviceAccount.name": "default",
        "kubernetes.io/secret/key": "c2VjcmV0",
        "volume": "data",
        "size": "300Mi",
    });
    for (key, value) in further.as_object().unwrap() {
        options[key] = value.clone();
    }
    options.to_string()
}

/// A directory, as kubelet makes it before it calls.
fn directory(bench: &Bench, pod: &str) -> String {
    let path = bench.target(pod);
    std::fs::create_dir_all(&path).unwrap();
    path
}

async fn volumes(driver: &mut Driver) -> Vec<(String, i64)> {
    let listed = driver
        .controller
        .list_volumes(ListVolumesRequest::default());
    let entries = listed.await.unwrap().into_inner().entries;
    let volumes = entries.into_iter().map(|it| it.volume.unwrap());
    volumes
        .map(|it| (it.volume_id, it.capacity_bytes))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_its_volume_and_gives_it_back() {
    for arguments in [&[][..], &["--attach"]] {
        let bench = Bench::new();
        let own = ["--pool-size=1Gi", "--pool-sparse", "--no-http"];
        let mut driver = bench.start_with(&[&own, arguments].concat()).await;
        lives_and_goes(&bench, &mut driver).await;
    }
}

async fn lives_and_goes(bench: &Bench, driver: &mut Driver) {
    let init = call(bench, &["init"]);
    assert_eq!(init["status"], "Success");
    assert_eq!(init["capabilities"]["attach"], false);
    assert_eq!(init["capabilities"]["supportsMetrics"], false);
    assert_eq!(init["capabilities"]["requiresFSResize"], true);
    let plain = options(&json!({}));
    let name = call(bench, &["getvolumename", &plain]);
    assert_eq!(name["volumeName"], "flexvolume-data");

    let (first, second) = (directory(bench, "first"), directory(bench, "second"));
    for _ in 0..2 {
        let mounted = call(bench, &["mount", &first, &plain]);
        assert_eq!(mounted, json!({"status": "Success"}));
    }
    std::fs::write(Path::new(&first).join("file"), b"words").unwrap();
    let reader = options(&json!({"kubernetes.io/readwrite": "ro"}));
    assert_eq!(
        call(bench, &["mount", &second, &reader])["status"],
        "Success"
    );
    let file = Path::new(&second).join("file");
    assert_eq!(std::fs::read(&file).unwrap(), b"words");
    let refused = std::fs::write(&file, b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    let size = || {
        let space = rustix::fs::statvfs(&first).unwrap();
        (space.f_blocks * space.f_frsize) >> 20
    };
    let before = size();
    let new = (400 * MIB).to_string();
    let grown = call(bench, &["expandvolume", &plain, "", &new, "0"]);
    assert_eq!(
        grown,
        json!({"status": "Success", "volumeNewSize": 400 * MIB})
    );
    let new = (500 * MIB).to_string();
    let grown = call(bench, &["expandfs", &plain, "", &first, &new, "0"]);
    assert_eq!(
        grown,
        json!({"status": "Success", "volumeNewSize": 500 * MIB})
    );
    assert!(size() >= before + 195, "{before} {}", size());

    assert_eq!(call(bench, &["unmount", &first])["status"], "Success");
    assert!(!Path::new(&first).exists());
    assert_eq!(std::fs::read(&file).unwrap(), b"words", "another pod's");
    assert_eq!(call(bench, &["unmount", &second])["status"], "Success");
    assert_eq!(call(bench, &["unmount", &second])["status"], "Success");
    assert_eq!(bench.loops().len(), 1, "only the pool's own device is left");
    assert_eq!(bench.mounts().len(), 1, "{:?}", bench.mounts());

    let again = directory(bench, "again");
    assert_eq!(call(bench, &["mount", &again, &plain])["status"], "Success");
    assert_eq!(
        std::fs::read(Path::new(&again).join("file")).unwrap(),
        b"words"
    );
    assert_eq!(call(bench, &["unmount", &again])["status"], "Success");
    let volumes = volumes(driver).await;
    assert_eq!((volumes.len(), volumes[0].1), (1, 500 * MIB), "it stays");
    driver.delete(&volumes[0].0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_and_leaves_nothing() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let target = directory(&bench, "pod");
    for (further, words) in [
        (json!({"volume": ""}), "the option volume is missing"),
        (json!({"size": "1GB"}), "write one like 20Gi"),
        (json!({"size": "100Gi"}), "left to promise"),
        (json!({"kubernetes.io/fsType": "ntfs"}), "CreateVolume"),
        (json!({"provisionin": "thick"}), "provisioning"),
    ] {
        let failed = call(&bench, &["mount", &target, &options(&further)]);
        assert_eq!(failed["status"], "Failure", "{failed}");
        let message = failed["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
    assert!(bench.volumes().is_empty());
    let missing = bench.path("missing/pod").display().to_string();
    let failed = call(&bench, &["mount", &missing, &options(&json!({}))]);
    assert_eq!(failed["status"], "Failure", "{failed}");
    assert_eq!(
        bench.loops().len(),
        1,
        "a volume that did not mount is released"
    );
    assert_eq!(call(&bench, &["unmount", &missing])["status"], "Success");
    let foreign = call(&bench, &["unmount", "/proc"]);
    assert!(
        foreign["message"].as_str().unwrap().contains("left alone"),
        "{foreign}"
    );
    assert!(Path::new("/proc/self").exists());

    let elsewhere = options(&json!({"volume": "elsewhere"}));
    let words = ["expandvolume", &elsewhere, "", "1048576", "0"];
    assert_eq!(call(&bench, &words)["status"], "Not supported");
    for unknown in ["attach", "waitforattach", "isattached", "mountdevice"] {
        assert_eq!(call(&bench, &[unknown, "{}"])["status"], "Not supported");
    }
    for (id, _) in volumes(&mut driver).await {
        driver.delete(&id).await.unwrap();
    }
    driver.kill();
    let gone = call(&bench, &["mount", &target, &options(&json!({}))]);
    assert_eq!(gone["status"], "Failure", "{gone}");
    assert_eq!(call(&bench, &words)["status"], "Not supported");
}

/// As the kernel lets it, which for ext4 in use depends on the driver's privileges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ext4_grows_by_the_time_it_is_mounted_again() {
    let bench = Bench::new();
    let _driver = bench.start().await;
    let target = directory(&bench, "pod");
    let ext4 = options(&json!({"kubernetes.io/fsType": "ext4", "size": "64Mi"}));
    assert_eq!(
        call(&bench, &["mount", &target, &ext4])["status"],
        "Success"
    );
    let new = (128 * MIB).to_string();
    let words = ["expandfs", &ext4, "", &target, &new, "0"];
    let grown = call(&bench, &words);
    assert_eq!(
        grown["status"] == "Success",
        mounting::can_grow_ext4(),
        "{grown}"
    );
    assert_eq!(call(&bench, &["unmount", &target])["status"], "Success");
    let target = directory(&bench, "pod");
    assert_eq!(
        call(&bench, &["mount", &target, &ext4])["status"],
        "Success"
    );
    assert_eq!(call(&bench, &words)["status"], "Success");
    let space = rustix::fs::statvfs(&target).unwrap();
    assert!(space.f_blocks * space.f_frsize > 100 << 20);
    assert_eq!(call(&bench, &["unmount", &target])["status"], "Success");
}
