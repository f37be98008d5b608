//! The driver alone, with a pool of its own, spoken to as the sidecars and kubelet do.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use csi::v1::controller_client::ControllerClient;
use csi::v1::identity_client::IdentityClient;
use csi::v1::node_client::NodeClient;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use csi::v1::{
    CapacityRange, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeRequest, NodeStageVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest,
    VolumeCapability, VolumeContentSource,
};
use tonic::transport::Channel;

/// How long the driver may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running driver.
pub struct Driver {
    folder: tempfile::TempDir,
    process: Child,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
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
                "--pool-size=64Gi",
                "--pool-sparse",
                "--no-http",
            ])
            .arg(format!("--pool={}", path("pool").display()))
            .arg(format!("--endpoint={}", path("csi.sock").display()))
            .arg(format!("--registration-dir={}", path("registry").display()))
            .stderr(Stdio::from(std::fs::File::create(path("log"))?));
        let process = command.spawn().context("start the driver")?;
        let channel = csi::socket::connect(&path("csi.sock"), Duration::from_secs(120))?;
        let mut identity = IdentityClient::new(channel.clone());
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = identity.probe(ProbeRequest {}).await {
            ensure!(
                Instant::now() < deadline,
                "the driver does not start: {status}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            folder,
            process,
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
        })
    }

    /// What the disk under the pool has left, in bytes.
    pub fn free(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(self.folder.path())?;
        Ok(space.f_bavail * space.f_frsize)
    }

    /// A new volume, mounted.
    pub async fn volume(&mut self, name: &str, mebibytes: u64) -> Result<Volume> {
        let id = self.create(name, None, mebibytes).await?;
        let staging = self.folder.path().join(name);
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

    /// A volume from a snapshot or a volume; its id.
    pub async fn copy(&mut self, name: &str, from: &str, mebibytes: u64) -> Result<String> {
        let from = from.to_owned();
        let source = if from.starts_with("snap-") {
            SourceType::Snapshot(SnapshotSource { snapshot_id: from })
        } else {
            SourceType::Volume(VolumeSource { volume_id: from })
        };
        self.create(name, Some(source), mebibytes).await
    }

    async fn create(
        &mut self,
        name: &str,
        source: Option<SourceType>,
        mebibytes: u64,
    ) -> Result<String> {
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: i64::try_from(mebibytes << 20)?,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability()],
            volume_content_source: source.map(|source| VolumeContentSource {
                r#type: Some(source),
            }),
            ..Default::default()
        };
        let volume = self.controller.create_volume(request).await?.into_inner();
        Ok(volume.volume.context("a volume")?.volume_id)
    }

    /// Takes a snapshot; its id.
    pub async fn snapshot(&mut self, name: &str, volume: &str) -> Result<String> {
        let request = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            ..Default::default()
        };
        let snapshot = self.controller.create_snapshot(request).await?.into_inner();
        Ok(snapshot.snapshot.context("a snapshot")?.snapshot_id)
    }

    /// Deletes a snapshot.
    pub async fn delete_snapshot(&mut self, id: &str) -> Result<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        self.controller.delete_snapshot(request).await?;
        Ok(())
    }

    /// Deletes a volume.
    pub async fn delete(&mut self, id: &str) -> Result<()> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..Default::default()
        };
        self.controller.delete_volume(request).await?;
        Ok(())
    }

    /// Unmounts a volume and deletes it.
    pub async fn remove(&mut self, volume: Volume) -> Result<()> {
        let request = NodeUnstageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: volume.staging.display().to_string(),
        };
        self.node.node_unstage_volume(request).await?;
        self.delete(&volume.id).await
    }

    /// Ends it, and takes its pool down. What a failed measurement left mounted goes too.
    pub fn stop(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        let folder = self.folder.path().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let ours: Vec<_> = points
            .filter(|point| Path::new(point).starts_with(&folder))
            .collect();
        let devices = devices(&folder)?;
        for point in ours.iter().rev() {
            tests::command::run(Command::new("umount").arg(point))?;
        }
        for device in devices {
            // The kernel detaches by itself what was unmounted last.
            let _ = Command::new("losetup").arg("-d").arg(device).output()?;
        }
        Ok(())
    }

    fn pool(&self) -> PathBuf {
        self.folder.path().join("pool/pool")
    }
}

/// The loop devices of files beneath a folder.
fn devices(folder: &Path) -> Result<Vec<String>> {
    let listed = tests::command::run(Command::new("losetup").args([
        "--list",
        "--noheadings",
        "--output",
        "NAME,BACK-FILE",
    ]))?;
    let mut devices = Vec::new();
    for line in listed.lines() {
        if let Some((name, file)) = line.trim().split_once(' ')
            && Path::new(file.trim()).starts_with(folder)
        {
            devices.push(name.to_owned());
        }
    }
    Ok(devices)
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeMultiWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: "ext4".to_owned(),
            ..Default::default()
        })),
    }
}
