//! Volumes grow, in use and not, and nothing else changes.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use csi::v1::controller_service_capability::Type as ControllerType;
use csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use csi::v1::node_service_capability::Type as NodeType;
use csi::v1::node_service_capability::rpc::Type as NodeRpc;
use csi::v1::plugin_capability::Type as PluginType;
use csi::v1::plugin_capability::volume_expansion::Type as Expansion;
use csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetCapabilitiesRequest,
    CreateVolumeRequest, GetPluginCapabilitiesRequest, NodeExpandVolumeRequest,
    NodeGetCapabilitiesRequest, NodeGetInfoRequest,
};
use driver::kernel::mounting;
use tonic::{Code, Status};

use crate::support::{Bench, Calls, MIB, capability};

/// As kubelet does it.
async fn node_expand(
    calls: &mut Calls,
    id: &str,
    path: &str,
    (required_bytes, limit_bytes): (i64, i64),
) -> Result<i64, Status> {
    let request = NodeExpandVolumeRequest {
        volume_id: id.into(),
        volume_path: path.into(),
        capacity_range: Some(CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        ..Default::default()
    };
    let expanded = calls.node.node_expand_volume(request).await?;
    Ok(expanded.into_inner().capacity_bytes)
}

/// As external-resizer does it.
async fn expand(calls: &mut Calls, id: &str, size: i64) -> Result<i64, Status> {
    let request = ControllerExpandVolumeRequest {
        volume_id: id.into(),
        capacity_range: Some(CapacityRange {
            required_bytes: size,
            limit_bytes: 0,
        }),
        ..Default::default()
    };
    let expanded = calls.controller.controller_expand_volume(request).await?;
    let expanded = expanded.into_inner();
    assert!(!expanded.node_expansion_required);
    Ok(expanded.capacity_bytes)
}

/// The size of the file system at a path, in MiB.
fn size_at(path: &str) -> i64 {
    let space = rustix::fs::statvfs(path).unwrap();
    i64::try_from(space.f_blocks * space.f_frsize).unwrap() / MIB
}

fn pattern(mib: usize) -> Vec<u8> {
    (0..=250).cycle().take(mib << 20).collect()
}

fn write(directory: &str, name: &str, bytes: &[u8]) {
    let path = Path::new(directory).join(name);
    std::fs::write(&path, bytes).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

fn read(directory: &str, name: &str) -> Vec<u8> {
    std::fs::read(Path::new(directory).join(name)).unwrap()
}

#[tokio::test]
async fn xfs_grows_while_it_is_written() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "xfs", 300).await.unwrap().volume_id;
    let room = driver.available().await;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    driver.stage(&id, "xfs", &staging).await.unwrap();
    driver.publish(&id, &staging, &target, false).await.unwrap();
    write(&target, "before", &pattern(100));
    let before = size_at(&target);
    let open = File::create(Path::new(&target).join("open")).unwrap();
    for path in [&target, &staging, &target] {
        let size = node_expand(&mut driver, &id, path, (500 * MIB, 0)).await;
        assert_eq!(size.unwrap(), 500 * MIB);
    }
    assert!(size_at(&target) >= before + 195, "{}", size_at(&target));
    open.write_all_at(b"still open", 0).unwrap();
    open.sync_all().unwrap();
    drop(open);
    write(&target, "after", &pattern(200));
    assert_eq!(read(&target, "before"), pattern(100));
    assert_eq!(driver.available().await, room - 200 * MIB);
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
    driver.stage(&id, "xfs", &staging).await.unwrap();
    assert_eq!(read(&staging, "after"), pattern(200));
}

