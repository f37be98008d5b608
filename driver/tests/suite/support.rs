//! A bench for one driver: its pool, its sockets, and places to mount at, all in one directory
//! that is cleared of mounts and loop devices when the bench goes, after a panic too.

mod calls;
pub mod http;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use csi::v1::ProbeRequest;
use driver::kernel::loop_device;
use rustix::mount::MountPropagationFlags;

pub use calls::{Calls, capability, capability_with, source};

pub const MIB: i64 = 1 << 20;

/// How long anything may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount: run them as root"
        );
        // Mounts are made in a namespace of this thread's own: other programs on the machine that
        // take a copy of the common one would otherwise keep our volumes in use.
        #[allow(deprecated, reason = "only with other flags is it unsound")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let directory = tempfile::Builder::new()
            .prefix("fastcopy-")
            .tempdir()
            .unwrap();
        let bench = Self { directory };
        for name in ["registry", "mounts"] {
            std::fs::create_dir(bench.path(name)).unwrap();
        }
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new directory to stage at.
    pub fn staging(&self, name: &str) -> String {
        let path = self.path("mounts").join(format!("{name}-staging"));
        std::fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    }

    /// A path to publish at, which does not exist.
    pub fn target(&self, name: &str) -> String {
        self.path("mounts")
            .join(format!("{name}-target"))
            .display()
            .to_string()
    }

    pub fn volumes(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("pool/pool/volumes")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    pub fn snapshots(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("pool/pool/snapshots")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The program with a sparse pool of 1 GiB and no HTTP, and these arguments besides.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driver"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("FAILPOINT_DIR", self.path("failpoints"))
            .arg("--node-name=node-1")
            .arg(format!("--pool={}", self.path("pool").display()))
            .arg(format!("--endpoint={}", self.path("csi.sock").display()))
            .arg(format!(
                "--registration-dir={}",
                self.path("registry").display()
            ))
            .args(arguments);
        command
    }

    pub async fn start(&self) -> Driver {
        self.start_with(&["--pool-size=1Gi", "--pool-sparse", "--no-http"])
            .await
    }

    pub async fn start_with(&self, arguments: &[&str]) -> Driver {
        let log = self.path("log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = self
            .command(arguments)
            .stderr(file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let channel = csi::socket::connect(&self.path("csi.sock"), PATIENCE).unwrap();
        let mut driver = Driver {
            child,
            calls: Calls::new(channel),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = || std::fs::read_to_string(&log).unwrap();
            match driver.identity.probe(ProbeRequest {}).await {
                Ok(response) => {
                    assert_eq!(response.into_inner().ready, Some(true));
                    return driver;
                }
                Err(status) => assert!(Instant::now() < deadline, "{status}: {}", said()),
            }
            assert!(
                driver.child.try_wait().unwrap().is_none(),
                "it ended: {}",
                said()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The paths beneath the bench at which something is mounted, in the order of mounting.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = table
            .lines()
            .map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()));
        points
            .filter(|point| point.starts_with(self.directory.path()))
            .collect()
    }

    /// The loop devices of files beneath the bench.
    pub fn loops(&self) -> Vec<Loop> {
        loops()
            .into_iter()
            .filter(|it| it.file.starts_with(self.directory.path()))
            .collect()
    }

    /// As a reboot leaves it: nothing mounted, nothing attached.
    pub fn reboot(&self) {
        // Images lie within the mount of the pool, so what is mounted last goes first; and their
        // devices must be read before it goes, for then their files have no path any more.
        for _ in 0..40 {
            let devices = self.loops();
            for point in self.mounts().iter().rev() {
                let inner: Vec<_> = devices
                    .iter()
                    .filter(|it| it.file.starts_with(point))
                    .collect();
                inner.into_iter().for_each(Loop::detach);
                let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::empty());
            }
            self.loops().iter().for_each(Loop::detach);
            if self.mounts().is_empty() && self.loops().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            println!(
                "log:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        self.reboot();
        let left = (self.mounts(), self.loops());
        if !std::thread::panicking() {
            assert!(
                left.0.is_empty() && left.1.is_empty(),
                "still there: {left:?}"
            );
        }
    }
}

/// A loop device, as the kernel shows it in sysfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    pub name: String,
    pub file: PathBuf,
}

impl Loop {
    pub fn attribute(&self, name: &str) -> String {
        let path = format!("/sys/block/{}/{name}", self.name);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// By the file's identity, and only while that holds: the number may be another test's by now.
    pub fn detach(&self) {
        match self.file.symlink_metadata() {
            // A file system that was shut down does not tell which file it is. But nobody else
            // detaches a device that is here.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                let device = format!("/dev/{}", self.name);
                let _ = Command::new("losetup").arg("--detach").arg(device).output();
            }
            _ => {
                if let Ok(Some(device)) = loop_device::find(&self.file, &self.file) {
                    let _ = device.detach();
                }
            }
        }
    }
}

fn loops() -> Vec<Loop> {
    let entries = std::fs::read_dir("/sys/block").unwrap();
    let devices = entries.filter_map(|entry| {
        let entry = entry.unwrap();
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        let file = PathBuf::from(file.trim_end().trim_end_matches(" (deleted)"));
        Some(Loop {
            name: entry.file_name().into_string().unwrap(),
            file,
        })
    });
    devices.collect()
}

/// A running driver; killed when dropped.
pub struct Driver {
    child: Child,
    calls: Calls,
}

impl Driver {
    /// Ends it as kubelet does.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it ended by aborting, which takes the kernel a moment.
    #[cfg(feature = "failpoints")]
    pub fn has_aborted(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.signal() == Some(rustix::process::Signal::ABORT.as_raw());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls that outlive it.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }
}

impl std::ops::Deref for Driver {
    type Target = Calls;

    fn deref(&self) -> &Calls {
        &self.calls
    }
}

impl std::ops::DerefMut for Driver {
    fn deref_mut(&mut self) -> &mut Calls {
        &mut self.calls
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
