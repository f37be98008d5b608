//! A real S3 server.

pub mod fault;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::signer::{SignedUrlOptions, Signer as _};
use object_store::{ClientOptions, ObjectStoreExt as _, PutResult, WriteMultipart};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use crate::cluster::Cluster;
use crate::command;
use crate::pki::Authority;
use crate::process::Process;
use crate::state::State;
use crate::tools::Tools;
use crate::wait::eventually;

/// The region that the server believes to be in.
pub const REGION: &str = "us-east-1";

/// versitygw over a folder of the state it was started in, with which it is taken away.
pub struct S3Server {
    state: Arc<State>,
    tools: Tools,
    address: SocketAddr,
    folder: PathBuf,
    access_key: String,
    secret_key: String,
    alone: bool,
    process: Mutex<Option<Process>>,
}

impl S3Server {
    /// Starts a server that the pods of a cluster reach, and the machine too.
    pub async fn beside(cluster: &Cluster) -> Result<Self> {
        let address = cluster.state().addresses().machine();
        Self::start(
            Arc::clone(cluster.state()),
            cluster.tools().clone(),
            address,
            false,
        )
        .await
    }

    /// Starts a server under a name of its own, which only the machine reaches.
    pub async fn alone(name: &str) -> Result<Self> {
        let state = Arc::new(State::create(name)?);
        Self::start(state, Tools::locate()?, Ipv4Addr::LOCALHOST, true).await
    }

    async fn start(
        state: Arc<State>,
        tools: Tools,
        address: Ipv4Addr,
        alone: bool,
    ) -> Result<Self> {
        let port = free_port(address)?;
        let folder = state.subfolder("s3")?;
        for part in ["buckets", "versions", "users"] {
            state.subfolder(&format!("s3/{part}"))?;
        }
        let server = Self {
            state,
            tools,
            address: SocketAddr::from((address, port)),
            folder,
            access_key: random()?,
            secret_key: random()?,
            alone,
            process: Mutex::default(),
        };
        server.resume().await?;
        Ok(server)
    }

    /// `http://` and its address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The access key id.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret access key.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The id of the server's process.
    pub fn pid(&self) -> Result<u32> {
        let running = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(running.as_ref().context("the server is paused")?.pid())
    }

    /// Kills the server; connecting to it is refused from now on.
    pub fn pause(&self) -> Result<()> {
        let running = self
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        running.map_or(Ok(()), |process| process.kill())
    }

    /// Starts the server again, at the same address, with what is in it.
    pub async fn resume(&self) -> Result<()> {
        let process = self.serve(self.address, "s3", &[]).await?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// Serves the same buckets by TLS too, with a certificate of `authority`, at the endpoint that is
    /// answered, until the process is dropped.
    pub async fn by_tls(&self, authority: &Authority) -> Result<(Process, String)> {
        let ip = self.address.ip();
        let identity = authority.server("s3", &[ip])?;
        let folder = self.state.subfolder("s3-tls")?;
        identity.write(&folder, "s3")?;
        let paths = ["s3.crt", "s3.key"].map(|name| folder.join(name).display().to_string());
        let [cert, key] = &paths;
        let port = match ip {
            IpAddr::V4(ip) => free_port(ip)?,
            IpAddr::V6(_) => bail!("the machine has an IPv4 address"),
        };
        let address = SocketAddr::from((ip, port));
        let tls = ["--cert", cert, "--key", key];
        let process = self.serve(address, "s3-tls", &tls).await?;
        Ok((process, format!("https://{address}")))
    }

    async fn serve(&self, address: SocketAddr, log: &str, flags: &[&str]) -> Result<Process> {
        let mut command = self.state.command(&self.tools.built("versitygw"));
        command
            .env("ROOT_ACCESS_KEY", &self.access_key)
            .env("ROOT_SECRET_KEY", &self.secret_key)
            .args(["--quiet", "--region", REGION])
            .args(["--port", &address.to_string()])
            .args(flags)
            // Who is taken off is refused with the next request.
            .args(["--iam-cache-disable", "--iam-dir"])
            .arg(self.folder.join("users"))
            .args(["posix", "--versioning-dir"])
            .arg(self.folder.join("versions"))
            .arg(self.folder.join("buckets"));
        let log = self.state.subfolder("logs")?.join(format!("{log}.log"));
        let process = Process::spawn("versitygw", &mut command, &log)?;
        eventually(
            "the S3 server answers",
            Duration::from_secs(30),
            async || {
                process.check()?;
                Ok(TcpStream::connect(address).await?)
            },
        )
        .await?;
        Ok(process)
    }

    /// Access key and secret key of another user, who may read and write all buckets.
    pub async fn add_user(&self) -> Result<(String, String)> {
        let (access, secret) = (random()?, random()?);
        let user = ["--access", &access, "--secret", &secret];
        self.administer("create-user", &[&user[..], &["--role", "admin"]].concat())
            .await?;
        Ok((access, secret))
    }

    /// Refuses a user from now on, by signed URLs too.
    pub async fn remove_user(&self, access: &str) -> Result<()> {
        self.administer("delete-user", &["--access", access]).await
    }

    async fn administer(&self, order: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.state.command(&self.tools.built("versitygw"));
        command
            .args(["admin", "--endpoint-url", &self.endpoint()])
            .args(["--access", &self.access_key])
            .args(["--secret", &self.secret_key])
            .arg(order)
            .args(arguments);
        spawn_blocking(move || command::run(&mut command)).await??;
        Ok(())
    }

    /// Makes a bucket; names have three letters at least.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.ask(bucket, &[], "")
            .await
            .with_context(|| format!("making bucket {bucket}"))
    }