/// Linux from 6.17 on replays no log that reaches into what was added, unless the superblock in
/// its place has the new size.
#[tokio::test]
async fn xfs_that_has_grown_survives_a_power_cut() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "xfs", 300).await.unwrap().volume_id;
    let staging = bench.staging("a");
    driver.stage(&id, "xfs", &staging).await.unwrap();
    for mib in [316, 332] {
        let grown = node_expand(&mut driver, &id, &staging, (mib * MIB, 0)).await;
        assert_eq!(grown.unwrap(), mib * MIB);
    }
    let size = size_at(&staging);
    // More than there was room for before.
    write(&staging, "after", &pattern(245));
    let mut shut_down = Command::new("xfs_io");
    shut_down.args(["-x", "-c", "shutdown", &staging]);
    assert!(shut_down.status().unwrap().success());
    driver.kill();
    bench.reboot();

    let mut driver = bench.start().await;
    driver.stage(&id, "xfs", &staging).await.unwrap();
    assert_eq!(size_at(&staging), size);
    assert_eq!(read(&staging, "after"), pattern(245));
}

#[tokio::test]
async fn ext4_grows_while_it_is_written_or_when_it_is_mounted_next() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "ext4", 64).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    driver.stage(&id, "ext4", &staging).await.unwrap();
    driver.publish(&id, &staging, &target, false).await.unwrap();
    write(&target, "before", &pattern(20));
    let before = size_at(&target);
    for _ in 0..2 {
        let grown = node_expand(&mut driver, &id, &target, (256 * MIB, 0)).await;
        if mounting::can_grow_ext4() {
            assert_eq!(grown.unwrap(), 256 * MIB);
        } else {
            let refused = grown.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(refused.message().contains("CAP_SYS_RESOURCE"), "{refused}");
            assert_eq!(size_at(&target), before);
        }
    }
    if !mounting::can_grow_ext4() {
        driver.unpublish(&id, &target).await.unwrap();
        driver.unstage(&id, &staging).await.unwrap();
        driver.stage(&id, "ext4", &staging).await.unwrap();
        driver.publish(&id, &staging, &target, false).await.unwrap();
        let grown = node_expand(&mut driver, &id, &target, (256 * MIB, 0)).await;
        assert_eq!(grown.unwrap(), 256 * MIB);
    }
    assert!(size_at(&target) >= before + 180, "{}", size_at(&target));
    write(&target, "after", &pattern(150));
    assert_eq!(read(&target, "before"), pattern(20));
}

#[tokio::test]
async fn a_volume_that_is_not_staged_grows_when_it_is() {
    for (fs, mib) in [("ext4", 64), ("xfs", 300)] {
        let bench = Bench::new();
        let mut driver = bench.start().await;
        let id = driver.create("pvc", fs, mib).await.unwrap().volume_id;
        let staging = bench.staging("a");
        driver.stage(&id, fs, &staging).await.unwrap();
        write(&staging, "before", &pattern(20));
        let before = size_at(&staging);
        driver.unstage(&id, &staging).await.unwrap();
        let nowhere = node_expand(&mut driver, &id, &staging, (500 * MIB, 0)).await;
        assert_eq!(nowhere.unwrap_err().code(), Code::NotFound);
        assert_eq!(
            expand(&mut driver, &id, 500 * MIB).await.unwrap(),
            500 * MIB
        );
        driver.kill();
        let mut driver = bench.start().await;
        driver.stage(&id, fs, &staging).await.unwrap();
        let after = size_at(&staging);
        assert!(after - before >= (500 - mib) * 95 / 100, "{before} {after}");
        assert_eq!(read(&staging, "before"), pattern(20));
        write(&staging, "after", &pattern(300));
        driver.unstage(&id, &staging).await.unwrap();
    }
}

