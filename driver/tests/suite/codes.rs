//! The codes of the CSI specification, for whatever can be wrong with a request.

use std::path::Path;

use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessType, BlockVolume};
use csi::v1::volume_content_source::{SnapshotSource, Type as SourceType};
use csi::v1::{
    CapacityRange, CreateVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, Topology, TopologyRequirement, ValidateVolumeCapabilitiesRequest,
    VolumeContentSource,
};
use tonic::Code;

use crate::support::{Bench, MIB, capability, capability_with};

fn request() -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: "pvc-1".into(),
        capacity_range: Some(CapacityRange {
            required_bytes: 64 * MIB,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability("ext4")],
        ..Default::default()
    }
}

fn range(required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    let capacity_range = Some(CapacityRange {
        required_bytes,
        limit_bytes,
    });
    CreateVolumeRequest {
        capacity_range,
        ..request()
    }
}

fn used_as(volume_capabilities: Vec<csi::v1::VolumeCapability>) -> CreateVolumeRequest {
    CreateVolumeRequest {
        volume_capabilities,
        ..request()
    }
}

fn on(node: &str) -> CreateVolumeRequest {
    let segments = [("topology.fastcopy.csi.example.com/node".into(), node.into())].into();
    let requisite = vec![Topology { segments }];
    let requirement = TopologyRequirement {
        requisite,
        preferred: Vec::new(),
    };
    CreateVolumeRequest {
        accessibility_requirements: Some(requirement),
        ..request()
    }
}

