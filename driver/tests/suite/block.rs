//! Raw block volumes: a device at a file, and nothing else.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;

use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::{NodeGetVolumeStatsRequest, NodeStageVolumeRequest, VolumeCapability};
use tonic::Code;

use crate::support::{Bench, Driver, MIB, capability, capability_with};

#[tokio::test]
async fn a_block_volume_lives_and_goes() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let volume = driver.create("block", "block", 64).await.unwrap();
    let id = volume.volume_id;
    let (staging, target, second) = (bench.staging("a"), bench.target("a"), bench.target("b"));
    let early = driver
        .publish_as(&id, &staging, &target, false, capability("block"))
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    for _ in 0..2 {
        driver.stage(&id, "block", &staging).await.unwrap();
    }
    assert_eq!(
        std::fs::read_dir(&staging).unwrap().count(),
        0,
        "kubelet's, left empty"
    );
    for path in [&target, &target, &second] {
        driver
            .publish_as(&id, &staging, path, false, capability("block"))
            .await
            .unwrap();
    }
    assert!(
        Path::new(&target)
            .metadata()
            .unwrap()
            .file_type()
            .is_block_device()
    );
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&target)
        .unwrap();
    device.write_all_at(&[5; 8192], 4 << 20).unwrap();
    device.sync_all().unwrap();
    let request = NodeGetVolumeStatsRequest {
        volume_id: id.clone(),
        volume_path: target.clone(),
        ..Default::default()
    };
    let stats = driver.node.node_get_volume_stats(request).await.unwrap();
    let usage = stats.into_inner().usage;
    assert_eq!((usage.len(), usage[0].total), (1, 64 * MIB));

    let as_files = driver.stage(&id, "ext4", &staging).await.unwrap_err();
    assert_eq!(as_files.code(), Code::FailedPrecondition, "{as_files}");
    drop(device);
    let published = driver.unstage(&id, &staging).await.unwrap_err();
    assert_eq!(published.code(), Code::FailedPrecondition, "{published}");
    let deleted = driver.delete(&id).await.unwrap_err();
    assert_eq!(deleted.code(), Code::FailedPrecondition, "{deleted}");
    for path in [&target, &second, &target] {
        driver.unpublish(&id, path).await.unwrap();
        assert!(!Path::new(path).exists());
    }

    // A copy of it, written to while its source is in use.
    let snapshot = driver.snapshot("snapshot", &id).await.unwrap().snapshot_id;
    let copy = driver
        .copy("copy", &snapshot, "block", 96)
        .await
        .unwrap()
        .volume_id;
    let path = bench.staging("copy");
    driver.stage(&copy, "block", &path).await.unwrap();
    let copied = bench.target("copied");
    driver
        .publish_as(&copy, &path, &copied, false, capability("block"))
        .await
        .unwrap();
    let mut found = [0; 8192];
    let device = OpenOptions::new().read(true).open(&copied).unwrap();
    device.read_exact_at(&mut found, 4 << 20).unwrap();
    assert_eq!(found, [5; 8192]);
    device.read_exact_at(&mut found, 95 << 20).unwrap();
    assert_eq!(found, [0; 8192], "larger, and zeros beyond");
    drop(device);
    driver.unpublish(&copy, &copied).await.unwrap();
    driver.unstage(&copy, &path).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    for id in [&id, &copy] {
        driver.delete(id).await.unwrap();
    }
    driver.delete_snapshot(&snapshot).await.unwrap();
    assert_eq!(bench.loops().len(), 1, "the pool's: {:?}", bench.loops());
}

#[tokio::test]
async fn a_reader_of_a_block_volume_cannot_write() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("block", "block", 16).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    let reader = stage_reader(&mut driver, &id, &staging).await;
    driver
        .publish_as(&id, &staging, &target, true, reader)
        .await
        .unwrap();
    let written = OpenOptions::new()
        .write(true)
        .open(&target)
        .and_then(|device| {
            device
                .write_all_at(&[1; 4096], 0)
                .and_then(|()| device.sync_all())
        });
    assert!(written.is_err(), "a read-only device was written");
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    // Writable again for the next who asks for that.
    driver.stage(&id, "block", &staging).await.unwrap();
    driver
        .publish_as(&id, &staging, &target, false, capability("block"))
        .await
        .unwrap();
    let device = OpenOptions::new().write(true).open(&target).unwrap();
    device.write_all_at(&[1; 4096], 0).unwrap();
    device.sync_all().unwrap();
    drop(device);
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
}

/// The kernel keeps that a loop device is read-only when it has no file any more.
#[tokio::test]
async fn a_device_can_be_written_whoever_had_it_before() {
    let bench = Bench::new();
    for _ in 0..20 {
        let mut driver = bench.start().await;
        let id = driver.create("block", "block", 16).await.unwrap().volume_id;
        let (staging, target) = (bench.staging("a"), bench.target("a"));
        stage_reader(&mut driver, &id, &staging).await;
        let before = device(&bench);
        driver.kill();
        bench.reboot();

        let mut driver = bench.start().await;
        driver.stage(&id, "block", &staging).await.unwrap();
        driver
            .publish_as(&id, &staging, &target, false, capability("block"))
            .await
            .unwrap();
        let file = OpenOptions::new().write(true).open(&target).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let after = device(&bench);
        driver.unpublish(&id, &target).await.unwrap();
        driver.unstage(&id, &staging).await.unwrap();
        if before == after {
            return;
        }
    }
    panic!("the volume never had the same device again");
}

/// The name of the one volume's device.
fn device(bench: &Bench) -> String {
    let mut devices = bench.loops().into_iter();
    devices.find(|it| it.file.ends_with("image")).unwrap().name
}

async fn stage_reader(driver: &mut Driver, id: &str, staging: &str) -> VolumeCapability {
    let reader = capability_with("block", Mode::SingleNodeReaderOnly, &[]);
    let request = NodeStageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: staging.to_owned(),
        volume_capability: Some(reader.clone()),
        ..Default::default()
    };
    driver.node.node_stage_volume(request).await.unwrap();
    reader
}

#[tokio::test]
async fn one_target_at_a_time_unless_shared() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    for (fs, mode) in [
        ("ext4", Mode::SingleNodeSingleWriter),
        ("ext4", Mode::SingleNodeWriter),
        ("block", Mode::SingleNodeSingleWriter),
    ] {
        let name = format!("{fs}-{}", mode.as_str_name());
        let id = driver.create(&name, fs, 16).await.unwrap().volume_id;
        let (staging, target) = (bench.staging(&name), bench.target(&name));
        let single = capability_with(fs, mode, &[]);
        let request = csi::v1::NodeStageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: staging.clone(),
            volume_capability: Some(single.clone()),
            ..Default::default()
        };
        driver.node.node_stage_volume(request).await.unwrap();
        for _ in 0..2 {
            driver
                .publish_as(&id, &staging, &target, false, single.clone())
                .await
                .unwrap();
        }
        let second = bench.target("second");
        for asked in [single, capability(fs)] {
            let refused = driver
                .publish_as(&id, &staging, &second, false, asked)
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(!Path::new(&second).exists(), "nothing is left");
        }
        driver.unpublish(&id, &target).await.unwrap();
        driver.unstage(&id, &staging).await.unwrap();
    }
}
