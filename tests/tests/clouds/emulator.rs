//! The emulators, started and filled.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::BackupStoreSpec;
use http::Method;
use object_store::ObjectStoreExt as _;
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder,
};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::path::Path as Key;
use populator::store::{Credentials, Scheme};
use serde_json::json;
use tests::process::Process;
use tests::state::State;
use tests::tools::Tools;
use tests::wait::eventually;
use tokio::net::TcpStream;

/// Of each.
pub const BUCKET: &str = "bucket";

const ACCOUNT: &str = "account";

/// "a key of the tests" in Base64.
const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3Rz";

/// "another key" in Base64.
const OTHER_KEY: &str = "YW5vdGhlciBrZXk=";

/// An emulator of a cloud's store.
pub struct Emulator {
    scheme: Scheme,
    endpoint: String,
    /// As a BackupStore's Secret has them.
    pub credentials: Credentials,
    _process: Process,
}

impl Emulator {
    /// fake-gcs-server, which looks at no signature.
    pub async fn google(state: &State) -> Result<Self> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let mut command = state.command(&Tools::locate()?.built("fake-gcs-server"));
        command
            .args([
                "-scheme",
                "http",
                "-host",
                "127.0.0.1",
                "-backend",
                "memory",
            ])
            .args(["-port", &port.to_string(), "-public-host", &address]);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
        let file = json!({
            "client_email": "tests@project.example.com", "private_key": key.serialize_pem(),
        });
        let emulator = Self {
            scheme: Scheme::Gs,
            endpoint: format!("http://{address}"),
            credentials: read(Scheme::Gs, "GOOGLE_SERVICE_ACCOUNT_KEY", &file.to_string())?,
            _process: spawn(state, "fake-gcs-server", &mut command, &address).await?,
        };
        let bucket = client()?.post(format!("{}/storage/v1/b", emulator.endpoint));
        let body = json!({"name": BUCKET}).to_string();
        let made = bucket.header("content-type", "application/json").body(body);
        ensure!(made.send().await?.status().is_success(), "no bucket");
        Ok(emulator)
    }

    /// Azurite, which looks at signatures.
    pub async fn azure(state: &State, program: &Path) -> Result<Self> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let mut command = state.command(program);
        command
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(["--inMemoryPersistence", "--silent", "--disableTelemetry"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
        let emulator = Self {
            scheme: Scheme::Az,
            endpoint: format!("http://{address}"),
            credentials: read(Scheme::Az, "AZURE_STORAGE_KEY", KEY)?,
            _process: spawn(state, "azurite", &mut command, &address).await?,
        };
        let url = format!("{}/{ACCOUNT}/{BUCKET}?restype=container", emulator.endpoint);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse()?;
        *request.method_mut() = Method::PUT;
        let key = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY)?);
        AzureAuthorizer::new(&key, ACCOUNT).try_authorize(&mut request)?;
        let headers = std::mem::take(request.headers_mut());
        let made = client()?.put(url).headers(headers).send().await?;
        ensure!(
            made.status().is_success(),
            "no container: {}",
            made.status()
        );
        Ok(emulator)
    }

    /// The URL of an object, or of a prefix.
    pub fn url(&self, key: &str) -> String {
        format!("{}{BUCKET}/{key}", self.scheme.prefix())
    }

    /// Makes an object, or makes it anew.
    pub async fn put(&self, key: &str, content: Vec<u8>) -> Result<()> {
        if self.scheme == Scheme::Gs {
            let url = format!("{}/upload/storage/v1/b/{BUCKET}/o", self.endpoint);
            let query = format!("?uploadType=media&name={key}");
            let put = client()?.post(url + &query).body(content).send();
            ensure!(put.await?.status().is_success(), "{key} was not taken");
            return Ok(());
        }
        let store = MicrosoftAzureBuilder::new()
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(BUCKET)
            .with_endpoint(format!("{}/{ACCOUNT}", self.endpoint))
            .with_allow_http(true)
            .build()?;
        store.put(&Key::parse(key)?, content.into()).await?;
        Ok(())
    }

    /// The spec of a BackupStore that reads from it.
    pub fn spec(&self) -> BackupStoreSpec {
        let account = (self.scheme == Scheme::Az).then_some(ACCOUNT);
        let spec = json!({
            "url": format!("{}{BUCKET}", self.scheme.prefix()), "endpoint": self.endpoint,
            "account": account,
        });
        serde_json::from_value(spec).expect("it is one")
    }

    /// Another's key, where it is looked at who asks.
    pub fn wrong_credentials(&self) -> Result<Option<Credentials>> {
        let wrong = (self.scheme == Scheme::Az).then_some(OTHER_KEY);
        wrong
            .map(|key| read(Scheme::Az, "AZURE_STORAGE_KEY", key))
            .transpose()
    }

    /// How people's programs find it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match self.scheme {
            Scheme::Gs => vec![(
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                json!({
                    "gcs_base_url": self.endpoint, "disable_oauth": true,
                    "client_email": "", "private_key": "", "private_key_id": "",
                })
                .to_string(),
            )],
            _ => vec![
                (
                    "AZURE_STORAGE_ENDPOINT",
                    format!("{}/{ACCOUNT}", self.endpoint),
                ),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
                ("AZURE_STORAGE_ACCOUNT", ACCOUNT.to_owned()),
                ("AZURE_STORAGE_KEY", KEY.to_owned()),
            ],
        }
    }
}

fn read(scheme: Scheme, name: &str, value: &str) -> Result<Credentials> {
    let get = |asked: &'static str| (asked == name).then(|| value.to_owned());
    let read = Credentials::read(scheme, get);
    read.ok().with_context(|| format!("{name} is no key"))
}

async fn spawn(
    state: &State,
    name: &str,
    command: &mut std::process::Command,
    address: &str,
) -> Result<Process> {
    let log = state.subfolder("logs")?.join(format!("{name}.log"));
    let process = Process::spawn(name, command, &log)?;
    let patience = Duration::from_secs(60);
    eventually("the emulator answers", patience, async || {
        process.check()?;
        Ok(TcpStream::connect(address).await?)
    })
    .await?;
    Ok(process)
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
