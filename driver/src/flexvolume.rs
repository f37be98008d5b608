//! FlexVolume, for clusters that still have it: kubelet runs `driver flexvolume CALL ARGUMENTS`
//! for each step and reads one JSON object. Each call is handed on to the driver that runs on the
//! node, as CSI calls over its socket.
//!
//! A volume is known by the option `volume`, and made at its first mount, with the option `size`.
//! Its CSI name begins with [`PREFIX`], so that no pod can name a volume of a PVC. FlexVolume has
//! no call to delete one: the volumes stay until an administrator deletes them over CSI. The other
//! options are those of a StorageClass.
//!
//! It is released when its last pod on the node is gone. `expandvolume` may be asked for where the
//! volume is not, by kube-controller-manager, which takes «Not supported» for "leave it to
//! `expandfs`"; that does all of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use csi::socket::ConnectError;
use csi::v1::controller_client::ControllerClient;
use csi::v1::node_client::NodeClient;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, CreateVolumeRequest, NodeExpandVolumeRequest,
    NodeGetInfoRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use serde::Serialize;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::bytes;
use crate::cli::DEFAULT_NAME;
use crate::kernel::mount_table::{self, MountTable};
use crate::kernel::{Attempt as _, Failed, files, loop_device};
use crate::volume::{NodeName, VolumeId};

/// Names the driver's socket, where it is not kubelet's usual place for it.
pub const ENDPOINT: &str = "FASTCOPY_ENDPOINT";

/// What the CSI names of FlexVolume's volumes begin with.
pub const PREFIX: &str = "flexvolume-";

/// What kubelet's own options begin with; secrets are among them.
const KUBELET: &str = "kubernetes.io/";

/// How long the driver may take for a step: mkfs and the replay of a log are the longest.
const PATIENCE: Duration = Duration::from_secs(110);

/// What kubelet reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_new_size: Option<i64>,
}

/// What kubelet need not do, and what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "kubelet's form")]
struct Capabilities {
    attach: bool,
    #[serde(rename = "selinuxRelabel")]
    selinux_relabel: bool,
    supports_metrics: bool,
    fs_group: bool,
    #[serde(rename = "requiresFSResize")]
    requires_fs_resize: bool,
}

const CAPABILITIES: Capabilities = Capabilities {
    attach: false,
    selinux_relabel: true,
    supports_metrics: false,
    fs_group: true,
    requires_fs_resize: true,
};

impl Answer {
    const SUCCESS: Self = Self {
        status: "Success",
        message: None,
        capabilities: None,
        volume_name: None,
        volume_new_size: None,
    };

    fn not_supported(message: String) -> Self {
        Self {
            status: "Not supported",
            message: Some(message),
            ..Self::SUCCESS
        }
    }

    fn failure(message: String) -> Self {
        Self {
            status: "Failure",
            message: Some(message),
            ..Self::SUCCESS
        }
    }

    /// Whether the call succeeded.
    pub fn is_success(&self) -> bool {
        self.status == Self::SUCCESS.status
    }

    /// As kubelet reads it.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum FlexError {
    /// Kubelet never calls so.
    #[error("{0} needs the arguments {1}")]
    Arguments(&'static str, &'static str),
    /// Not kubelet's JSON.
    #[error("the options are not a JSON object of texts: {0}")]
    Options(#[from] serde_json::Error),
    /// No name.
    #[error("the option volume is missing; name the volume there")]
    NoVolume,
    /// A size that is none.
    #[error("{0}")]
    Size(String),
    /// A place that is none.
    #[error("{ENDPOINT}: {0}")]
    Endpoint(#[from] csi::endpoint::EndpointError),
    /// No place either.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The driver refused, or is not there.
    #[error("{call}: {} ({:?})", .status.message(), .status.code())]
    Refused {
        /// The CSI call.
        call: &'static str,
        /// What it said.
        status: Status,
    },
    /// An answer without what it must have.
    #[error("the driver's answer to {0} is not whole")]
    Answer(&'static str),
    /// It was mounted where kubelet does not see it.
    #[error(
        "the volume was published at {} and is not to be seen there; give the driver's container \
         kubelet's directory with mountPropagation: Bidirectional", .0.display()
    )]
    NotSeen(PathBuf),
    /// Another file system.
    #[error("{} has another file system mounted on it, which was left alone", .0.display())]
    Foreign(PathBuf),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// A call, as kubelet makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Init,
    GetVolumeName(Options),
    Mount(PathBuf, Options),
    Unmount(PathBuf),
    ExpandVolume(Options, i64),
    ExpandFs(Options, PathBuf, i64),
}

/// The options of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    volume: String,
    size: Option<i64>,
    file_system: String,
    read_only: bool,
    parameters: BTreeMap<String, String>,
}

