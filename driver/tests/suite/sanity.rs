//! The CSI project's own test suite.

use std::path::{Path, PathBuf};
use std::process::Command;

use driver::kernel::mounting::can_grow_ext4;

use crate::support::Bench;

/// Where csi-sanity is, once `tests/tools/build` has built it.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools/build");
    let output = Command::new(&script).arg("--check").output().unwrap();
    assert!(
        output.status.success(),
        "csi-sanity is not there; run tests/tools/build first"
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()).join("csi-sanity")
}

/// Left out by name: it compares protobuf messages with Go's reflect.DeepEqual, and one that was
/// sent has its size cached where one that was received has not, so no driver that reports the
/// topology of its snapshots can pass. Not to report it would say that they are usable anywhere.
const LEFT_OUT: &str = "creating a snapshot with accessibility requirements";

/// What is run: the suite as a whole for mounted and for block volumes, with everything that the
/// driver can announce; and what applies as it is installed by default.
const RUNS: [(&str, &[&str], &str); 3] = [
    ("mount", &ALL, "Ran 101 of 103 Specs"),
    ("block", &ALL, "Ran 101 of 103 Specs"),
    ("mount", &[], "Ran 88 of 103 Specs"),
];

const ALL: [&str; 3] = ["--attach", "--controller-expansion", "--max-volumes=3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csi_sanity_finds_nothing() {
    for (access, arguments, summary) in RUNS {
        run(access, arguments, summary).await;
    }
}

async fn run(access: &str, arguments: &[&str], summary: &str) {
    let bench = Bench::new();
    let own = ["--pool-size=8Gi", "--pool-sparse", "--no-http"];
    // It wants volumes to grow while they are published, which ext4 only does for a driver with
    // CAP_SYS_RESOURCE. Where that is not to be had, XFS stands in for it.
    let file_system = if can_grow_ext4() { "ext4" } else { "xfs" };
    let driver = bench.start_with(&[&own, arguments].concat()).await;
    let path = |name: &str| bench.path(name).display().to_string();
    std::fs::write(bench.path("attributes.yaml"), "readAheadKiB: \"1024\"\n").unwrap();
    let class = format!("fsType: \"{file_system}\"\n");
    std::fs::write(bench.path("class.yaml"), class).unwrap();
    std::fs::write(bench.path("snapshots.yaml"), "freeze: \"true\"\n").unwrap();
    let output = Command::new(program())
        .arg(format!("--csi.endpoint=unix://{}", path("csi.sock")))
        .arg(format!("--csi.mountdir={}", path("mounts/sanity-mount")))
        .arg(format!(
            "--csi.stagingdir={}",
            path("mounts/sanity-staging")
        ))
        .arg(format!(
            "--csi.testvolumemutableparameters={}",
            path("attributes.yaml")
        ))
        .arg(format!(
            "--csi.testsnapshotparameters={}",
            path("snapshots.yaml")
        ))
        .arg(format!("--csi.testvolumeaccesstype={access}"))
        .arg(format!("--csi.testvolumeparameters={}", path("class.yaml")))
        .args([
            "--csi.testvolumesize=335544320",
            "--csi.testvolumeexpandsize=402653184",
        ])
        .args(["--csi.testnodevolumeattachlimit", "--ginkgo.no-color"])
        .args(["--ginkgo.skip", LEFT_OUT])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!(
        "csi-sanity, {access} volumes, driver {}:",
        arguments.join(" ")
    );
    for line in said.lines() {
        if line.starts_with("Ran ") || line.contains(" Passed | ") || line.contains("[FAIL]") {
            println!("  {line}");
        }
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" 0 Failed"), "{said}");
    assert!(
        said.contains(summary),
        "{summary}: is the driver announcing what it can do? {said}"
    );
    assert!(
        bench.volumes().is_empty() && bench.snapshots().is_empty(),
        "it cleans up behind itself: {:?} {:?}",
        bench.volumes(),
        bench.snapshots()
    );
    assert!(driver.terminate().success());
}
