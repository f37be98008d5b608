use std::time::Instant;

use super::*;

const BODY: &str = "0123456789";

/// A server that answers every request with [`BODY`].
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (head, _) = read_head(&mut client).await.unwrap();
                assert!(head.contains("Connection: close"), "{head}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
                client.write_all((head + BODY).as_bytes()).await.unwrap();
            });
        }
    });
    address
}

async fn get(proxy: &FaultProxy) -> reqwest::Result<(u16, String)> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()?;
    let url = format!("{}/bucket/key?versionId=1", proxy.endpoint());
    let answer = client.get(url).header("Range", "bytes=0-9").send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[tokio::test]
async fn passes_and_remembers() {
    let proxy = FaultProxy::start(server().await).await.unwrap();
    assert_eq!(get(&proxy).await.unwrap(), (200, BODY.to_owned()));
    let seen = Seen {
        method: "GET".to_owned(),
        target: "/bucket/key?versionId=1".to_owned(),
        range: Some("bytes=0-9".to_owned()),
    };
    assert_eq!(proxy.seen(), [seen]);
    assert_eq!(proxy.body_bytes(), 10);
}

#[tokio::test]
async fn every_fault_is_felt_and_ends() {
    let proxy = FaultProxy::start(server().await).await.unwrap();
    proxy.set(Fault::Answer(503)).await.unwrap();
    assert_eq!(get(&proxy).await.unwrap().0, 503);
    proxy.set(Fault::Truncate(4)).await.unwrap();
    assert!(get(&proxy).await.is_err());
    assert_eq!(proxy.body_bytes(), 4);
    proxy.set(Fault::Refuse).await.unwrap();
    assert!(get(&proxy).await.unwrap_err().is_connect());
    proxy.set(Fault::Stall).await.unwrap();
    assert!(get(&proxy).await.unwrap_err().is_timeout());
    proxy.set(Fault::None).await.unwrap();
    assert_eq!(get(&proxy).await.unwrap(), (200, BODY.to_owned()));
}

#[tokio::test]
async fn throttles() {
    let proxy = FaultProxy::start(server().await).await.unwrap();
    proxy.set(Fault::Throttle(20)).await.unwrap();
    let started = Instant::now();
    assert_eq!(get(&proxy).await.unwrap(), (200, BODY.to_owned()));
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn several_share_what_there_is() {
    let proxy = FaultProxy::start(server().await).await.unwrap();
    proxy.set(Fault::Share(20)).await.unwrap();
    let started = Instant::now();
    let both = tokio::join!(get(&proxy), get(&proxy));
    assert_eq!(both.0.unwrap().1, BODY);
    assert_eq!(both.1.unwrap().1, BODY);
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
}
