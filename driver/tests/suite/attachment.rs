//! With `--attach`, a volume is attached to its node before it is staged, and nowhere else.

use csi::v1::controller_service_capability::Type;
use csi::v1::controller_service_capability::rpc::Type as RpcType;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::{
    ControllerGetCapabilitiesRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, ListVolumesRequest, VolumeCapability,
};
use tonic::{Code, Status};

use crate::support::{Bench, Calls, Driver, capability, capability_with};

async fn start(bench: &Bench) -> Driver {
    let arguments = [
        "--pool-size=1Gi",
        "--pool-sparse",
        "--no-http",
        "--attach",
        "--max-volumes=2",
    ];
    bench.start_with(&arguments).await
}

async fn attach_as(
    calls: &mut Calls,
    id: &str,
    node: &str,
    capability: Option<VolumeCapability>,
    readonly: bool,
) -> Result<(), Status> {
    let request = ControllerPublishVolumeRequest {
        volume_id: id.into(),
        node_id: node.into(),
        volume_capability: capability,
        readonly,
        ..Default::default()
    };
    let attached = calls.controller.controller_publish_volume(request).await;
    attached.map(drop)
}

async fn attach(calls: &mut Calls, id: &str) -> Result<(), Status> {
    attach_as(calls, id, "node-1", Some(capability("")), false).await
}

async fn detach(calls: &mut Calls, id: &str, node: &str) -> Result<(), Status> {
    let request = ControllerUnpublishVolumeRequest {
        volume_id: id.into(),
        node_id: node.into(),
        ..Default::default()
    };
    let detached = calls.controller.controller_unpublish_volume(request).await;
    detached.map(drop)
}

async fn nodes(calls: &mut Calls) -> Vec<String> {
    let listed = calls.controller.list_volumes(ListVolumesRequest::default());
    let entries = listed.await.unwrap().into_inner().entries;
    let nodes = entries
        .into_iter()
        .map(|it| it.status.unwrap().published_node_ids);
    nodes.flatten().collect()
}

