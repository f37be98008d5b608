//! The calls of a CSI controller that are timed, to whichever driver.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use csi::v1::controller_client::ControllerClient;
use csi::v1::identity_client::IdentityClient;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use csi::v1::{
    CapacityRange, CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest,
    DeleteVolumeRequest, ProbeRequest, VolumeCapability, VolumeContentSource,
};
use tonic::transport::Channel;

/// How long a driver may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a call may take. A peer that copies all bytes needs minutes.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// What a volume is made from.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// Nothing.
    Nothing,
    /// A snapshot.
    Snapshot(&'a str),
    /// A volume.
    Volume(&'a str),
}

/// A connection to a driver.
#[derive(Clone)]
pub struct Client {
    controller: ControllerClient<Channel>,
}

impl Client {
    /// Waits for the driver to answer.
    pub async fn connect(socket: &Path) -> Result<(Self, Channel)> {
        let channel = csi::socket::connect(socket, TIMEOUT)?;
        let mut identity = IdentityClient::new(channel.clone());
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = identity.probe(ProbeRequest {}).await {
            ensure!(
                Instant::now() < deadline,
                "the driver at {} does not start: {status}",
                socket.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let controller = ControllerClient::new(channel.clone());
        Ok((Self { controller }, channel))
    }

    /// Creates a volume; its id.
    pub async fn create(&mut self, name: &str, from: From<'_>, mebibytes: u64) -> Result<String> {
        let source = match from {
            From::Nothing => None,
            From::Snapshot(id) => Some(SourceType::Snapshot(SnapshotSource {
                snapshot_id: id.to_owned(),
            })),
            From::Volume(id) => Some(SourceType::Volume(VolumeSource {
                volume_id: id.to_owned(),
            })),
        };
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

    /// Takes a snapshot with these parameters of its class; its id.
    pub async fn snapshot(
        &mut self,
        name: &str,
        volume: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String> {
        let parameters = parameters.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let request = CreateSnapshotRequest {
            name: name.to_owned(),
            source_volume_id: volume.to_owned(),
            parameters: parameters.collect(),
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
}

/// A mounted ext4; a driver that makes no file systems does not mind.
pub fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: "ext4".to_owned(),
            ..Default::default()
        })),
    }
}