#[tokio::test]
async fn a_block_device_grows_while_it_is_open() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "block", 32).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    driver.stage(&id, "block", &staging).await.unwrap();
    let block = capability("block");
    driver
        .publish_as(&id, &staging, &target, false, block)
        .await
        .unwrap();
    let mut device = File::options()
        .read(true)
        .write(true)
        .open(&target)
        .unwrap();
    device.write_all_at(&[7; 8192], 0).unwrap();
    for (path, mib) in [(&target, 48), (&staging, 64)] {
        let size = node_expand(&mut driver, &id, path, (mib * MIB, 0)).await;
        assert_eq!(size.unwrap(), mib * MIB);
        let end = device.seek(SeekFrom::End(0)).unwrap();
        assert_eq!(i64::try_from(end).unwrap(), mib * MIB);
    }
    device.write_all_at(&[8; 8192], (64 << 20) - 8192).unwrap();
    device.sync_all().unwrap();
    let mut bytes = [0; 8192];
    device.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 8192]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "ext4", 64).await.unwrap().volume_id;
    let staging = bench.staging("a");
    driver.stage(&id, "ext4", &staging).await.unwrap();
    let room = driver.available().await;
    let nobody = format!("vol-{}.node-1", "0".repeat(32));
    let elsewhere = bench.staging("b");
    for (id, path, range, code) in [
        (
            &*id,
            &*staging,
            (64 * MIB + room + MIB, 0),
            Code::ResourceExhausted,
        ),
        (&id, &staging, (0, 63 * MIB), Code::OutOfRange),
        (&id, &staging, (i64::MAX, 0), Code::OutOfRange),
        (&id, &staging, (-1, 0), Code::InvalidArgument),
        (&id, &staging, (2 * MIB, MIB), Code::InvalidArgument),
        (&id, "", (128 * MIB, 0), Code::InvalidArgument),
        ("", &staging, (128 * MIB, 0), Code::InvalidArgument),
        (&id, &elsewhere, (128 * MIB, 0), Code::NotFound),
        (&id, "some/path", (128 * MIB, 0), Code::NotFound),
        (&nobody, &staging, (128 * MIB, 0), Code::NotFound),
        ("nonsense", &staging, (128 * MIB, 0), Code::NotFound),
    ] {
        let refused = node_expand(&mut driver, id, path, range).await.unwrap_err();
        assert_eq!(refused.code(), code, "{id} {path} {range:?}: {refused}");
    }
    let image = bench.volumes()[0].join("image");
    assert_eq!(image.metadata().unwrap().len(), 64 << 20);
    assert_eq!(driver.available().await, room);
    let smaller = node_expand(&mut driver, &id, &staging, (MIB, 0)).await;
    assert_eq!(smaller.unwrap(), 64 * MIB);
    let exact = expand(&mut driver, &nobody, MIB).await.unwrap_err();
    assert_eq!(exact.code(), Code::NotFound);
    let request = ControllerExpandVolumeRequest {
        volume_id: id.clone(),
        ..Default::default()
    };
    let missing = driver.controller.controller_expand_volume(request).await;
    assert_eq!(missing.unwrap_err().code(), Code::InvalidArgument);
    driver.unstage(&id, &staging).await.unwrap();
    let block = expand(&mut driver, &id, 64 * MIB + 4096).await;
    assert_eq!(
        block.unwrap(),
        64 * MIB + 4096,
        "to the block, when asked so"
    );
    let all = expand(&mut driver, &id, 64 * MIB + room).await;
    assert_eq!(all.unwrap(), 64 * MIB + room, "up to the last byte");
    assert_eq!(driver.available().await, 0);
}

#[tokio::test]
async fn a_thick_volume_has_its_new_blocks_at_once() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let request = CreateVolumeRequest {
        name: "thick".into(),
        capacity_range: Some(CapacityRange {
            required_bytes: 64 * MIB,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability("ext4")],
        parameters: [("provisioning".into(), "thick".into())].into(),
        ..Default::default()
    };
    let made = driver.controller.create_volume(request).await.unwrap();
    let id = made.into_inner().volume.unwrap().volume_id;
    expand(&mut driver, &id, 128 * MIB).await.unwrap();
    let image = bench.volumes()[0].join("image").metadata().unwrap();
    assert_eq!(image.len(), 128 << 20);
    assert!(image.blocks() * 512 >= 128 << 20, "{}", image.blocks());
}

