//! Space is promised once, and what is promised can be written.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use csi::v1::{GetCapacityRequest, Topology};
use tonic::Code;

use crate::support::{Bench, MIB, capability};

#[tokio::test]
async fn a_pool_is_promised_to_the_last_mebibyte_and_no_further() {
    let bench = Bench::new();
    let mut driver = bench
        .start_with(&["--pool-size=512Mi", "--pool-sparse", "--no-http"])
        .await;
    let room = driver.available().await / MIB;
    let large = driver
        .create("large", "ext4", room - 100)
        .await
        .unwrap()
        .volume_id;
    assert_eq!(driver.available().await, 100 * MIB);
    let over = driver.create("over", "ext4", 101).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted, "{over}");
    assert!(over.message().contains("100 MiB left"), "{over}");
    let small = driver.create("small", "ext4", 100).await.unwrap().volume_id;
    assert_eq!(driver.available().await, 0);
    let full = driver.create("one-more", "ext4", 16).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    assert_eq!(bench.volumes().len(), 2, "what was refused left nothing");

    for (id, name) in [(&large, "large"), (&small, "small")] {
        let staging = bench.staging(name);
        driver.stage(id, "ext4", &staging).await.unwrap();
        fill(&staging);
    }
    for (id, name) in [(&large, "large"), (&small, "small")] {
        driver.unstage(id, &bench.staging(name)).await.unwrap();
    }
    let still = driver.create("one-more", "ext4", 16).await.unwrap_err();
    assert_eq!(still.code(), Code::ResourceExhausted, "{still}");
    driver.delete(&small).await.unwrap();
    driver.create("one-more", "ext4", 16).await.unwrap();
    driver.delete(&large).await.unwrap();
    assert_eq!(driver.available().await / MIB, room - 16);
}

/// Writes until the volume's own file system is full. Were the pool full before, the write, the
/// sync or the reading would fail with an input/output error.
fn fill(directory: &str) {
    let path = Path::new(directory).join("file");
    let mut file = File::create(&path).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte % 251) as u8).collect();
    let mut written = 0;
    loop {
        match file.write(&block) {
            Ok(length) => written += length,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                break;
            }
        }
    }
    file.sync_all().unwrap();
    let space = rustix::fs::statvfs(directory).unwrap();
    assert!(
        space.f_bavail * space.f_frsize < 1 << 20,
        "it was filled to the last"
    );
    assert_eq!(std::fs::read(&path).unwrap().len(), written);
    assert!(
        written as u64 > space.f_blocks * space.f_frsize / 100 * 95,
        "{written} bytes"
    );
}

#[tokio::test]
async fn of_many_at_once_no_more_are_made_than_there_is_room_for() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let room = driver.available().await;
    let tasks = (0..20).map(|number| {
        let mut calls = driver.calls();
        tokio::spawn(async move { calls.create(&format!("pvc-{number}"), "ext4", 100).await })
    });
    let mut made = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
    }
    assert_eq!(made, room / (100 * MIB), "neither more nor fewer");
    assert_eq!(bench.volumes().len(), usize::try_from(made).unwrap());
}

#[tokio::test]
async fn one_name_asked_for_at_once_is_one_volume() {
    let bench = Bench::new();
    let driver = bench.start().await;
    let tasks = (0..16).map(|_| {
        let mut calls = driver.calls();
        tokio::spawn(async move { calls.create("pvc", "ext4", 32).await })
    });
    let mut made = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(volume) => made.push(volume.volume_id),
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    made.dedup();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(bench.volumes().len(), 1);
}

#[tokio::test]
async fn capacity_is_told_for_what_is_asked() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let mut capacity = async |request| {
        driver
            .controller
            .get_capacity(request)
            .await
            .unwrap()
            .into_inner()
            .available_capacity
    };
    let at = |node: &str| GetCapacityRequest {
        accessible_topology: Some(Topology {
            segments: [("topology.fastcopy.csi.example.com/node".into(), node.into())].into(),
        }),
        ..Default::default()
    };
    let everything = capacity(GetCapacityRequest::default()).await;
    assert!(everything > 850 * MIB, "{everything}");
    assert_eq!(capacity(at("node-1")).await, everything);
    assert_eq!(capacity(at("node-2")).await, 0);
    let of = |fs| GetCapacityRequest {
        volume_capabilities: vec![capability(fs)],
        ..Default::default()
    };
    assert_eq!(capacity(of("xfs")).await, everything);
    assert_eq!(capacity(of("ntfs")).await, 0);
}
