//! Freezing mounted file systems for a moment, and thawing them whatever happens.
//!
//! A freeze (`FIFREEZE`, ioctl_fsfreeze(2)) outlives the process that made it, and everything that
//! writes waits for the thaw. So before anything is frozen a second process is started, the
//! *guard*: it opens the mount points itself, and thaws them when the pipe to its standard input
//! closes, which happens however this process ends, or when its time is up.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Attempt as _, DeviceNumber, Failed, raw};

/// The subcommand by which this program is its own guard.
pub const GUARD: &str = "thaw-guard";

/// How long anything stays frozen at most: then the guard thaws it, and the snapshot fails.
pub const LONGEST: Duration = Duration::from_secs(30);

/// A mounted file system that is to be frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A directory on it.
    pub point: PathBuf,
    /// Its device, so that no other is frozen by mistake.
    pub device: DeviceNumber,
}

/// Why file systems are not frozen, or did not stay so.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The guard does not work.
    #[error("the guard that would thaw {} in any case does not start: {reason}", .point.display())]
    Guard {
        /// What was to be frozen.
        point: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another program has frozen it.
    #[error(
        "the file system at {} is frozen already; thaw it with `fsfreeze --unfreeze`, or wait for \
         the program that froze it", .0.display()
    )]
    Frozen(PathBuf),
    /// It was thawed before its time.
    #[error(
        "the file system at {} was thawed by another program or after {LONGEST:?}, before all was \
         done; retry", .0.display()
    )]
    Thawed(PathBuf),
    /// Something else is mounted there meanwhile.
    #[error("another file system is mounted at {} meanwhile; retry", .0.display())]
    Replaced(PathBuf),
}

/// File systems that are frozen. Dropped, they are thawed.
#[derive(Debug)]
pub struct Frozen {
    files: Vec<(PathBuf, File)>,
    guard: Child,
    since: Instant,
}

/// Freezes all the file systems, each with all that was written to it on its disk.
///
/// What is dirty is written out before the first is frozen, so that they are frozen briefly.
pub fn freeze(targets: &[Target]) -> Result<Frozen, FreezeError> {
    let files: Vec<_> = targets.iter().map(open).collect::<Result<_, _>>()?;
    for (point, file) in &files {
        rustix::fs::syncfs(file).attempt(|| format!("sync {}", point.display()))?;
    }
    let guard = start_guard(targets)?;
    let mut frozen = Frozen {
        files: Vec::new(),
        guard,
        since: Instant::now(),
    };
    for (point, file) in files {
        match raw::freeze(&file) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(FreezeError::Frozen(point));
            }
            result => result.attempt(|| format!("freeze {}", point.display()))?,
        }
        frozen.files.push((point, file));
    }
    Ok(frozen)
}

impl Frozen {
    /// Thaws all, and says for how long the first was frozen. Fails when one was not frozen any
    /// more, for then it may have been written to meanwhile.
    pub fn thaw(mut self) -> Result<Duration, FreezeError> {
        self.thaw_all()?;
        Ok(self.since.elapsed())
    }

    /// All are thawed, whatever happens with one.
    fn thaw_all(&mut self) -> Result<(), FreezeError> {
        let mut result = Ok(());
        for (point, file) in std::mem::take(&mut self.files) {
            let thawed = match raw::thaw(&file) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    Err(FreezeError::Thawed(point))
                }
                other => other
                    .attempt(|| format!("thaw {}", point.display()))
                    .map_err(FreezeError::from),
            };
            result = result.and(thawed);
        }
        result
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        match self.thaw_all() {
            // All is thawed. Were the guard to try too, it could undo another program's freeze.
            Ok(()) | Err(FreezeError::Thawed(_)) => {
                if let Err(error) = self.guard.kill() {
                    tracing::warn!("the guard of a freeze cannot be ended: {error}");
                }
            }
            // Its pipe closes, and it tries as well.
            Err(error) => {
                tracing::error!("{error}");
                drop(self.guard.stdin.take());
            }
        }
        if let Err(error) = self.guard.wait() {
            tracing::warn!("the guard of a freeze cannot be waited for: {error}");
        }
    }
}

/// Thaws the file system if it is frozen; whether it was.
pub fn thaw(target: &Target) -> Result<bool, FreezeError> {
    let (point, file) = open(target)?;
    match raw::thaw(&file) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        result => {
            result.attempt(|| format!("thaw {}", point.display()))?;
            Ok(true)
        }
    }
}

fn open(target: &Target) -> Result<(PathBuf, File), FreezeError> {
    let point = target.point.clone();
    let attempt = || format!("open {}", point.display());
    let file = File::open(&point).attempt(attempt)?;
    let found = rustix::fs::fstat(&file).attempt(attempt)?;
    if DeviceNumber::from_dev(found.st_dev) != target.device {
        return Err(FreezeError::Replaced(point));
    }
    Ok((point, file))
}

fn start_guard(targets: &[Target]) -> Result<Child, FreezeError> {
    let failed = |reason: String| FreezeError::Guard {
        point: targets
            .first()
            .map_or_else(PathBuf::new, |it| it.point.clone()),
        reason,
    };
    let words = targets.iter().flat_map(|target| {
        let device = target.device.to_string();
        [target.point.clone().into_os_string(), device.into()]
    });
    let mut guard = Command::new("/proc/self/exe")
        .arg(GUARD)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Not ended by what a terminal sends to us.
        .process_group(0)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut ready = [0; 1];
    let answer = match guard.stdout.take() {
        Some(mut stdout) => stdout.read_exact(&mut ready),
        None => Err(io::Error::other("it has no output")),
    };
    if let Err(error) = answer {
        drop(guard.stdin.take());
        let ended = guard
            .wait()
            .map_or_else(|e| e.to_string(), |it| it.to_string());
        return Err(failed(format!("{error} ({ended})")));
    }
    Ok(guard)
}

/// What the guard does: `words` are mount points, each followed by its device.
pub fn guard(words: &[String]) -> Result<(), FreezeError> {
    let targets: Vec<_> = words.chunks_exact(2).filter_map(parse).collect();
    let files: Vec<_> = targets.iter().map(open).collect::<Result<_, _>>()?;
    let mut stdout = io::stdout();
    stdout
        .write_all(b"r")
        .and_then(|()| stdout.flush())
        .attempt(|| "say that the guard is ready")?;
    wait_for_the_end();
    for (point, file) in files {
        match raw::thaw(&file) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => result.attempt(|| format!("thaw {}", point.display()))?,
        }
    }
    Ok(())
}

/// Returns when the other end of standard input is closed, or when the time is up.
fn wait_for_the_end() {
    let deadline = Instant::now() + LONGEST;
    let stdin = io::stdin();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            // Nothing is ever written to it: readable means closed.
            _ => return,
        }
    }
}

fn parse(pair: &[String]) -> Option<Target> {
    let (major, minor) = pair[1].split_once(':')?;
    let device = DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    };
    let point = Path::new(&pair[0]).to_owned();
    Some(Target { point, device })
}