#[tokio::test]
async fn expansion_is_announced_as_the_flags_say() {
    for (flags, announced, most) in [
        (&[][..], false, None),
        (
            &["--controller-expansion", "--max-volumes=7"],
            true,
            Some(7),
        ),
    ] {
        let bench = Bench::new();
        let own = ["--pool-size=1Gi", "--pool-sparse", "--no-http"];
        let mut driver = bench.start_with(&[&own, flags].concat()).await;
        let request = ControllerGetCapabilitiesRequest {};
        let controller = driver.controller.controller_get_capabilities(request);
        let controller = controller.await.unwrap().into_inner().capabilities;
        let expands = |it: &ControllerType| match it {
            ControllerType::Rpc(rpc) => rpc.r#type() == ControllerRpc::ExpandVolume,
        };
        let found = controller
            .iter()
            .any(|it| it.r#type.as_ref().is_some_and(expands));
        assert_eq!(found, announced);
        let node = driver
            .node
            .node_get_capabilities(NodeGetCapabilitiesRequest {});
        let node = node.await.unwrap().into_inner().capabilities;
        let expands = |it: &NodeType| match it {
            NodeType::Rpc(rpc) => rpc.r#type() == NodeRpc::ExpandVolume,
        };
        assert!(
            node.iter()
                .any(|it| it.r#type.as_ref().is_some_and(expands))
        );
        let request = GetPluginCapabilitiesRequest {};
        let plugin = driver.identity.get_plugin_capabilities(request).await;
        let plugin = plugin.unwrap().into_inner().capabilities;
        let online = |it: &PluginType| match it {
            PluginType::VolumeExpansion(it) => it.r#type() == Expansion::Online,
            PluginType::Service(_) => false,
        };
        assert!(
            plugin
                .iter()
                .any(|it| it.r#type.as_ref().is_some_and(online))
        );
        let info = driver
            .node
            .node_get_info(NodeGetInfoRequest {})
            .await
            .unwrap();
        let limit = info.into_inner().max_volumes_per_node;
        let kernel = std::fs::read_to_string("/proc/sys/fs/mount-max").unwrap();
        let kernel: i64 = kernel.trim().parse().unwrap();
        match most {
            Some(most) => assert_eq!(limit, most),
            None => assert!(limit > 0 && limit < kernel / 2, "{limit} of {kernel}"),
        }
    }
}

/// The steps of this part.
#[cfg(feature = "failpoints")]
pub const STEPS: [&str; 5] = [
    "expand.image",
    "expand.record",
    "fit.device",
    "stage.grow",
    "grow.settle",
];

/// What was under way is finished by its repetition, or by the next start.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_crash_while_growing_is_made_good() {
    let bench = Bench::new();
    let folder = bench.path("failpoints");
    std::fs::create_dir(&folder).unwrap();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "xfs", 300).await.unwrap().volume_id;
    let staging = bench.staging("a");
    driver.stage(&id, "xfs", &staging).await.unwrap();
    write(&staging, "before", &pattern(20));
    let before = size_at(&staging);
    let room = driver.available().await;
    let mut mib = 300;
    for step in STEPS {
        for place in ["before", "after"] {
            mib += 20;
            let place = format!("{step}.{place}");
            std::fs::write(folder.join(format!("{place}.abort")), b"").unwrap();
            let cut = node_expand(&mut driver, &id, &staging, (mib * MIB, 0)).await;
            cut.unwrap_err();
            assert!(driver.has_aborted(), "{place}");
            assert!(folder.join(format!("{place}.hit")).exists(), "{place}");
            driver = bench.start().await;
            let left = room - (mib - 300) * MIB;
            let found = driver.available().await;
            assert!([left, left + 20 * MIB].contains(&found), "{place}: {found}");
            let size = node_expand(&mut driver, &id, &staging, (mib * MIB, 0)).await;
            assert_eq!(size.unwrap(), mib * MIB, "{place}");
            let grown = size_at(&staging) - before;
            assert!(grown >= mib - 300 - 5, "{place}: {grown}");
            assert_eq!(driver.available().await, left, "{place}");
            assert_eq!(read(&staging, "before"), pattern(20), "{place}");
        }
    }
}
