//! From creation to deletion, as kubelet and the provisioner go about it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_usage::Unit;
use csi::v1::{
    CreateVolumeRequest, GetPluginInfoRequest, NodeGetInfoRequest, NodeGetVolumeStatsRequest,
    NodeStageVolumeRequest,
};

use crate::support::{Bench, MIB, capability, capability_with};

#[tokio::test]
async fn ext4_volumes_live_and_go() {
    live_and_go("ext4", 64).await;
}

#[tokio::test]
async fn xfs_volumes_live_and_go() {
    live_and_go("xfs", 300).await;
}

async fn live_and_go(fs: &str, mib: i64) {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let room = driver.available().await;

    let volume = driver.create("pvc-1", fs, mib).await.unwrap();
    let id = volume.volume_id.as_str();
    assert!(id.ends_with(".node-1"), "{id}");
    assert_eq!(volume.capacity_bytes, mib * MIB);
    let segments = &volume.accessible_topology[0].segments;
    assert_eq!(segments["topology.fastcopy.csi.example.com/node"], "node-1");
    assert_eq!(driver.available().await, room - mib * MIB);
    let again = driver.create("pvc-1", fs, mib).await.unwrap();
    assert_eq!(again, volume, "the same name is the same volume");

    let (staging, target, reader) = (
        bench.staging("a"),
        bench.target("a"),
        bench.target("reader"),
    );
    for _ in 0..2 {
        driver.stage(id, fs, &staging).await.unwrap();
        driver.publish(id, &staging, &target, false).await.unwrap();
        driver.publish(id, &staging, &reader, true).await.unwrap();
    }
    let devices = bench.loops();
    let device = devices
        .iter()
        .find(|device| device.file.ends_with("image"))
        .unwrap();
    assert_eq!(device.attribute("queue/logical_block_size"), "4096");
    assert_eq!(device.attribute("loop/dio"), "1");
    let sectors: i64 = device.attribute("size").parse().unwrap();
    assert_eq!(
        sectors * 512,
        volume.capacity_bytes,
        "the device is as large as was said"
    );

    let file = Path::new(&target).join("file");
    std::fs::write(&file, b"words").unwrap();
    assert_eq!(
        std::fs::read(Path::new(&reader).join("file")).unwrap(),
        b"words"
    );
    let refused = std::fs::write(Path::new(&reader).join("other"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    stats_are_those_of_the_file_system(&mut driver, id, &target).await;

    for _ in 0..2 {
        driver.unpublish(id, &target).await.unwrap();
        driver.unpublish(id, &reader).await.unwrap();
        driver.unstage(id, &staging).await.unwrap();
    }
    assert!(!Path::new(&target).exists() && !Path::new(&reader).exists());
    assert_eq!(bench.loops().len(), 1, "only the pool's own device is left");

    driver.stage(id, "", &staging).await.unwrap();
    assert_eq!(
        std::fs::read(Path::new(&staging).join("file")).unwrap(),
        b"words"
    );
    driver.unstage(id, &staging).await.unwrap();
    for _ in 0..2 {
        driver.delete(id).await.unwrap();
    }
    assert!(bench.volumes().is_empty());
    assert_eq!(driver.available().await, room);
}

async fn stats_are_those_of_the_file_system(
    driver: &mut crate::support::Driver,
    id: &str,
    path: &str,
) {
    let request = NodeGetVolumeStatsRequest {
        volume_id: id.into(),
        volume_path: path.into(),
        ..Default::default()
    };
    let usage = driver
        .node
        .node_get_volume_stats(request)
        .await
        .unwrap()
        .into_inner()
        .usage;
    let space = rustix::fs::statvfs(path).unwrap();
    let bytes = usage
        .iter()
        .find(|usage| usage.unit() == Unit::Bytes)
        .unwrap();
    let inodes = usage
        .iter()
        .find(|usage| usage.unit() == Unit::Inodes)
        .unwrap();
    assert_eq!(
        u64::try_from(bytes.total).unwrap(),
        space.f_blocks * space.f_frsize
    );
    assert_eq!(
        u64::try_from(bytes.available).unwrap(),
        space.f_bavail * space.f_frsize
    );
    assert!(
        bytes.used > 0 && bytes.used + bytes.available <= bytes.total,
        "{bytes:?}"
    );
    assert_eq!(u64::try_from(inodes.total).unwrap(), space.f_files);
}

#[tokio::test]
async fn a_fresh_volume_takes_little_of_the_pool() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 800).await.unwrap().volume_id;
    let staging = bench.staging("a");
    driver.stage(&id, "ext4", &staging).await.unwrap();
    let image = bench.volumes()[0].join("image").metadata().unwrap();
    assert_eq!(image.len(), 800 << 20);
    let taken = image.blocks() * 512;
    assert!(taken < 8 << 20, "{taken} bytes for an empty file system");
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn mount_options_reach_the_file_system() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let path = bench.staging("a");
    let mut stage = async |flags: &[&str]| {
        let request = NodeStageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: path.clone(),
            volume_capability: Some(capability_with("ext4", Mode::SingleNodeWriter, flags)),
            ..Default::default()
        };
        driver.node.node_stage_volume(request).await
    };
    let unknown = stage(&["nosuchoption"]).await.unwrap_err();
    let words = unknown.message();
    assert!(
        words.contains("nosuchoption") && words.contains("mountOptions"),
        "{words}"
    );
    assert_eq!(
        bench.loops().len(),
        1,
        "a volume that did not mount stays detached"
    );
    stage(&["noatime,nosuid", "commit=77"]).await.unwrap();
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(path.as_str()))
        .unwrap();
    assert!(
        line.contains("noatime") && line.contains("nosuid"),
        "{line}"
    );
    assert!(line.contains("commit=77"), "{line}");
}

#[tokio::test]
async fn the_driver_says_what_it_is_and_where() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let info = driver
        .identity
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.name, "fastcopy.csi.example.com");
    assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
    let info = driver
        .node
        .node_get_info(NodeGetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.node_id, "node-1");
    let segments = info.accessible_topology.unwrap().segments;
    assert_eq!(segments["topology.fastcopy.csi.example.com/node"], "node-1");
}

#[tokio::test]
async fn a_volume_without_a_size_gets_one() {
    let bench = Bench::new();
    let arguments = ["--pool-size=3Gi", "--pool-sparse", "--no-http"];
    let mut driver = bench.start_with(&arguments).await;
    let request = CreateVolumeRequest {
        name: "pvc-1".into(),
        volume_capabilities: vec![capability("")],
        ..Default::default()
    };
    let volume = driver
        .controller
        .create_volume(request)
        .await
        .unwrap()
        .into_inner()
        .volume;
    assert_eq!(volume.unwrap().capacity_bytes, 1 << 30);
}