impl Options {
    fn parse(json: &str) -> Result<Self, FlexError> {
        let mut options: BTreeMap<String, String> = serde_json::from_str(json)?;
        let volume = options.remove("volume").filter(|name| !name.is_empty());
        let size = options.remove("size");
        let size = size.map(|text| match bytes::parse(&text).map(i64::try_from) {
            Ok(Ok(size)) => Ok(size),
            Ok(Err(_)) => Err(FlexError::Size(format!("the size {text:?} is too large"))),
            Err(reason) => Err(FlexError::Size(reason)),
        });
        let of_kubelet = |key: &str| options.get(&format!("{KUBELET}{key}")).cloned();
        let (file_system, mode) = (of_kubelet("fsType"), of_kubelet("readwrite"));
        options.retain(|key, _| !key.starts_with(KUBELET));
        Ok(Self {
            volume: volume.ok_or(FlexError::NoVolume)?,
            size: size.transpose()?,
            file_system: file_system.unwrap_or_default(),
            read_only: mode.as_deref() == Some("ro"),
            parameters: options,
        })
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}", self.volume)
    }

    /// Several pods of the node may share it, as FlexVolume lets them.
    fn capability(&self) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeMultiWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: self.file_system.clone(),
                ..Default::default()
            })),
        }
    }
}

/// Reads a call; `None` for one that is not offered.
fn parse(words: &[String]) -> Result<Option<Call>, FlexError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = |text: &str| {
        let size = text.parse().ok().filter(|size| *size > 0);
        size.ok_or_else(|| FlexError::Size(format!("{text:?} is not a number of bytes")))
    };
    Ok(Some(match words[..] {
        ["init", ..] => Call::Init,
        ["getvolumename", json] => Call::GetVolumeName(Options::parse(json)?),
        ["getvolumename", ..] => return Err(FlexError::Arguments("getvolumename", "OPTIONS")),
        ["mount", target, json] => Call::Mount(target.into(), Options::parse(json)?),
        ["mount", ..] => return Err(FlexError::Arguments("mount", "DIRECTORY OPTIONS")),
        ["unmount", target] => Call::Unmount(target.into()),
        ["unmount", ..] => return Err(FlexError::Arguments("unmount", "DIRECTORY")),
        ["expandvolume", json, _device, size, _old] => {
            Call::ExpandVolume(Options::parse(json)?, bytes(size)?)
        }
        ["expandvolume", ..] => {
            let form = "OPTIONS DEVICE NEW-SIZE OLD-SIZE";
            return Err(FlexError::Arguments("expandvolume", form));
        }
        ["expandfs", json, _device, path, size, _old] => {
            Call::ExpandFs(Options::parse(json)?, path.into(), bytes(size)?)
        }
        ["expandfs", ..] => {
            let form = "OPTIONS DEVICE DIRECTORY NEW-SIZE OLD-SIZE";
            return Err(FlexError::Arguments("expandfs", form));
        }
        _ => return Ok(None),
    }))
}

/// Answers a call.
pub async fn answer(words: &[String]) -> Answer {
    let result = match parse(words) {
        Ok(Some(Call::Init)) => Ok(Answer {
            capabilities: Some(CAPABILITIES),
            ..Answer::SUCCESS
        }),
        Ok(Some(Call::GetVolumeName(options))) => Ok(Answer {
            volume_name: Some(options.name()),
            ..Answer::SUCCESS
        }),
        Ok(Some(call)) => match Driver::find() {
            Ok(mut driver) => driver.answer(call).await,
            Err(error) => Err(error),
        },
        Ok(None) => Ok(Answer::not_supported("kubelet does this itself".to_owned())),
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| Answer::failure(error.to_string()))
}

