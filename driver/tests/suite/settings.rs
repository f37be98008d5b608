//! Mistakes in the settings are told in one sentence, and pools are found where they are said to
//! be.

use std::process::Command;

use crate::support::Bench;

/// The exit code and what was said.
fn refused(bench: &Bench, arguments: &[&str]) -> (Option<i32>, String) {
    let output = bench.command(arguments).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn mistakes_end_with_code_2_and_one_line() {
    let bench = Bench::new();
    for (arguments, words) in [
        (&["--no-http"][..], "has no reflinks; set --pool-size"),
        (&["--pool-size=1Mi"], "at least 512 MiB"),
        (
            &["--pool-size=1Gi", "--pool-device=/dev/null"],
            "set one of them",
        ),
        (&["--pool-device=/dev/null"], "is not a block device"),
        (&["--pool-size=1000Ti"], "choose a smaller --pool-size"),
        (&["--driver-name=-"], "domain name notation"),
        (&["--log-level=driver=loud"], "is not a filter"),
    ] {
        let (code, said) = refused(&bench, arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let none = Command::new(env!("CARGO_BIN_EXE_driver"))
        .env_remove("NODE_NAME")
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(
        String::from_utf8(none.stderr)
            .unwrap()
            .contains("set --node-name")
    );
}

#[test]
fn help_and_version_read_well() {
    let bench = Bench::new();
    let help = bench.command(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for heading in ["Names:", "Pool:", "Sockets:", "Observation:"] {
        assert!(help.contains(heading), "{help}");
    }
    let version = bench.command(&["--version"]).output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    assert_eq!(version, format!("driver {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn log_lines_are_json_when_asked() {
    let bench = Bench::new();
    let arguments = [
        "--pool-size=1Gi",
        "--pool-sparse",
        "--no-http",
        "--log-format=json",
    ];
    let mut driver = bench.start_with(&arguments).await;
    driver.delete("").await.unwrap_err();
    driver.terminate();
    let log = std::fs::read_to_string(bench.path("log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let call = lines
        .iter()
        .find(|line| line["span"]["method"] == "DeleteVolume")
        .unwrap();
    assert_eq!(call["span"]["volume.id"], "", "{call}");
    assert_eq!(call["code"], "InvalidArgument", "{call}");
}

#[tokio::test]
async fn a_pool_file_is_not_overlooked_when_its_flag_is_missing() {
    let bench = Bench::new();
    bench.start().await.terminate();
    let (code, said) = refused(&bench, &["--no-http"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("holds volumes already; set --pool-size"),
        "{said}"
    );
}

#[tokio::test]
async fn a_directory_with_reflinks_is_a_pool_itself() {
    let bench = Bench::new();
    bench.start().await.terminate();
    // The pool made above is such a file system.
    let inner = bench.path("pool/pool/inner");
    let pool = format!("--pool={}", inner.display());
    let mut driver = bench.start_with(&[&pool, "--no-http"]).await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    assert!(inner.join("volumes").join(&id).join("image").exists());
    let staging = bench.staging("a");
    driver.stage(&id, "ext4", &staging).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    driver.delete(&id).await.unwrap();
}

#[tokio::test]
async fn an_empty_device_becomes_a_pool_and_another_is_left_alone() {
    let bench = Bench::new();
    let file = bench.path("disk");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let attach = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&file)
        .output()
        .unwrap();
    let device = String::from_utf8(attach.stdout).unwrap().trim().to_owned();
    let flag = format!("--pool-device={device}");

    let mkfs = Command::new("mkfs.ext4")
        .args(["-q", &device])
        .status()
        .unwrap();
    assert!(mkfs.success());
    let (code, said) = refused(&bench, &[&flag, "--no-http"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("is not empty") && said.contains("wipefs"),
        "{said}"
    );
    let check = Command::new("e2fsck")
        .args(["-fn", &device])
        .output()
        .unwrap();
    assert!(check.status.success(), "the file system on it is as it was");

    let wipe = Command::new("wipefs")
        .args(["-q", "--all", &device])
        .status()
        .unwrap();
    assert!(wipe.success());
    let mut driver = bench.start_with(&[&flag, "--no-http"]).await;
    driver.create("pvc-1", "ext4", 64).await.unwrap();
    let mounts = bench.mounts();
    driver.terminate();
    let _driver = bench.start_with(&[&flag, "--no-http"]).await;
    assert_eq!(bench.mounts(), mounts, "it is mounted once");
    assert_eq!(bench.volumes().len(), 1, "and found again");
}
