//! Programs that run beside the tests, and what /proc tells of any process.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::Hopeless;

/// A program in the background. Dropping this neither ends nor forgets it: its state does
/// ([`crate::state::State`]).
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    ended: Arc<OnceLock<ExitStatus>>,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let pid = child.id();
        let ended = Arc::new(OnceLock::new());
        let ending = Arc::clone(&ended);
        // One thread each, so that the dead are buried at once: a zombie would look alive.
        std::thread::Builder::new()
            .name(format!("wait-{name}"))
            .stack_size(128 << 10)
            .spawn(move || {
                let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1));
                let _ = ending.set(status);
            })?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            ended,
        })
    }

    /// What it was started as.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id on the machine. Of a program in a node this is the `nsenter` around it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A [`Hopeless`] error with the end of its log if it has ended.
    pub fn check(&self) -> Result<()> {
        let Some(status) = self.ended.get() else {
            return Ok(());
        };
        let last_words = tail(&self.log, 15);
        Err(Hopeless(format!("{} ended: {status}: {last_words}", self.name)).into())
    }

    /// Sends SIGKILL to it and to its children, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        for child in children(self.pid) {
            kill(child);
        }
        if self.ended.get().is_none() {
            kill(self.pid);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ended.get().is_none() {
            ensure!(Instant::now() < deadline, "{} survives SIGKILL", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Sends SIGKILL; that the process is gone already is what was wanted.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The children of a process; none if it is gone.
pub fn children(pid: u32) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Whether programs here can be given a capability, by its number: none has more than this one may
/// have.
pub fn can_have(capability: u32) -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.context("/proc/self/status has no CapBnd")?;
    Ok(u64::from_str_radix(bounding.trim(), 16)? & (1 << capability) != 0)
}

/// All processes of the machine.
pub fn all() -> Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").context("/proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// The processes whose `/proc/<pid>/cgroup` is `wanted`.
pub fn in_cgroup(wanted: impl Fn(&str) -> bool) -> Result<Vec<u32>> {
    let ours = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| wanted(&text))
    };
    Ok(all()?.into_iter().filter(ours).collect())
}

/// The processes that have `name=value` in the environment they were started with.
pub fn with_environment(name: &str, value: &Path) -> Result<Vec<u32>> {
    let wanted = format!("{name}={}", value.display()).into_bytes();
    let ours = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted)
    };
    Ok(all()?.into_iter().filter(ours).collect())
}

/// The most memory a process ever had resident, in bytes (`VmHWM`).
pub fn peak_memory(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM")
}

/// The memory that a process has resident, in bytes (`VmRSS`).
pub fn resident_memory(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS")
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    bytes_in(&status, field).with_context(|| format!("process {pid} tells no {field}"))
}

fn bytes_in(status: &str, field: &str) -> Option<u64> {
    let value = |line: &str| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    status.lines().find_map(value).map(|kib| kib * 1024)
}

/// The last `lines` lines of a file, for an error.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_memory_a_process_has_and_had() {
        let status = "VmPeak:\t 9 kB\nVmHWM:\t    1536 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(bytes_in(status, "VmHWM"), Some(1536 * 1024));
        assert_eq!(bytes_in(status, "VmRSS"), Some(7 * 1024));
        assert_eq!(bytes_in(status, "VmSwap"), None);
        let own = std::process::id();
        let (now, peak) = (resident_memory(own).unwrap(), peak_memory(own).unwrap());
        assert!(now > 0 && peak > 0, "{now} {peak}");
    }

    #[test]
    fn a_process_that_ends_is_told_with_its_last_words() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the last words; exit 3"]);
        let process = Process::spawn("speaker", &mut command, log.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.check().is_ok() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        let error = process.check().unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("the last words"),
            "{error}"
        );
    }

    #[test]
    fn kill_takes_the_children_too() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & wait"]);
        let process = Process::spawn("parent", &mut command, log.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while children(process.pid()).is_empty() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        let child = children(process.pid())[0];
        process.kill().unwrap();
        assert!(process.check().is_err());
        assert!(
            !std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim()
                == "sleep"
                && children(process.pid()).contains(&child))
        );
    }

    #[test]
    fn finds_processes_by_their_environment() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000").env("HARNESS_UNIT_TEST", log.path());
        let process = Process::spawn("sleeper", &mut command, log.path()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        // The kernel shows the environment a moment after the program was started.
        while with_environment("HARNESS_UNIT_TEST", log.path()).unwrap() != [process.pid()] {
            assert!(Instant::now() < deadline);
        }
        process.kill().unwrap();
        assert!(
            with_environment("HARNESS_UNIT_TEST", log.path())
                .unwrap()
                .is_empty()
        );
    }
}
