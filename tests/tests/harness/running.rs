//! What a started cluster can do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node as NodeObject, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};
use tests::cluster::Node;
use tests::image::Image;
use tests::process;
use tests::s3::S3Server;
use tests::s3::fault::Fault;
use tests::wait::eventually;

use crate::{SHELL, SOON, Shared};

pub(crate) async fn starts_in_time(shared: &Shared) -> Result<()> {
    println!(
        "  two nodes ready after {:.1} s",
        shared.started.as_secs_f64()
    );
    ensure!(
        shared.started < Duration::from_secs(30),
        "{:?}",
        shared.started
    );
    let nodes = Api::<NodeObject>::all(shared.cluster.client())
        .list(&ListParams::default())
        .await?;
    let names: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    ensure!(names == ["node-1", "node-2"], "{names:?}");
    Ok(())
}

/// A pod of one busybox container on a node, as the default ServiceAccount.
pub(crate) fn pod(name: &str, node: &str, script: &str, extra: &Value) -> Result<Pod> {
    let mut container = json!({
        "name": "shell",
        "image": SHELL,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", script],
    });
    let mut volumes = json!([]);
    if let (Some(container), Some(extra)) = (container.as_object_mut(), extra.as_object()) {
        for (field, value) in extra {
            if field == "volumes" {
                volumes = value.clone();
            } else {
                container.insert(field.clone(), value.clone());
            }
        }
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": volumes,
        },
    }))?)
}

pub(crate) async fn phase(pods: &Api<Pod>, name: &str, wanted: &str) -> Result<Pod> {
    eventually(&format!("pod {name} is {wanted}"), SOON, async || {
        let pod = pods.get(name).await?;
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        ensure!(phase == Some(wanted), "{:?}", pod.status);
        Ok(pod)
    })
    .await
}

/// With kubectl, which takes address, token and authority from where Kubernetes puts them.
pub(crate) async fn pods_reach_it(shared: &Shared) -> Result<()> {
    let cluster = &shared.cluster;
    let image = "docker.io/tests/kubectl:dev";
    cluster
        .load(Image::program(image, &cluster.tools().built("kubectl"))?)
        .await?;
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let name = |node: &Node| format!("reads-on-{}", node.name());
    for node in cluster.nodes() {
        let asks = [
            "/bin/kubectl",
            "auth",
            "whoami",
            "--output=jsonpath={.status.userInfo}",
        ];
        let extra = json!({"image": image, "command": asks});
        let made = pod(&name(node), node.name(), "", &extra)?;
        pods.create(&PostParams::default(), &made).await?;
    }
    for node in cluster.nodes() {
        let done = phase(&pods, &name(node), "Succeeded").await;
        let said = pods.logs(&name(node), &LogParams::default()).await?;
        done.with_context(|| said.clone())?;
        let user: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let node_name = &user["extra"]["authentication.kubernetes.io/node-name"];
        ensure!(
            user["username"] == "system:serviceaccount:default:default",
            "{said}"
        );
        ensure!(*node_name == json!([node.name()]), "{said}");
    }
    Ok(())
}

pub(crate) async fn mounts_for_its_node(shared: &Shared) -> Result<()> {
    let cluster = &shared.cluster;
    let (first, second) = (cluster.node(0), cluster.node(1));
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let script = "mkdir /pool/seen && mount -t tmpfs tmpfs /pool/seen && touch /pool/seen/file && \
                  exec sleep 1000";
    let privileged = json!({
        "securityContext": {"privileged": true},
        "volumeMounts": [
            {"name": "pool", "mountPath": "/pool", "mountPropagation": "Bidirectional"},
        ],
        "volumes": [{"name": "pool", "hostPath": {"path": "/var/lib/fastcopy"}}],
    });
    let made = pod("mounts", first.name(), script, &privileged)?;
    pods.create(&PostParams::default(), &made).await?;
    let running = phase(&pods, "mounts", "Running").await?;

    let target = Path::new("/var/lib/fastcopy/seen");
    eventually("the node sees what the pod mounted", SOON, async || {
        let mounts = first.mounts()?;
        let found: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.target == target)
            .collect();
        ensure!(
            found.len() == 1 && found[0].file_system == "tmpfs",
            "{found:?}"
        );
        ensure!(
            first.pool().join("seen/file").exists(),
            "the file is not seen"
        );
        Ok(())
    })
    .await?;
    ensure!(
        !second.pool().join("seen").exists(),
        "the other node has the same pool"
    );
    let machine = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(
        !machine.contains("/fastcopy/seen"),
        "the machine sees the node's mounts"
    );

    let inside = cluster.container_processes(&running, "shell")?;
    ensure!(process::peak_memory(inside[0])? > 0, "{inside:?}");
    let killed = first.kill_containers()?;
    ensure!(
        killed >= 2,
        "only {killed} processes in a pod and its sandbox"
    );
    phase(&pods, "mounts", "Failed").await?;
    first.run(&["umount", "/var/lib/fastcopy/seen"])?;
    Ok(())
}

