//! csi-driver-host-path, where its program is given: the peer that people know. It keeps a volume
//! as a folder, a snapshot as a `tar.gz`, and clones by `cp -a`.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use tests::host_path::PLUGIN;

use crate::driver::client::{Client, From};

/// It, running.
pub struct HostPath {
    client: Client,
    state: PathBuf,
    process: Ended,
}

/// Its process, which ends with this.
struct Ended(Child);

/// How long its calls took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// CreateSnapshot.
    pub snapshot: Duration,
    /// CreateVolume from the snapshot.
    pub restore: Duration,
    /// CreateVolume from the volume.
    pub clone: Duration,
}

impl HostPath {
    /// Starts it, if it is given, with its state on the file system of `pool`.
    pub async fn start(folder: &Path, pool: &Path) -> Result<Option<Self>> {
        let Some(program) = std::env::var_os(PLUGIN) else {
            return Ok(None);
        };
        let state = pool.join("host-path");
        let socket = folder.join("host-path.sock");
        let log = std::fs::File::create(folder.join("host-path.log"))?;
        let process = Command::new(&program)
            .arg("--nodeid=bench")
            .arg(format!("--statedir={}", state.display()))
            .arg(format!("--endpoint=unix://{}", socket.display()))
            .stdout(Stdio::null())
            // It leaves the copying to other programs, which have to end with it.
            .process_group(0)
            .stderr(Stdio::from(log))
            .spawn()
            .with_context(|| format!("start {}, which {PLUGIN} names", program.display()))?;
        let process = Ended(process);
        let (client, _) = Client::connect(&socket).await?;
        Ok(Some(Self {
            client,
            state,
            process,
        }))
    }

    /// A volume; its id, and the folder that it is.
    pub async fn volume(&mut self, mebibytes: u64) -> Result<(String, PathBuf)> {
        let name = "host-path";
        let id = self.client.create(name, From::Nothing, mebibytes).await?;
        let folder = self.state.join(&id);
        Ok((id, folder))
    }

    /// Each call once: they take as long as there are bytes.
    pub async fn time(&mut self, volume: &str, mebibytes: u64) -> Result<Times> {
        let begin = Instant::now();
        let snapshot = self.client.snapshot("timed", volume, &[]).await?;
        let snapshot_time = begin.elapsed();
        let begin = Instant::now();
        let source = From::Snapshot(&snapshot);
        let restored = self.client.create("restored", source, mebibytes).await?;
        let restore = begin.elapsed();
        self.client.delete(&restored).await?;
        self.client.delete_snapshot(&snapshot).await?;
        let begin = Instant::now();
        let source = From::Volume(volume);
        let cloned = self.client.create("clone", source, mebibytes).await?;
        let clone = begin.elapsed();
        self.client.delete(&cloned).await?;
        Ok(Times {
            snapshot: snapshot_time,
            restore,
            clone,
        })
    }

    /// Deletes a volume.
    pub async fn delete(&mut self, volume: &str) -> Result<()> {
        self.client.delete(volume).await
    }

    /// Ends it. Its state goes with the pool.
    pub fn stop(self) {
        drop(self.process);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let ended = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let ended = ended.map_err(Into::into).and_then(|()| self.0.wait());
        if let Err(error) = ended {
            println!("csi-driver-host-path does not end: {error}");
        }
    }
}
