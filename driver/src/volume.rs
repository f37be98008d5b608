//! What a volume is, and what may be asked of one: pure values and decisions, no I/O.

mod capability;
mod id;
mod mkfs_options;
mod parameters;
mod size;

use serde::{Deserialize, Serialize};

use crate::bytes::MIB;

pub use capability::{Access, Capability, CapabilityError, CommonError};
pub use id::{
    GroupId, Id, Kind, NodeName, NodeNameError, OfSnapshot, OfVolume, SnapshotId, VolumeId,
};
pub use mkfs_options::{MkfsOptionError, MkfsOptions};
pub use parameters::{
    Attributes, ParameterError, Provisioning, SnapshotParameters, VolumeParameters,
};
pub use size::{DEFAULT as DEFAULT_SIZE, SizeError, SizeRange, UNIT as SIZE_UNIT};

/// The file systems that a volume can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4, the default.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// The one with this name, if it is offered.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Ext4, Self::Xfs]
            .into_iter()
            .find(|it| it.name() == name)
    }

    /// Its name, for the kernel and for users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The smallest volume on which it works, in bytes: for ext4 with a journal, for XFS what
    /// mkfs.xfs insists on.
    pub fn minimum(self) -> u64 {
        match self {
            Self::Ext4 => 16 * MIB,
            Self::Xfs => 300 * MIB,
        }
    }
}

impl FileSystem {
    /// The smallest volume with this file system, or of a raw block device, in bytes.
    pub fn least(file_system: Option<Self>) -> u64 {
        file_system.map_or(MINIMUM_BLOCK, Self::minimum)
    }
}

/// What a new volume is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A raw block device.
    Block,
    /// A file system: this one, or what its source has, or the default.
    Mount(Option<FileSystem>),
}

/// The smallest raw block device, in bytes.
const MINIMUM_BLOCK: u64 = MIB;