#[tokio::test]
async fn what_cannot_be_created_is_refused_in_words() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let block = csi::v1::VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        ..capability("")
    };
    let many = capability_with("ext4", Mode::MultiNodeMultiWriter, &[]);
    let source = SourceType::Snapshot(SnapshotSource {
        snapshot_id: "snapshot".into(),
    });
    let refused = [
        (
            CreateVolumeRequest {
                name: String::new(),
                ..request()
            },
            Code::InvalidArgument,
            "name",
        ),
        (
            CreateVolumeRequest {
                name: "a\nb".into(),
                ..request()
            },
            Code::InvalidArgument,
            "control",
        ),
        (
            CreateVolumeRequest {
                name: "x".repeat(129),
                ..request()
            },
            Code::InvalidArgument,
            "128",
        ),
        (
            used_as(vec![]),
            Code::InvalidArgument,
            "volume_capabilities",
        ),
        (
            used_as(vec![block, capability("")]),
            Code::InvalidArgument,
            "both were asked for",
        ),
        (used_as(vec![many]), Code::InvalidArgument, "ReadWriteOnce"),
        (
            used_as(vec![capability("ntfs")]),
            Code::InvalidArgument,
            "ext4 or xfs",
        ),
        (
            used_as(vec![capability("xfs"), capability("ext4")]),
            Code::InvalidArgument,
            "one file",
        ),
        (
            CreateVolumeRequest {
                parameters: [("size".into(), "x".into())].into(),
                ..request()
            },
            Code::InvalidArgument,
            "csi.storage.k8s.io/pvc/name",
        ),
        (
            CreateVolumeRequest {
                mutable_parameters: [("iops".into(), "1".into())].into(),
                ..request()
            },
            Code::InvalidArgument,
            "readAheadKiB",
        ),
        (
            CreateVolumeRequest {
                volume_content_source: Some(VolumeContentSource {
                    r#type: Some(source),
                }),
                ..request()
            },
            Code::NotFound,
            "there is no \"snapshot\"",
        ),
        (range(-1, 0), Code::InvalidArgument, "negative"),
        (range(2, 1), Code::InvalidArgument, "limits them"),
        (range(1, 2 * MIB), Code::OutOfRange, "at least 16 MiB"),
        (
            range(20 * MIB + 1, 20 * MIB + 2),
            Code::OutOfRange,
            "multiples of 4096",
        ),
        (
            range(1 << 50, 0),
            Code::ResourceExhausted,
            "left to promise",
        ),
        (on("node-2"), Code::ResourceExhausted, "this is node-1"),
    ];
    for (request, code, words) in refused {
        let status = driver.controller.create_volume(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
    assert!(bench.volumes().is_empty());
    driver.controller.create_volume(on("node-1")).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken_differently_is_refused() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let metadata = ["pvc/name", "pvc/namespace", "pv/name"]
        .map(|key| (format!("csi.storage.k8s.io/{key}"), "x".to_owned()));
    let first = CreateVolumeRequest {
        parameters: metadata.into(),
        ..request()
    };
    driver.controller.create_volume(first).await.unwrap();
    for same in [
        request(),
        range(1, 0),
        range(64 * MIB, 64 * MIB),
        range(0, 1 << 30),
    ] {
        driver.controller.create_volume(same).await.unwrap();
    }
    for other in [
        range(65 * MIB, 0),
        range(32 * MIB, 63 * MIB),
        used_as(vec![capability("xfs")]),
    ] {
        let status = driver.controller.create_volume(other).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found_or_gone_already() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    let never = format!("vol-{}.node-1", "0".repeat(32));
    for id in [never.as_str(), "../../etc", "x"] {
        let stage = driver.stage(id, "", &staging).await.unwrap_err();
        assert_eq!(stage.code(), Code::NotFound, "{stage}");
        let publish = driver
            .publish(id, &staging, &target, false)
            .await
            .unwrap_err();
        assert_eq!(publish.code(), Code::NotFound, "{publish}");
        driver.unpublish(id, &target).await.unwrap();
        driver.unstage(id, &staging).await.unwrap();
        driver.delete(id).await.unwrap();
    }
    let elsewhere = format!("vol-{}.node-2", "0".repeat(32));
    let status = driver.delete(&elsewhere).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("node-2"), "{status}");
    for id in ["", &"x".repeat(4)] {
        let code = if id.is_empty() {
            Code::InvalidArgument
        } else {
            Code::NotFound
        };
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: id.into(),
            volume_capabilities: vec![capability("")],
            ..Default::default()
        };
        let status = driver
            .controller
            .validate_volume_capabilities(request)
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
}

#[tokio::test]
async fn node_calls_hold_to_what_was_staged() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    let other_staging = bench.staging("b");

    let code = |result: Result<(), tonic::Status>| result.unwrap_err().code();
    assert_eq!(
        code(driver.publish(&id, &staging, &target, false).await),
        Code::FailedPrecondition
    );
    assert_eq!(
        code(driver.publish(&id, "", &target, false).await),
        Code::FailedPrecondition
    );
    assert_eq!(
        code(driver.stage(&id, "xfs", &staging).await),
        Code::FailedPrecondition
    );
    for path in ["", "relative", "/a/../b"] {
        assert_eq!(
            code(driver.stage(&id, "", path).await),
            Code::InvalidArgument
        );
        assert_eq!(code(driver.unstage(&id, path).await), Code::InvalidArgument);
        assert_eq!(
            code(driver.publish(&id, &staging, path, false).await),
            Code::InvalidArgument
        );
        assert_eq!(
            code(driver.unpublish(&id, path).await),
            Code::InvalidArgument
        );
    }

    driver.stage(&id, "ext4", &staging).await.unwrap();
    let differently = NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: staging.clone(),
        volume_capability: Some(capability_with(
            "ext4",
            Mode::SingleNodeWriter,
            &["noatime"],
        )),
        ..Default::default()
    };
    let status = driver
        .node
        .node_stage_volume(differently)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    assert_eq!(
        code(driver.stage(&id, "ext4", &other_staging).await),
        Code::FailedPrecondition
    );
    driver
        .unstage(&id, &other_staging)
        .await
        .expect("it is not staged there");

    driver.publish(&id, &staging, &target, false).await.unwrap();
    assert_eq!(
        code(driver.publish(&id, &staging, &target, true).await),
        Code::AlreadyExists
    );
    assert_eq!(
        code(driver.unstage(&id, &staging).await),
        Code::FailedPrecondition
    );
    let delete = driver.delete(&id).await.unwrap_err();
    assert_eq!(delete.code(), Code::FailedPrecondition);
    assert!(delete.message().contains(&target), "{delete}");

    let mut stats = async |path: &str| {
        let volume_id = id.clone();
        let request = NodeGetVolumeStatsRequest {
            volume_id,
            volume_path: path.into(),
            ..Default::default()
        };
        driver.node.node_get_volume_stats(request).await.map(drop)
    };
    stats(&staging).await.unwrap();
    assert_eq!(code(stats("").await), Code::InvalidArgument);
    for path in ["some/path", "/", &other_staging] {
        assert_eq!(code(stats(path).await), Code::NotFound, "{path}");
    }
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    driver.delete(&id).await.unwrap();
}