    /// Makes a bucket keep all versions of its objects.
    pub async fn enable_versioning(&self, bucket: &str) -> Result<()> {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Status>Enabled</Status></VersioningConfiguration>";
        self.ask(bucket, &[("versioning", "")], body)
            .await
            .with_context(|| format!("keeping versions in {bucket}"))
    }

    /// Puts the time right at which a version was written. versitygw copies a version when another takes its
    /// place, and tells the copy's time; Amazon's tells the version's own.
    pub fn date_version(&self, version: &str, written: SystemTime) -> Result<()> {
        let mut folders = vec![self.folder.join("versions")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name == version) {
                    let file = std::fs::File::open(&path)?;
                    return Ok(file.set_modified(written)?);
                }
            }
        }
        bail!("no version {version} was superseded")
    }

    /// Uploads a file in parts, so that it may be larger than memory.
    pub async fn put_file(&self, bucket: &str, key: &str, file: &Path) -> Result<PutResult> {
        let store = self.store(bucket)?;
        let mut file = tokio::fs::File::open(file)
            .await
            .with_context(|| file.display().to_string())?;
        let upload = store.put_multipart(&Key::parse(key)?).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, 8 << 20);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            upload.wait_for_capacity(4).await?;
            upload.write(&buffer[..read]);
        }
        Ok(upload.finish().await?)
    }

    /// Uploads bytes.
    pub async fn put(&self, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<PutResult> {
        Ok(self
            .store(bucket)?
            .put(&Key::parse(key)?, bytes.into())
            .await?)
    }

    /// A client of a bucket, for everything else.
    pub fn store(&self, bucket: &str) -> Result<AmazonS3> {
        self.store_at(bucket, &self.endpoint())
    }

    /// A client of a bucket by way of another endpoint, such as a proxy's.
    pub fn store_at(&self, bucket: &str, endpoint: &str) -> Result<AmazonS3> {
        let options = ClientOptions::new()
            .with_allow_http(true)
            .with_timeout_disabled();
        AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_region(REGION)
            .with_bucket_name(bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_client_options(options)
            .build()
            .context("a client of the S3 server")
    }

    /// A PUT on the bucket itself, which the client library has no method for; it signs one.
    async fn ask(&self, bucket: &str, query: &[(&str, &str)], body: &str) -> Result<()> {
        let options = SignedUrlOptions::default().with_query(query.iter().copied());
        let hour = Duration::from_secs(3600);
        let url = self
            .store(bucket)?
            .signed_url_opts(Method::PUT, &Key::default(), hour, &options)
            .await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.put(url).body(body.to_owned()).send().await?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "{status}: {}",
            answer.text().await.unwrap_or_default()
        );
        Ok(())
    }

    /// A proxy in front of the server, at the same address with a port of its own, that can be told
    /// to misbehave.
    pub async fn fault_proxy(&self) -> Result<fault::FaultProxy> {
        fault::FaultProxy::start(self.address).await
    }

    /// Stops the server. One started alone takes with it what it stored; one beside a cluster
    /// leaves that to the cluster.
    pub async fn stop(self) -> Result<()> {
        self.pause()?;
        let state = Arc::clone(&self.state);
        if self.alone {
            spawn_blocking(move || state.stop()).await?
        } else {
            Ok(())
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if self.state.is_left() {
            return; // to run on, with the cluster it stands beside
        }
        if let Err(error) = self.pause() {
            tracing::error!(error = format!("{error:#}"), "the S3 server is not stopped");
        }
    }
}

/// A port that nobody listens on now.
fn free_port(address: Ipv4Addr) -> Result<u16> {
    let listener = TcpListener::bind((address, 0)).context("a port for the S3 server")?;
    Ok(listener.local_addr()?.port())
}

/// A credential, new every time: a test that passes with the wrong one cannot go unseen.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}
