//! Attributes change while a volume is in use, and stay.

use std::collections::BTreeMap;

use csi::v1::{ControllerModifyVolumeRequest, CreateVolumeRequest};
use tonic::{Code, Status};

use crate::support::{Bench, Calls, MIB, capability};

async fn modify(calls: &mut Calls, id: &str, attributes: &[(&str, &str)]) -> Result<(), Status> {
    let request = ControllerModifyVolumeRequest {
        volume_id: id.into(),
        mutable_parameters: map(attributes),
        ..Default::default()
    };
    let modified = calls.controller.controller_modify_volume(request).await;
    modified.map(drop)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()));
    pairs.collect()
}

/// What the image's loop device reads ahead, in KiB.
fn read_ahead(bench: &Bench) -> u32 {
    let devices = bench.loops();
    let mut devices = devices.iter().filter(|it| it.file.ends_with("image"));
    let device = devices.next().unwrap();
    device.attribute("queue/read_ahead_kb").parse().unwrap()
}

/// How many blocks of a file system only root can fill.
fn kept(path: &str) -> u64 {
    let space = rustix::fs::statvfs(path).unwrap();
    space.f_bfree - space.f_bavail
}

#[tokio::test]
async fn attributes_are_set_at_once_and_after_a_reboot() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "ext4", 64).await.unwrap().volume_id;
    let staging = bench.staging("a");
    modify(&mut driver, &id, &[("readAheadKiB", "512")])
        .await
        .unwrap();
    driver.stage(&id, "ext4", &staging).await.unwrap();
    // The kernel keeps some back of every ext4.
    let own = kept(&staging);
    let reserved = || (100 * (kept(&staging) - own)).div_ceil((64 << 20) / 4096);
    assert_eq!((read_ahead(&bench), reserved()), (512, 0));
    for _ in 0..2 {
        let changes = [("readAheadKiB", "2048"), ("reservedPercent", "10")];
        modify(&mut driver, &id, &changes).await.unwrap();
        assert_eq!((read_ahead(&bench), reserved()), (2048, 10));
    }
    modify(&mut driver, &id, &[("reservedPercent", "5")])
        .await
        .unwrap();
    assert_eq!((read_ahead(&bench), reserved()), (2048, 5));
    driver.kill();
    bench.reboot();
    let mut driver = bench.start().await;
    driver.stage(&id, "ext4", &staging).await.unwrap();
    assert_eq!((read_ahead(&bench), reserved()), (2048, 5));
}

#[tokio::test]
async fn a_volume_is_made_with_attributes() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let request = CreateVolumeRequest {
        name: "pvc".into(),
        volume_capabilities: vec![capability("block")],
        capacity_range: Some(csi::v1::CapacityRange {
            required_bytes: 16 * MIB,
            limit_bytes: 0,
        }),
        mutable_parameters: map(&[("readAheadKiB", "64")]),
        ..Default::default()
    };
    let made = driver.controller.create_volume(request).await.unwrap();
    let id = made.into_inner().volume.unwrap().volume_id;
    let staging = bench.staging("a");
    driver.stage(&id, "block", &staging).await.unwrap();
    assert_eq!(read_ahead(&bench), 64);
    modify(&mut driver, &id, &[("readAheadKiB", "0")])
        .await
        .unwrap();
    assert_eq!(read_ahead(&bench), 0);
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn what_is_unknown_or_does_not_fit_is_refused() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "xfs", 300).await.unwrap().volume_id;
    let nobody = format!("vol-{}.node-1", "0".repeat(32));
    for (id, attribute, code, words) in [
        (
            &*id,
            ("XXX_FakeKey", "1"),
            Code::InvalidArgument,
            "readAheadKiB",
        ),
        (
            &id,
            ("readAheadKiB", "much"),
            Code::InvalidArgument,
            "whole number",
        ),
        (
            &id,
            ("reservedPercent", "5"),
            Code::InvalidArgument,
            "is for ext4",
        ),
        (
            &nobody,
            ("readAheadKiB", "64"),
            Code::NotFound,
            "there is no",
        ),
        (
            "",
            ("readAheadKiB", "64"),
            Code::InvalidArgument,
            "volume_id",
        ),
    ] {
        let refused = modify(&mut driver, id, &[attribute]).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(words), "{refused}");
    }
}
