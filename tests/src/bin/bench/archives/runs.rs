//! Running a command from cold caches, and what it took.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use object_store::signer::Signer as _;
use tests::command::run;
use tests::process::peak_memory;
use tests::s3::S3Server;
use tests::tools;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// From start to end.
    pub seconds: f64,
    /// User and system time of all its processes.
    pub cpu: f64,
    /// The most memory of the first of its processes, in MiB.
    pub peak: f64,
}

impl Figures {
    /// The run in the middle by its time, with the largest peak of all.
    pub fn median(mut runs: Vec<Self>) -> Option<Self> {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let peak = runs.iter().map(|it| it.peak).fold(0.0, f64::max);
        let middle = *runs.get(runs.len() / 2)?;
        Some(Self { peak, ..middle })
    }
}

/// The commands for one object.
pub struct Runs<'a> {
    server: &'a S3Server,
    bucket: &'a str,
    key: &'a str,
    program: std::path::PathBuf,
}

impl<'a> Runs<'a> {
    /// For this object.
    pub fn new(server: &'a S3Server, bucket: &'a str, key: &'a str) -> Result<Self> {
        let program = tools::product("populator")?;
        Ok(Self {
            server,
            bucket,
            key,
            program,
        })
    }

    /// `populator restore`.
    pub fn ours(&mut self, to: &Path) -> Result<Figures> {
        let mut command = Command::new(&self.program);
        command
            .arg("restore")
            .arg(format!("s3://{}/{}", self.bucket, self.key))
            .arg(to)
            .env("AWS_ENDPOINT_URL", self.server.endpoint())
            .env("AWS_ACCESS_KEY_ID", self.server.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.server.secret_key());
        time(&mut command)
    }

    /// `curl | decompressor | tar x`; none where the decompressor is missing.
    pub async fn pipeline(
        &self,
        decompressor: &str,
        options: &str,
        to: &Path,
    ) -> Result<Option<Figures>> {
        let program = decompressor.split(' ').next().unwrap_or_default();
        if run(Command::new("which").arg(program)).is_err() {
            return Ok(None);
        }
        let store = self.server.store(self.bucket)?;
        let hour = Duration::from_secs(3600);
        let url = store
            .signed_url(Method::GET, &self.key.into(), hour)
            .await?;
        let script = format!(
            "set -o pipefail; curl --silent --fail --noproxy '*' \"$1\" | {decompressor} | \
             tar x {options} -C \"$2\" && sync -f \"$2\""
        );
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &script, "pipeline", url.as_str()])
            .arg(to);
        time(&mut shell).map(Some)
    }
}

/// Drops caches, runs the command and sees that it succeeded.
fn time(command: &mut Command) -> Result<Figures> {
    run(&mut Command::new("sync"))?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("drop caches")?;
    let before = children()?;
    let begin = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        // Gone a moment ago: what it said last stands.
        peak = peak_memory(child.id()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
    let peak = peak as f64 / f64::from(1 << 20);
    Ok(Figures {
        seconds,
        cpu: children()? - before,
        peak,
    })
}

/// CPU seconds of all children that have ended and were waited for, theirs included
/// (proc_pid_stat(5), fields 16 and 17, in hundredths).
fn children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("stat")?;
    let mut fields = fields.split(' ').skip(13);
    let mut next = || -> Result<f64> { Ok(fields.next().context("stat")?.parse()?) };
    Ok((next()? + next()?) / 100.0)
}
