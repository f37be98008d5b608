//! Running a command from cold caches, and what it took.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use object_store::signer::Signer as _;
use tests::command::run;
use tests::process::peak_memory;
use tests::s3::{REGION, S3Server};
use tests::tools::{self, Tools};

use super::load::{Load, Meter, Whose, spent};
use crate::interruption;

/// The bucket that all archives are in.
pub const BUCKET: &str = "bench";

/// What the machine still has in memory of what will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// Nothing.
    Cold,
    /// Whatever was there, for those who do not look at the time.
    Warm,
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// From start to end.
    pub seconds: f64,
    /// What it and all others did meanwhile.
    pub load: Load,
    /// The most memory of the first of its processes, in MiB.
    pub peak: f64,
}

impl Figures {
    /// The run in the middle by its time, with the largest peak of all.
    pub fn median(mut runs: Vec<Self>) -> Result<Self> {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let peak = runs.iter().map(|it| it.peak).fold(0.0, f64::max);
        let middle = *runs.get(runs.len() / 2).context("it never ran")?;
        Ok(Self { peak, ..middle })
    }
}

/// What commands need to reach the server, and a folder in which they may keep what they like.
pub struct Runs<'a> {
    server: &'a S3Server,
    /// The server's process, which is the same all the time.
    serving: u32,
    program: PathBuf,
    /// With rclone in it.
    path: OsString,
    home: tempfile::TempDir,
}

impl<'a> Runs<'a> {
    /// On this server.
    pub fn new(server: &'a S3Server) -> Result<Self> {
        let rclone = Tools::locate()?.built("rclone");
        let mut path = OsString::from(rclone.parent().context("a folder")?);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        Ok(Self {
            server,
            serving: server.pid()?,
            program: tools::product("populator")?,
            path,
            home: tempfile::Builder::new().prefix("bench-home-").tempdir()?,
        })
    }

    /// The server.
    pub fn server(&self) -> &S3Server {
        self.server
    }

    /// `populator restore` of the object of this name.
    pub fn restore(&self, key: &str, to: &Path, caches: Caches) -> Result<Figures> {
        let mut command = self.command(&self.program);
        command.arg("restore").arg(address(key)).arg(to);
        self.time(&mut command, caches)
    }

    /// `populator pack` at level 3 to the object of this name, which another turn may have made.
    pub fn pack(&self, from: &Path, key: &str, caches: Caches) -> Result<Figures> {
        let mut command = self.command(&self.program);
        command.arg("pack").arg(from).arg(address(key));
        self.time(command.args(["--level", "3", "--overwrite"]), caches)
    }

    /// A script for bash about an object. `$OBJECT` is what rclone calls it, `$URL` a signed URL of
    /// it, `$STORE` the bucket as restic names it, `$FOLDER` the folder.
    pub async fn script(&self, script: &str, key: &str, folder: &Path) -> Result<Figures> {
        self.time(&mut self.shell(script, key, folder).await?, Caches::Cold)
    }

    /// Such a script that only prepares something.
    pub async fn prepare(&self, script: &str, key: &str, folder: &Path) -> Result<()> {
        run(&mut self.shell(script, key, folder).await?).map(drop)
    }

    async fn shell(&self, script: &str, key: &str, folder: &Path) -> Result<Command> {
        let store = self.server.store(BUCKET)?;
        let hour = Duration::from_secs(3600);
        let url = store.signed_url(Method::GET, &key.into(), hour).await?;
        let mut shell = self.command(Path::new("bash"));
        shell
            .args(["-c", &format!("set -euo pipefail; {script}")])
            .env("OBJECT", format!(":s3:{BUCKET}/{key}"))
            .env("URL", url.as_str())
            .env("FOLDER", folder);
        Ok(shell)
    }

    /// What is set here is all that the programs know of the server; none reads what the user of
    /// this machine has configured.
    fn command(&self, program: &Path) -> Command {
        let endpoint = self.server.endpoint();
        let mut command = Command::new(program);
        command
            .env("PATH", &self.path)
            .env("HOME", self.home.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env("NO_PROXY", "*")
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_ACCESS_KEY_ID", self.server.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.server.secret_key())
            .env("AWS_REGION", REGION)
            .env("RCLONE_S3_PROVIDER", "Other")
            .env("RCLONE_S3_ENV_AUTH", "true")
            .env("RCLONE_S3_ENDPOINT", &endpoint)
            .env("RCLONE_S3_REGION", REGION)
            .env("RCLONE_S3_NO_CHECK_BUCKET", "true")
            .env("STORE", format!("s3:{endpoint}/{BUCKET}"))
            .env("BUCKET", BUCKET)
            .env("ADDRESS", self.server.address().to_string())
            .env("RESTIC_PASSWORD", "bench")
            .env("KOPIA_PASSWORD", "bench");
        command
    }

    /// Work of this program itself: caches dropped before, and `folder` synced at the end.
    pub fn by_ourselves(
        &self,
        folder: &Path,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Figures> {
        drop_caches()?;
        let meter = self.meter()?;
        let before = spent("self", Whose::Own)?;
        let begin = Instant::now();
        work()?;
        rustix::fs::syncfs(std::fs::File::open(folder)?)?;
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Figures {
            seconds,
            load: meter.stop(spent("self", Whose::Own)? - before)?,
            peak: 0.0,
        })
    }

    /// Runs the command and sees that it succeeded.
    fn time(&self, command: &mut Command, caches: Caches) -> Result<Figures> {
        if caches == Caches::Cold {
            drop_caches()?;
        }
        let meter = self.meter()?;
        let before = spent("self", Whose::Children)?;
        let begin = Instant::now();
        // A group of its own, so that all of a pipeline can be ended.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut peak = 0;
        while child.try_wait()?.is_none() {
            // Gone a moment ago: what it said last stands.
            peak = peak_memory(child.id()).unwrap_or(peak);
            if let Err(error) = interruption::check() {
                end(&mut child)?;
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let seconds = begin.elapsed().as_secs_f64();
        let load = meter.stop(spent("self", Whose::Children)? - before)?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
        let peak = peak as f64 / f64::from(1 << 20);
        Ok(Figures {
            seconds,
            load,
            peak,
        })
    }

    /// Data and pool are on the disk of temporary files; mostly the server's files too.
    fn meter(&self) -> Result<Meter> {
        Meter::start(self.serving, &std::env::temp_dir())
    }
}

fn address(key: &str) -> String {
    format!("s3://{BUCKET}/{key}")
}

/// Nothing is waiting to be written, and nothing is known of what will be read.
fn drop_caches() -> Result<()> {
    run(&mut Command::new("sync"))?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("drop caches")
}

/// Ends a command and all that it started.
fn end(child: &mut Child) -> Result<()> {
    let group = rustix::process::Pid::from_child(child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
    child.wait()?;
    Ok(())
}
