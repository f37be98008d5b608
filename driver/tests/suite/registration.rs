//! Kubelet's side of the registration, and what can be seen over HTTP.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use csi::registration::registration_client::RegistrationClient;
use csi::registration::{InfoRequest, RegistrationStatus};
use tonic::transport::Channel;

use crate::support::Bench;
use crate::support::http::{free_address, get};

fn kubelet(socket: &Path) -> RegistrationClient<Channel> {
    RegistrationClient::new(csi::socket::connect(socket, Duration::from_secs(5)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubelet_is_told_and_its_answer_is_shown() {
    let bench = Bench::new();
    let address = free_address();
    let http = format!("--http-address={address}");
    let endpoint = "--kubelet-endpoint=/var/lib/kubelet/plugins/x/csi.sock";
    let driver = bench
        .start_with(&["--pool-size=1Gi", "--pool-sparse", &http, endpoint])
        .await;
    let socket = bench.path("registry/fastcopy.csi.example.com-reg.sock");
    assert_eq!(
        socket.symlink_metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );

    let info = kubelet(&socket)
        .get_info(InfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.r#type, "CSIPlugin");
    assert_eq!(info.name, "fastcopy.csi.example.com");
    assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/x/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);

    let notify = |plugin_registered, error: &str| {
        let status = RegistrationStatus {
            plugin_registered,
            error: error.into(),
        };
        let mut kubelet = kubelet(&socket);
        async move { kubelet.notify_registration_status(status).await.unwrap() }
    };
    notify(true, "").await;
    assert_eq!(
        get(&address, "/healthz"),
        ("HTTP/1.1 200 OK".into(), "ok\n".into())
    );
    notify(false, "no such version").await;
    let (status, body) = get(&address, "/healthz");
    assert!(
        status.contains("503") && body.contains("no such version"),
        "{status} {body}"
    );
    notify(true, "").await;
    assert!(get(&address, "/healthz").0.contains("200"));

    assert!(driver.terminate().success());
    assert!(
        !socket.exists() && !bench.path("csi.sock").exists(),
        "the sockets are gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_was_removed_comes_back() {
    let bench = Bench::new();
    let stale = bench.path("registry/fastcopy.csi.example.com-reg.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());

    let _driver = bench.start().await;
    let mut kubelet_calls = kubelet(&stale);
    kubelet_calls
        .get_info(InfoRequest {})
        .await
        .expect("a stale socket is replaced");

    std::fs::remove_file(&stale).unwrap();
    for _ in 0..100 {
        if stale.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let info = kubelet(&stale)
        .get_info(InfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.name, "fastcopy.csi.example.com");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_show_the_pool_and_the_calls() {
    let bench = Bench::new();
    let address = free_address();
    let http = format!("--http-address={address}");
    let mut driver = bench
        .start_with(&[
            "--pool-size=1Gi",
            "--pool-sparse",
            &http,
            "--no-registration",
        ])
        .await;
    assert!(
        !bench
            .path("registry/fastcopy.csi.example.com-reg.sock")
            .exists()
    );
    driver.create("pvc-1", "ext4", 64).await.unwrap();
    driver.delete("").await.unwrap_err();
    let (status, text) = get(&address, "/metrics");
    assert!(status.contains("200"), "{status}");
    for line in [
        "fastcopy_pool_promised_bytes 67108864",
        "fastcopy_volumes 1",
        "fastcopy_rpc_seconds_count{method=\"CreateVolume\",code=\"Ok\"} 1",
        "fastcopy_rpc_seconds_count{method=\"DeleteVolume\",code=\"InvalidArgument\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let capacity = text
        .lines()
        .find_map(|line| line.strip_prefix("fastcopy_pool_capacity_bytes "));
    assert!(
        capacity.unwrap().parse::<u64>().unwrap() > 850 << 20,
        "{capacity:?}"
    );
}