pub(crate) async fn audit_log_counts(shared: &Shared) -> Result<()> {
    let log = shared.cluster.audit_log();
    let mark = log.mark()?;
    let maps = Api::<ConfigMap>::default_namespaced(shared.cluster.client());
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "counted"}}))?;
    for _ in 0..3 {
        maps.create(&PostParams::default(), &map).await?;
        let again = maps.create(&PostParams::default(), &map).await;
        ensure!(again.is_err(), "made twice");
        maps.delete("counted", &DeleteParams::default()).await?;
    }
    let events = log.since(mark)?;
    let ours = |code: u16, verb: &str| {
        let count = events.iter().filter(|event| {
            event.user == "admin"
                && event.verb == verb
                && event.code == code
                && event.resource == "configmaps"
                && event.namespace == "default"
        });
        count.count()
    };
    let counted = (
        ours(201, "create"),
        ours(409, "create"),
        ours(200, "delete"),
    );
    ensure!(counted == (3, 3, 3), "{counted:?}");
    let made = events
        .iter()
        .filter(|event| event.created("configmaps"))
        .count();
    ensure!(made == 3, "{made} made");
    Ok(())
}

pub(crate) async fn kubelet_comes_back(shared: &Shared) -> Result<()> {
    let node = shared.cluster.node(1);
    let pods = Api::<Pod>::default_namespaced(shared.cluster.client());
    node.restart_kubelet()?;
    let made = pod("after-restart", node.name(), "echo hello", &json!({}))?;
    pods.create(&PostParams::default(), &made).await?;
    phase(&pods, "after-restart", "Succeeded").await?;
    Ok(())
}

pub(crate) async fn s3_serves(shared: &Shared) -> Result<()> {
    let server = S3Server::beside(&shared.cluster).await?;
    server.create_bucket("bucket").await?;
    server.enable_versioning("bucket").await?;
    let first = server.put("bucket", "a/key", b"first".to_vec()).await?;
    let second = server.put("bucket", "a/key", b"second".to_vec()).await?;
    ensure!(
        first.version.is_some() && first.version != second.version,
        "{first:?} {second:?}"
    );

    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), vec![7; 20 << 20])?;
    server.put_file("bucket", "large", file.path()).await?;
    let store = server.store("bucket")?;
    ensure!(
        store.head(&"large".into()).await?.size == 20 << 20,
        "the size differs"
    );

    server.pause()?;
    ensure!(
        std::net::TcpStream::connect(server.address()).is_err(),
        "it is still there"
    );
    server.resume().await?;
    ensure!(
        store.get(&"a/key".into()).await?.bytes().await? == "second",
        "it forgot"
    );

    let proxy = server.fault_proxy().await?;
    let through = server.store_at("bucket", &proxy.endpoint())?;
    ensure!(
        through.get(&"a/key".into()).await?.bytes().await? == "second",
        "the proxy garbles"
    );
    proxy.set(Fault::Answer(403)).await?;
    let refused = through.get(&"a/key".into()).await;
    ensure!(refused.is_err(), "the proxy let it through");
    ensure!(proxy.seen().len() == 2, "{:?}", proxy.seen());
    server.stop().await
}