/// The driver that runs on this node.
struct Driver {
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    /// Where volumes are staged: beside its socket, which the driver and kubelet both see.
    stages: PathBuf,
}

impl Driver {
    /// Must be called in a runtime.
    fn find() -> Result<Self, FlexError> {
        let socket = match std::env::var(ENDPOINT) {
            Ok(endpoint) => csi::endpoint::parse(&endpoint)?,
            Err(_) => ["/var/lib/kubelet/plugins", DEFAULT_NAME, "csi.sock"]
                .iter()
                .collect(),
        };
        let channel = csi::socket::connect(&socket, PATIENCE)?;
        let stages = socket.parent().unwrap_or(Path::new("/"));
        Ok(Self {
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
            stages: stages.join("flexvolume"),
        })
    }

    async fn answer(&mut self, call: Call) -> Result<Answer, FlexError> {
        match call {
            Call::Init | Call::GetVolumeName(_) => Ok(Answer::SUCCESS),
            Call::Mount(target, options) => self.mount(&target, &options).await,
            Call::Unmount(target) => self.unmount(&target).await,
            Call::ExpandVolume(options, size) => self.expand_volume(&options, size).await,
            Call::ExpandFs(options, path, size) => self.expand_fs(&options, &path, size).await,
        }
    }

    async fn mount(&mut self, target: &Path, options: &Options) -> Result<Answer, FlexError> {
        let request = CreateVolumeRequest {
            name: options.name(),
            capacity_range: options.size.map(at_least),
            volume_capabilities: vec![options.capability()],
            parameters: options.parameters.clone(),
            ..Default::default()
        };
        let made = self.controller.create_volume(request).await;
        let made = made.map_err(refused("CreateVolume"))?.into_inner().volume;
        let id = made.ok_or(FlexError::Answer("CreateVolume"))?.volume_id;
        self.attach(&id, options).await?;
        let shown = self.show(&id, target, options).await;
        if shown.is_err() {
            // Kubelet does not unmount what it did not see mounted. The error is what to tell.
            let _ = self.release(&id).await;
        }
        shown.map(|()| Answer::SUCCESS)
    }

    /// A driver without `--attach` has no such call, and needs none.
    async fn attach(&mut self, id: &str, options: &Options) -> Result<(), FlexError> {
        let request = ControllerPublishVolumeRequest {
            volume_id: id.to_owned(),
            node_id: self.node_name().await?,
            volume_capability: Some(options.capability()),
            ..Default::default()
        };
        match self.controller.controller_publish_volume(request).await {
            Err(status) if status.code() != Code::Unimplemented => {
                Err(refused("ControllerPublishVolume")(status))
            }
            _ => Ok(()),
        }
    }

