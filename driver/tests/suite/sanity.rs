//! The CSI project's own test suite.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// What is run: the suite as a whole for mounted and for block volumes, with everything that the
/// driver can announce; and what applies as it is installed by default.
const RUNS: [(&str, &[&str], &str); 3] = [
    ("mount", &ALL, "Ran 102 of 103 Specs"),
    ("block", &ALL, "Ran 102 of 103 Specs"),
    ("mount", &[], "Ran 91 of 103 Specs"),
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
    let own = ["--pool-size=1Gi", "--pool-sparse", "--no-http"];
    let driver = bench.start_with(&[&own, arguments].concat()).await;
    let path = |name: &str| bench.path(name).display().to_string();
    std::fs::write(bench.path("attributes.yaml"), "readAheadKiB: \"1024\"\n").unwrap();
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
        .args([
            "--csi.testvolumesize=33554432",
            "--csi.testvolumeexpandsize=67108864",
        ])
        .args(["--csi.testnodevolumeattachlimit", "--ginkgo.no-color"])
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