#[tokio::test]
async fn a_volume_is_fenced_to_its_node() {
    let bench = Bench::new();
    let mut driver = start(&bench).await;
    let id = driver.create("pvc", "ext4", 32).await.unwrap().volume_id;
    let staging = bench.staging("a");
    let early = driver.stage(&id, "ext4", &staging).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    assert!(nodes(&mut driver).await.is_empty());

    let nobody = format!("vol-{}.node-1", "0".repeat(32));
    let any = || Some(capability(""));
    for (id, node, capability, code) in [
        ("", "node-1", any(), Code::InvalidArgument),
        (&id, "", any(), Code::InvalidArgument),
        (&id, "node-1", None, Code::InvalidArgument),
        (&nobody, "node-1", any(), Code::NotFound),
        (&id, "node-2", any(), Code::NotFound),
        (
            &id,
            "node-1",
            Some(capability("xfs")),
            Code::FailedPrecondition,
        ),
    ] {
        let refused = attach_as(&mut driver, id, node, capability, false).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    for _ in 0..2 {
        attach(&mut driver, &id).await.unwrap();
    }
    let single = capability_with("", Mode::SingleNodeSingleWriter, &[]);
    let option = capability_with("", Mode::SingleNodeMultiWriter, &["noatime"]);
    for (node, capability, readonly, code) in [
        ("node-1", any(), true, Code::AlreadyExists),
        ("node-1", Some(single), false, Code::AlreadyExists),
        ("node-1", Some(option), false, Code::AlreadyExists),
        ("node-2", any(), false, Code::FailedPrecondition),
    ] {
        let refused = attach_as(&mut driver, &id, node, capability, readonly).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(nodes(&mut driver).await, ["node-1"]);
    let attached = driver.delete(&id).await.unwrap_err();
    assert_eq!(attached.code(), Code::FailedPrecondition, "{attached}");

    driver.stage(&id, "ext4", &staging).await.unwrap();
    driver.kill();
    let mut driver = start(&bench).await;
    for node in ["node-1", ""] {
        let staged = detach(&mut driver, &id, node).await.unwrap_err();
        assert_eq!(staged.code(), Code::FailedPrecondition, "{staged}");
    }
    detach(&mut driver, &id, "node-2").await.unwrap();
    assert_eq!(nodes(&mut driver).await, ["node-1"], "it never was there");
    driver.unstage(&id, &staging).await.unwrap();
    for node in ["node-1", "node-1", ""] {
        detach(&mut driver, &id, node).await.unwrap();
    }
    detach(&mut driver, &nobody, "node-1").await.unwrap();
    detach(&mut driver, "nonsense", "").await.unwrap();
    let missing = detach(&mut driver, "", "node-1").await.unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument, "{missing}");
    assert!(nodes(&mut driver).await.is_empty());
    driver.delete(&id).await.unwrap();
}

#[tokio::test]
async fn a_staged_block_volume_is_not_detached() {
    let bench = Bench::new();
    let mut driver = start(&bench).await;
    let id = driver.create("pvc", "block", 32).await.unwrap().volume_id;
    let staging = bench.staging("a");
    let block = Some(capability("block"));
    attach_as(&mut driver, &id, "node-1", block, false)
        .await
        .unwrap();
    driver.stage(&id, "block", &staging).await.unwrap();
    let staged = detach(&mut driver, &id, "node-1").await.unwrap_err();
    assert_eq!(staged.code(), Code::FailedPrecondition, "{staged}");
    driver.unstage(&id, &staging).await.unwrap();
    detach(&mut driver, &id, "").await.unwrap();
}

#[tokio::test]
async fn the_node_has_no_more_volumes_than_it_can() {
    let bench = Bench::new();
    let mut driver = start(&bench).await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d"] {
        ids.push(driver.create(name, "ext4", 16).await.unwrap().volume_id);
    }
    let tasks = ids.iter().cloned().map(|id| {
        let mut calls = driver.calls();
        tokio::spawn(async move { (attach(&mut calls, &id).await, id) })
    });
    let (mut attached, mut refused) = (Vec::new(), Vec::new());
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            (Ok(()), id) => attached.push(id),
            (Err(status), id) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                refused.push(id);
            }
        }
    }
    assert_eq!((attached.len(), refused.len()), (2, 2));
    attach(&mut driver, &attached[0]).await.unwrap();
    detach(&mut driver, &attached[0], "node-1").await.unwrap();
    attach(&mut driver, &refused[0]).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_attached_for_reading_is_not_written() {
    let bench = Bench::new();
    let mut driver = start(&bench).await;
    let id = driver.create("pvc", "ext4", 32).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("a"), bench.target("a"));
    attach_as(&mut driver, &id, "node-1", Some(capability("")), true)
        .await
        .unwrap();
    driver.stage(&id, "ext4", &staging).await.unwrap();
    driver.publish(&id, &staging, &target, false).await.unwrap();
    let refused = std::fs::write(std::path::Path::new(&target).join("file"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn without_the_flag_nothing_is_attached_and_nothing_is_bound_by_it() {
    let bench = Bench::new();
    let mut driver = start(&bench).await;
    assert_eq!(announced(&mut driver).await, 3);
    let id = driver.create("pvc", "ext4", 32).await.unwrap().volume_id;
    attach(&mut driver, &id).await.unwrap();
    driver.kill();
    let mut driver = bench.start().await;
    assert_eq!(announced(&mut driver).await, 0);
    for refused in [
        attach(&mut driver, &id).await,
        detach(&mut driver, &id, "").await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    }
    assert!(nodes(&mut driver).await.is_empty());
    driver.delete(&id).await.unwrap();
    assert!(bench.volumes().is_empty());
}

/// How many of the capabilities that come with attaching are announced.
async fn announced(driver: &mut Driver) -> usize {
    let request = ControllerGetCapabilitiesRequest {};
    let capabilities = driver.controller.controller_get_capabilities(request).await;
    let capabilities = capabilities.unwrap().into_inner().capabilities;
    let attaches = |it: &Type| match it {
        Type::Rpc(rpc) => matches!(
            rpc.r#type(),
            RpcType::PublishUnpublishVolume
                | RpcType::PublishReadonly
                | RpcType::ListVolumesPublishedNodes
        ),
    };
    let all = capabilities.iter().filter_map(|it| it.r#type.as_ref());
    all.filter(|it| attaches(it)).count()
}

/// The steps of this part.
#[cfg(feature = "failpoints")]
pub const STEPS: [&str; 2] = ["attach.record", "detach.record"];

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_crash_while_attaching_or_detaching_is_made_good() {
    let bench = Bench::new();
    let folder = bench.path("failpoints");
    std::fs::create_dir(&folder).unwrap();
    let mut driver = start(&bench).await;
    let id = driver.create("pvc", "ext4", 32).await.unwrap().volume_id;
    for step in STEPS {
        for place in ["before", "after"] {
            let place = format!("{step}.{place}");
            std::fs::write(folder.join(format!("{place}.abort")), b"").unwrap();
            for way in ["attach", "detach"] {
                for attempt in 0..2 {
                    let done = match way {
                        "attach" => attach(&mut driver, &id).await,
                        _ => detach(&mut driver, &id, "node-1").await,
                    };
                    if let Err(status) = done {
                        assert!(attempt == 0 && driver.has_aborted(), "{place}: {status}");
                        assert!(folder.join(format!("{place}.hit")).exists(), "{place}");
                        driver = start(&bench).await;
                    }
                }
                let attached = nodes(&mut driver).await.len();
                assert_eq!(attached, usize::from(way == "attach"), "{place}");
            }
            assert!(folder.join(format!("{place}.hit")).exists(), "{place}");
        }
    }
}