    /// Stages the volume, and publishes it at the target.
    async fn show(&mut self, id: &str, target: &Path, options: &Options) -> Result<(), FlexError> {
        let staging = self.stages.join(id);
        std::fs::create_dir_all(&staging).attempt(|| format!("make {}", staging.display()))?;
        let request = NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(options.capability()),
            ..Default::default()
        };
        let staged = self.node.node_stage_volume(request).await;
        staged.map_err(refused("NodeStageVolume"))?;
        let request = NodePublishVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: staging.display().to_string(),
            target_path: target.display().to_string(),
            volume_capability: Some(options.capability()),
            readonly: options.read_only,
            ..Default::default()
        };
        let published = self.node.node_publish_volume(request).await;
        published.map_err(refused("NodePublishVolume"))?;
        // Else the pod would write to the node's own disk.
        match volume_at(target)? {
            Some(found) if found.as_str() == id => Ok(()),
            _ => Err(FlexError::NotSeen(target.to_owned())),
        }
    }

    async fn unmount(&mut self, target: &Path) -> Result<Answer, FlexError> {
        let Some(id) = volume_at(target)? else {
            return Ok(Answer::SUCCESS);
        };
        let request = NodeUnpublishVolumeRequest {
            volume_id: id.to_string(),
            target_path: target.display().to_string(),
        };
        let unpublished = self.node.node_unpublish_volume(request).await;
        unpublished.map_err(refused("NodeUnpublishVolume"))?;
        self.release(id.as_str()).await?;
        Ok(Answer::SUCCESS)
    }

    /// Unstages and detaches the volume, unless another pod uses it.
    async fn release(&mut self, id: &str) -> Result<(), FlexError> {
        let staging = self.stages.join(id);
        let request = NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: staging.display().to_string(),
        };
        match self.node.node_unstage_volume(request).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::FailedPrecondition => return Ok(()),
            Err(status) => return Err(refused("NodeUnstageVolume")(status)),
        }
        files::remove_directory(&staging)?;
        let request = ControllerUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            ..Default::default()
        };
        match self.controller.controller_unpublish_volume(request).await {
            Err(status) if status.code() != Code::Unimplemented => {
                Err(refused("ControllerUnpublishVolume")(status))
            }
            _ => Ok(()),
        }
    }

    async fn expand_volume(&mut self, options: &Options, size: i64) -> Result<Answer, FlexError> {
        let elsewhere = || Answer::not_supported("the volume is not here".to_owned());
        let node = match self.node_name().await {
            Ok(node) => node,
            Err(FlexError::Refused { status, .. }) if status.code() == Code::Unavailable => {
                return Ok(elsewhere());
            }
            Err(error) => return Err(error),
        };
        let request = ControllerExpandVolumeRequest {
            volume_id: id(options, &node)?.to_string(),
            capacity_range: Some(at_least(size)),
            ..Default::default()
        };
        match self.controller.controller_expand_volume(request).await {
            Ok(expanded) => Ok(resized(expanded.into_inner().capacity_bytes)),
            Err(status) if status.code() == Code::NotFound => Ok(elsewhere()),
            Err(status) => Err(refused("ControllerExpandVolume")(status)),
        }
    }

    async fn expand_fs(
        &mut self,
        options: &Options,
        path: &Path,
        size: i64,
    ) -> Result<Answer, FlexError> {
        let node = self.node_name().await?;
        let id = id(options, &node)?;
        let request = NodeExpandVolumeRequest {
            volume_path: path.display().to_string(),
            staging_target_path: self.stages.join(id.as_str()).display().to_string(),
            volume_id: id.to_string(),
            capacity_range: Some(at_least(size)),
            ..Default::default()
        };
        let expanded = self.node.node_expand_volume(request).await;
        let expanded = expanded.map_err(refused("NodeExpandVolume"))?;
        Ok(resized(expanded.into_inner().capacity_bytes))
    }

    async fn node_name(&mut self) -> Result<String, FlexError> {
        let info = self.node.node_get_info(NodeGetInfoRequest {}).await;
        Ok(info.map_err(refused("NodeGetInfo"))?.into_inner().node_id)
    }
}

/// The volume that is mounted at a path: the mount tells its loop device, and the path of that
/// one's file has the volume's id in it. `None` when nothing is mounted there.
fn volume_at(path: &Path) -> Result<Option<VolumeId>, FlexError> {
    let Some(resolved) = mount_table::existing(path)? else {
        return Ok(None);
    };
    let table = MountTable::read()?;
    let Some(mount) = table.at(&resolved) else {
        return Ok(None);
    };
    let devices = loop_device::all()?;
    let device = devices.iter().find(|it| it.number == mount.device);
    let id = device.and_then(|it| it.folder()).and_then(VolumeId::parse);
    id.map(Some).ok_or_else(|| FlexError::Foreign(resolved))
}

fn id(options: &Options, node: &str) -> Result<VolumeId, FlexError> {
    let node = NodeName::parse(node).map_err(|_| FlexError::Answer("NodeGetInfo"))?;
    Ok(VolumeId::of(&options.name(), &node))
}

fn at_least(size: i64) -> CapacityRange {
    CapacityRange {
        required_bytes: size,
        limit_bytes: 0,
    }
}

fn resized(size: i64) -> Answer {
    Answer {
        volume_new_size: Some(size),
        ..Answer::SUCCESS
    }
}

fn refused(call: &'static str) -> impl Fn(Status) -> FlexError {
    move |status| FlexError::Refused { call, status }
}

/// Answers a call in a runtime of its own.
pub fn run(words: &[String]) -> io::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(answer(words)))
}

#[cfg(test)]
mod tests;
