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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn csi_sanity_finds_nothing() {
    let program = program();
    let bench = Bench::new();
    let driver = bench.start().await;
    let output = Command::new(program)
        .arg(format!(
            "--csi.endpoint=unix://{}",
            bench.path("csi.sock").display()
        ))
        .arg(format!(
            "--csi.mountdir={}",
            bench.path("mounts/sanity-mount").display()
        ))
        .arg(format!(
            "--csi.stagingdir={}",
            bench.path("mounts/sanity-staging").display()
        ))
        .args(["--csi.testvolumesize=33554432", "--ginkgo.no-color"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let summary: Vec<_> = said
        .lines()
        .filter(|line| line.contains(" Specs in ") || line.contains(" Passed | "))
        .collect();
    println!("{}", summary.join("\n"));
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" 0 Failed"), "{said}");
    let ran = summary
        .iter()
        .find_map(|line| line.strip_prefix("Ran "))
        .expect("a summary");
    let ran: u32 = ran.split(' ').next().unwrap().parse().unwrap();
    assert!(
        ran >= 30,
        "{ran} specs are too few: is the driver announcing what it can do?"
    );
    assert!(
        bench.volumes().is_empty(),
        "it cleans up behind itself: {:?}",
        bench.volumes()
    );
    assert!(driver.terminate().success());
}