/// Nothing of it reaches a program, a path or the mount table.
#[tokio::test]
async fn rubbish_is_not_published() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    driver.stage(&id, "ext4", &staging).await.unwrap();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_bench = |mounts: String| -> Vec<String> {
        let folder = bench.path("").display().to_string();
        let lines = mounts.lines().filter(|line| line.contains(&folder));
        lines.map(str::to_owned).collect()
    };
    let before = of_bench(mounts());
    let usual = || capability("ext4");
    let with = |fs_type: &str, flags: &[&str]| {
        capability_with(fs_type, Mode::SingleNodeMultiWriter, flags)
    };
    let long = "x".repeat(100_000);
    let many = vec!["noatime"; 5_000];
    let above = format!("{id}/../{id}");
    let broken = format!("{target}\n/etc");
    let upwards = format!("{target}/../../../etc");
    let deep = format!("/{long}");
    let touched = bench.path("touched").display().to_string();
    let injected = format!("ext4;touch {touched}");
    let option = format!("noatime;touch {touched}");
    for (id, target, capability, code) in [
        // What was never given out as an id does not exist, whatever it looks like.
        ("../../etc/passwd", target.as_str(), usual(), Code::NotFound),
        (&above, &target, usual(), Code::NotFound),
        ("vol\n", &target, usual(), Code::NotFound),
        ("vol\0", &target, usual(), Code::NotFound),
        (&long, &target, usual(), Code::NotFound),
        (&id, &broken, usual(), Code::InvalidArgument),
        (&id, &upwards, usual(), Code::InvalidArgument),
        (&id, &deep, usual(), Code::InvalidArgument),
        (&id, &target, with("ntfs", &[]), Code::InvalidArgument),
        (&id, &target, with(&injected, &[]), Code::InvalidArgument),
        (&id, &target, with(&long, &[]), Code::InvalidArgument),
        (&id, &target, with("ext4", &many), Code::InvalidArgument),
        (&id, &target, with("ext4", &[&long]), Code::InvalidArgument),
        (
            &id,
            &target,
            with("ext4", &[&option]),
            Code::InvalidArgument,
        ),
        (
            &id,
            &target,
            with("ext4", &["ro\u{1b}"]),
            Code::InvalidArgument,
        ),
        (
            &id,
            &target,
            with("ext4", &["remount"]),
            Code::InvalidArgument,
        ),
    ] {
        let published = driver.publish_as(id, &staging, target, false, capability);
        let status = published.await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().len() < 10_000, "{status}");
    }
    assert_eq!(of_bench(mounts()), before);
    assert!(!bench.path("touched").exists());
    assert!(!std::path::Path::new(&target).exists());
    driver.publish(&id, &staging, &target, false).await.unwrap();
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    driver.delete(&id).await.unwrap();
}

#[tokio::test]
async fn what_belongs_to_others_is_left_alone() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    std::fs::create_dir(&target).unwrap();
    std::fs::write(Path::new(&target).join("file"), b"precious").unwrap();
    let unpublish = driver.unpublish(&id, &target).await.unwrap_err();
    assert_eq!(unpublish.code(), Code::Internal, "{unpublish}");
    assert!(Path::new(&target).join("file").exists());

    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", staging.as_str(), "tmpfs", flags, None).unwrap();
    let stage = driver.stage(&id, "ext4", &staging).await.unwrap_err();
    assert!(stage.message().contains("tmpfs"), "{stage}");
    let unstage = driver.unstage(&id, &staging).await.unwrap_err();
    assert_eq!(unstage.code(), Code::FailedPrecondition, "{unstage}");
    assert!(
        bench.mounts().contains(&staging.into()),
        "it is still mounted"
    );
}

#[tokio::test]
async fn a_volume_is_confirmed_only_for_what_it_can_do() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let volume_id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let base = ValidateVolumeCapabilitiesRequest {
        volume_id,
        volume_capabilities: vec![capability("ext4")],
        ..Default::default()
    };
    let with = |capability| ValidateVolumeCapabilitiesRequest {
        volume_capabilities: vec![capability],
        ..base.clone()
    };
    let foreign = ValidateVolumeCapabilitiesRequest {
        volume_context: [("pool".into(), "other".into())].into(),
        ..base.clone()
    };
    let provisioned = ValidateVolumeCapabilitiesRequest {
        volume_context: [(
            "storage.kubernetes.io/csiProvisionerIdentity".into(),
            "x".into(),
        )]
        .into(),
        ..base.clone()
    };
    for (request, confirmed) in [
        (base.clone(), true),
        (provisioned, true),
        (with(capability("")), true),
        (with(capability("xfs")), false),
        (
            with(capability_with("", Mode::MultiNodeMultiWriter, &[])),
            false,
        ),
        (foreign, false),
    ] {
        let response = driver
            .controller
            .validate_volume_capabilities(request)
            .await
            .unwrap();
        let response = response.into_inner();
        assert_eq!(response.confirmed.is_some(), confirmed, "{response:?}");
        assert_eq!(response.message.is_empty(), confirmed, "{response:?}");
    }
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    driver.stage(&id, "ext4", &staging).await.unwrap();
    let request = NodePublishVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: staging,
        target_path: target.clone(),
        volume_capability: Some(capability_with("", Mode::SingleNodeReaderOnly, &[])),
        ..Default::default()
    };
    driver.node.node_publish_volume(request).await.unwrap();
    let refused = std::fs::write(Path::new(&target).join("file"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}
