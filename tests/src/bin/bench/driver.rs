//! The driver alone, with a pool of its own, spoken to as the sidecars and kubelet do.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use csi::v1::node_client::NodeClient;
use csi::v1::{NodeStageVolumeRequest, NodeUnstageVolumeRequest};
use tests::command::run;
use tonic::transport::Channel;

use client::{Client, From, capability};

pub mod client;

/// How long the pool may take to free what was deleted, which it does behind the scenes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running driver.
pub struct Driver {
    /// Its controller.
    pub client: Client,
    node: NodeClient<Channel>,
    footing: Footing,
}

/// What has to go when all is over, however it ends.
struct Footing {
    folder: tempfile::TempDir,
    process: Child,
    gone: bool,
}

/// A volume with ext4, mounted.
pub struct Volume {
    /// Its id.
    pub id: String,
    /// Where it is mounted.
    pub staging: PathBuf,
    /// Its image in the pool.
    pub image: PathBuf,
    /// Its size.
    pub mebibytes: u64,
}

impl Driver {
    /// Starts it with a pool that takes from the disk what is written.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("registry"))?;
        let mut command = Command::new(tests::tools::product("driver")?);
        command
            .args([
                "--node-name=bench",
                "--pool-size=256Gi",
                "--pool-sparse",
                "--no-http",
            ])
            .arg(format!("--pool={}", path("pool").display()))
            .arg(format!("--endpoint={}", path("csi.sock").display()))
            .arg(format!("--registration-dir={}", path("registry").display()))
            .stderr(Stdio::from(std::fs::File::create(path("log"))?));
        let socket = path("csi.sock");
        let process = command.spawn().context("start the driver")?;
        let footing = Footing {
            folder,
            process,
            gone: false,
        };
        let (client, channel) = Client::connect(&socket).await?;
        Ok(Self {
            client,
            node: NodeClient::new(channel),
            footing,
        })
    }

    /// Its pool's file system.
    pub fn pool(&self) -> PathBuf {
        self.footing.folder.path().join("pool/pool")
    }

    /// Where sockets and mount points may be made: a folder that goes with the driver.
    pub fn folder(&self) -> &Path {
        self.footing.folder.path()
    }

    /// What the disk under the pool has left, in bytes.
    pub fn free(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(self.folder())?;
        Ok(space.f_bavail * space.f_frsize)
    }

    /// A new volume, mounted.
    pub async fn volume(&mut self, name: &str, mebibytes: u64) -> Result<Volume> {
        let id = self.client.create(name, From::Nothing, mebibytes).await?;
        let staging = self.folder().join(name);
        std::fs::create_dir_all(&staging)?;
        let request = NodeStageVolumeRequest {
            volume_id: id.clone(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        self.node.node_stage_volume(request).await?;
        let image = self.pool().join("volumes").join(&id).join("image");
        Ok(Volume {
            id,
            staging,
            image,
            mebibytes,
        })
    }

    /// Unmounts a volume and deletes it.
    pub async fn remove(&mut self, volume: Volume) -> Result<()> {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: volume.staging.display().to_string(),
        };
        self.node.node_unstage_volume(request).await?;
        self.client.delete(&volume.id).await
    }

    /// Waits until the pool has freed what was deleted, so that it does not disturb what is timed
    /// next.
    pub async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut same) = (0, 0);
        while same < 3 && Instant::now() < deadline {
            let free = rustix::fs::statvfs(self.pool())?.f_bfree;
            same = if free == last { same + 1 } else { 0 };
            last = free;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// [`Self::settle`], and gives the disk back what the pool has free.
    pub async fn give_back(&self) -> Result<()> {
        self.settle().await?;
        run(Command::new("fstrim").arg(self.pool()))?;
        Ok(())
    }

    /// Ends it, and takes its pool down. What a failed measurement left mounted goes too.
    pub fn stop(mut self) -> Result<()> {
        self.footing.take_down()
    }
}

impl Footing {
    fn take_down(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.gone, true) {
            return Ok(());
        }
        self.process.kill()?;
        self.process.wait()?;
        let folder = self.folder.path();
        // What was mounted last goes first, the pool at the end, and before each what has a file
        // on it for a device.
        for point in mount_points(folder)?.iter().rev() {
            detach(point)?;
            unmount(point)?;
        }
        detach(folder)
    }
}

impl Drop for Footing {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            println!("{} is left behind: {error:#}", self.folder.path().display());
            // Removing files beneath a pool that is mounted still would only hide it.
            self.folder.disable_cleanup(true);
        }
    }
}

/// All that is mounted beneath a folder, in the order in which it was mounted.
fn mount_points(folder: &Path) -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let beneath = points
        .map(PathBuf::from)
        .filter(|it| it.starts_with(folder));
    Ok(beneath.collect())
}

/// Programs that were ended a moment ago may keep it for another.
fn unmount(point: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match run(Command::new("umount").arg(point)) {
            Err(_) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(200));
            }
            result => return result.map(drop),
        }
    }
}

/// Detaches the loop devices of files beneath a folder.
fn detach(folder: &Path) -> Result<()> {
    let listed = run(Command::new("losetup").args([
        "--list",
        "--noheadings",
        "--output",
        "NAME,BACK-FILE",
    ]))?;
    for line in listed.lines() {
        if let Some((name, file)) = line.trim().split_once(' ')
            && Path::new(file.trim()).starts_with(folder)
        {
            run(Command::new("losetup").arg("-d").arg(name))?;
        }
    }
    Ok(())
}
