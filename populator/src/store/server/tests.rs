//! Signing and looking, at servers that stand in for nothing but HTTP.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;

use super::*;
use crate::store::credentials::tests::google_key;
use crate::store::{Allowance, Ambient};

fn store(endpoint: Option<&str>, path_style: bool) -> BackupStoreSpec {
    let mut spec: BackupStoreSpec = serde_json::from_value(serde_json::json!({
        "url": "s3://my-bucket", "region": "eu-central-1", "pathStyle": path_style,
        "account": "account",
    }))
    .unwrap();
    spec.endpoint = endpoint.map(ToOwned::to_owned);
    spec
}

fn reach() -> Reach {
    Reach {
        addresses: Addresses::from(&Allowance {
            allow_store_network: vec!["127.0.0.0/8".parse().unwrap()],
        }),
        ..Reach::default()
    }
}

fn read(scheme: Scheme) -> Credentials {
    let keys = BTreeMap::from([
        ("AWS_ACCESS_KEY_ID", "AKID".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "topsecret".to_owned()),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", google_key()),
        ("AZURE_STORAGE_KEY", "dG9wc2VjcmV0".to_owned()),
    ]);
    Credentials::read(scheme, |name| keys.get(name).cloned())
        .ok()
        .unwrap()
}

fn server(store: &BackupStoreSpec, url: &str) -> Result<(Server, ObjectUrl), StoreError> {
    // A second test may have been first: all install the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let location = Location::parse(url).unwrap();
    let credentials = read(location.scheme());
    let server = Server::new(&location, Some(store), &credentials, &reach())?;
    let Location::Object(url) = location else {
        panic!("a prefix");
    };
    Ok((server, url))
}

fn access(store: &BackupStoreSpec) -> Result<Server, StoreError> {
    server(store, "s3://my-bucket/a/b c.tar.gz").map(|(server, _)| server)
}

fn url() -> ObjectUrl {
    ObjectUrl::parse("s3://my-bucket/a/b c.tar.gz").unwrap()
}

#[tokio::test]
async fn a_signed_url_names_object_version_and_lifetime_and_no_secret() {
    let access = access(&store(Some("http://127.0.0.1:7070/"), true)).unwrap();
    let signed = access
        .sign(&url(), Some("v 1"), Duration::from_secs(3600))
        .await
        .unwrap();
    let url = url::Url::parse(&signed.url).unwrap();
    assert_eq!(url.path(), "/my-bucket/a/b%20c.tar.gz");
    assert_eq!(url.port(), Some(7070));
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    assert!(query.contains(&("versionId".to_owned(), "v 1".to_owned())));
    assert!(query.contains(&("X-Amz-Expires".to_owned(), "3600".to_owned())));
    assert!(!signed.url.contains("topsecret"));
}

