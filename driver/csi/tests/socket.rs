//! A server and a client over a real socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use csi::socket::{ListenError, connect, listen};
use csi::v1::identity_client::IdentityClient;
use csi::v1::identity_server::{Identity, IdentityServer};
use csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, GetPluginInfoResponse, ProbeRequest,
    ProbeResponse,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A plugin that says its name, and whose Probe never ends.
struct Plugin;

#[tonic::async_trait]
impl Identity for Plugin {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: "plugin.example.com".into(),
            vendor_version: "1".into(),
            manifest: [("b".into(), "2".into()), ("a".into(), "1".into())].into(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        std::future::pending().await
    }
}

/// A running server; dropped, it closes its socket and leaves the file.
struct Running(
    oneshot::Sender<()>,
    JoinHandle<Result<(), tonic::transport::Error>>,
);

impl Running {
    fn start(path: &Path) -> Result<Self> {
        let incoming = listen(path)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder()
            .add_service(IdentityServer::new(Plugin))
            .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) });
        Ok(Self(stop, tokio::spawn(server)))
    }

    async fn stop(self) -> Result<()> {
        drop(self.0);
        Ok(self.1.await??)
    }
}

#[tokio::test]
async fn a_call_goes_there_and_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("csi.sock");
    let _server = Running::start(&path)?;
    let mut client = IdentityClient::new(connect(&path, TIMEOUT)?);

    let info = client
        .get_plugin_info(GetPluginInfoRequest {})
        .await?
        .into_inner();
    assert_eq!(info.name, "plugin.example.com");
    assert_eq!(info.manifest["a"], "1");

    let left_out = client
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await;
    assert_eq!(left_out.unwrap_err().code(), Code::Unimplemented);
    Ok(())
}

#[tokio::test]
async fn only_the_owner_may_open_the_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("csi.sock");
    let _incoming = listen(&path)?;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o7777, 0o600);
    Ok(())
}

#[tokio::test]
async fn a_stale_socket_gives_way_and_nothing_else_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("csi.sock");
    drop(UnixListener::bind(&path)?);
    assert!(path.exists(), "a closed socket leaves its file");
    let server = Running::start(&path)?;
    IdentityClient::new(connect(&path, TIMEOUT)?)
        .get_plugin_info(GetPluginInfoRequest {})
        .await?;
    server.stop().await?;

    let file = folder.path().join("file");
    fs::write(&file, "precious")?;
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link)?;
    for occupied in [&file, &link] {
        let error = listen(occupied).err().unwrap();
        assert!(matches!(error, ListenError::Occupied(_)), "{error}");
    }
    assert_eq!(fs::read_to_string(&file)?, "precious");

    let absent = folder.path().join("absent/csi.sock");
    let error = listen(&absent).err().unwrap();
    assert!(matches!(error, ListenError::Bind { .. }), "{error}");
    assert!(
        error.to_string().contains(absent.to_str().unwrap()),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_channel_outlives_its_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("csi.sock");
    let mut client = IdentityClient::new(connect(&path, TIMEOUT)?);
    for _ in 0..2 {
        let nobody = client.get_plugin_info(GetPluginInfoRequest {}).await;
        assert_eq!(nobody.unwrap_err().code(), Code::Unavailable);
        let server = Running::start(&path)?;
        client.get_plugin_info(GetPluginInfoRequest {}).await?;
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_never_answers_does_not_hold_its_caller() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("csi.sock");
    let server = Running::start(&path)?;
    let mut client = IdentityClient::new(connect(&path, Duration::from_millis(200))?);
    let begun = Instant::now();
    let late = client.probe(ProbeRequest {}).await.unwrap_err();
    assert_eq!(late.code(), Code::Cancelled, "{late}");
    assert!(begun.elapsed() < TIMEOUT);

    // One that accepts and says nothing, as a stopped process does.
    let mute = folder.path().join("mute.sock");
    let _listener = UnixListener::bind(&mute)?;
    let mut client = IdentityClient::new(connect(&mute, Duration::from_millis(200))?);
    let begun = Instant::now();
    let late = client.probe(ProbeRequest {}).await.unwrap_err();
    assert_eq!(late.code(), Code::Cancelled, "{late}");
    assert!(begun.elapsed() < TIMEOUT);
    drop(server);
    Ok(())
}