#[tokio::test]
async fn the_bucket_goes_where_the_store_wants_it() {
    for (endpoint, path_style, start) in [
        (
            None,
            true,
            "https://s3.eu-central-1.amazonaws.com/my-bucket/a/",
        ),
        (
            None,
            false,
            "https://my-bucket.s3.eu-central-1.amazonaws.com/a/",
        ),
        (
            Some("https://s.example.com"),
            true,
            "https://s.example.com/my-bucket/a/",
        ),
        (
            Some("https://s.example.com"),
            false,
            "https://my-bucket.s.example.com/a/",
        ),
    ] {
        let access = access(&store(endpoint, path_style)).unwrap();
        let signed = access
            .sign(&url(), None, Duration::from_secs(60))
            .await
            .unwrap();
        assert!(signed.url.starts_with(start), "{start}: {}", signed.url);
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable() {
    // Bound and closed at once: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let access = access(&store(Some(&endpoint), true)).unwrap();
    let error = access.look(&url(), None).await.unwrap_err();
    assert_eq!(error.reason(), "StoreUnreachable");
    assert!(error.to_string().contains(&endpoint), "{error}");
}

#[tokio::test]
async fn addresses_that_are_no_stores_are_refused() {
    for endpoint in [
        "http://169.254.169.254",
        "http://[::1]:9000",
        "http://[::ffff:a9fe:a9fe]",
    ] {
        let access = access(&store(Some(endpoint), true)).unwrap();
        let error = access.look(&url(), None).await.unwrap_err();
        assert_eq!(error.reason(), "EndpointDenied", "{endpoint}");
    }
}

#[tokio::test]
async fn a_region_leads_nowhere_else() {
    let mut odd = store(None, true);
    odd.region = "@169.254.169.254/".to_owned();
    let access = access(&odd).unwrap();
    let error = access.look(&url(), None).await.unwrap_err();
    assert_eq!(error.reason(), "EndpointDenied", "{error}");
}

#[test]
fn odd_endpoints_are_refused() {
    for endpoint in ["ftp://x", "http://x/path", "x", "http://u@x"] {
        let error = access(&store(Some(endpoint), true)).err().unwrap();
        assert_eq!(error.reason(), "EndpointInvalid", "{endpoint}");
    }
}

#[tokio::test]
async fn each_cloud_has_its_own_form_of_a_signed_url() {
    for (url, endpoint, path_style, start, parameter) in [
        (
            "gs://bucket/a/b c.tar",
            None,
            true,
            "https://storage.googleapis.com/bucket/a/b%20c.tar?",
            "X-Goog-Signature",
        ),
        (
            "gs://bucket/k.tar",
            Some("http://127.0.0.1:4443"),
            false,
            "http://127.0.0.1:4443/bucket/k.tar?",
            "X-Goog-Signature",
        ),
        (
            "az://container/a/k.tar",
            None,
            true,
            "https://account.blob.core.windows.net/container/a/k.tar?",
            "sig",
        ),
        (
            "az://container/k.tar",
            Some("http://127.0.0.1:10000/"),
            true,
            "http://127.0.0.1:10000/account/container/k.tar?",
            "sig",
        ),
        (
            "az://container/k.tar",
            Some("https://blob.example.com"),
            false,
            "https://account.blob.example.com/container/k.tar?",
            "sig",
        ),
    ] {
        let (server, object) = server(&store(endpoint, path_style), url).unwrap();
        let signed = server
            .sign(&object, None, Duration::from_secs(60))
            .await
            .unwrap();
        assert!(signed.url.starts_with(start), "{start}: {}", signed.url);
        let query = url::Url::parse(&signed.url).unwrap();
        assert!(
            query
                .query_pairs()
                .any(|(name, value)| name == parameter && !value.is_empty())
        );
        assert!(
            !signed.url.contains("169.254"),
            "what a key file says of servers"
        );
    }
}

#[test]
fn what_the_controller_is_goes_to_no_other_place() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let lent = Reach {
        ambient: Ambient::new(&["team".to_owned()]),
        ..reach()
    };
    for region in ["@169.254.169.254/", "evil.example.com#", "a.b", ""] {
        let mut odd = store(None, true);
        odd.region = region.to_owned();
        let location = Location::parse("s3://my-bucket/k").unwrap();
        let refused = Server::new(&location, Some(&odd), &Credentials::Ambient, &lent);
        assert_eq!(refused.err().unwrap().reason(), "SigningFailed", "{region}");
    }
    let mut odd = store(None, true);
    odd.account = Some("evil.example.com/".to_owned());
    let location = Location::parse("az://container/k").unwrap();
    let refused = Server::new(&location, Some(&odd), &Credentials::Ambient, &lent);
    assert_eq!(refused.err().unwrap().reason(), "SigningFailed");
}

/// A web server whose every answer is this, but of the range that is asked for.
async fn web(headers: &'static [(&'static str, &'static str)], status: u16) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |State(()): State<()>, _: Request| async move {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answer.body(axum::body::Body::from("x")).unwrap()
    };
    let router = Router::new().fallback(answer).with_state(());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/k.tar?sig=c0ffee")
}

/// A look at what such a server has, by a URL that somebody has signed.
async fn look_at(
    headers: &'static [(&'static str, &'static str)],
    status: u16,
) -> Result<Found, StoreError> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let url = ObjectUrl::parse("https://web.example.com/k.tar?sig=c0ffee").unwrap();
    let location = Location::Object(url.clone());
    let mut server = Server::new(&location, None, &Credentials::Unneeded, &reach()).unwrap();
    // Plain HTTP, which no URL that a person may write leads to.
    server.signer = Signer::Given(web(headers, status).await);
    let found = server.look(&url, None).await;
    if let Err(error) = &found {
        let said = error.to_string();
        assert!(!said.contains("c0ffee") && said.contains("; "), "{said}");
    }
    found
}

#[tokio::test]
async fn a_web_server_is_read_by_etag_or_time() {
    const RANGE: (&str, &str) = ("content-range", "bytes 0-0/9");
    const WRITTEN: (&str, &str) = ("last-modified", "Wed, 01 Jan 2025 10:00:00 GMT");
    let tagged = look_at(&[RANGE, ("etag", "\"abc\"")], 206).await.unwrap();
    assert_eq!((tagged.size, tagged.etag.as_deref()), (9, Some("\"abc\"")));
    let dated = look_at(&[RANGE, ("etag", "W/\"abc\""), WRITTEN], 206)
        .await
        .unwrap();
    assert!(dated.etag.is_none() && dated.last_modified.is_some());
    for (headers, status, reason) in [
        (&[RANGE][..], 206, "ETagMissing"),
        (&[("etag", "\"abc\"")], 200, "RangesUnsupported"),
        (&[], 403, "AccessDenied"),
        (&[], 404, "ObjectNotFound"),
        (&[("location", "http://127.0.0.1:1/")], 302, "Redirected"),
        (&[], 503, "StoreUnavailable"),
        (&[], 416, "ArchiveEmpty"),
    ] {
        let error = look_at(headers, status).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{status}: {error}");
    }
}

#[tokio::test]
async fn what_somebody_else_signed_is_handed_on_and_not_shown() {
    let url = ObjectUrl::parse("https://web.example.com:8443/k.tar?sig=c0ffee").unwrap();
    let location = Location::Object(url.clone());
    let server = Server::new(&location, None, &Credentials::Unneeded, &reach()).unwrap();
    let signed = server
        .sign(&url, None, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(signed.url, "https://web.example.com:8443/k.tar?sig=c0ffee");
    assert_eq!(server.name, "https://web.example.com:8443");
}
