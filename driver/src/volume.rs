//! What a volume is, and what may be asked of one: pure values and decisions, no I/O.

mod capability;
mod id;
mod parameters;
mod size;

use serde::{Deserialize, Serialize};

use crate::bytes::MIB;

pub use capability::{Capability, CapabilityError};
pub use id::{NodeName, NodeNameError, VolumeId};
pub use parameters::{UnknownParameter, check as check_parameters};
pub use size::{SizeError, SizeRange, UNIT as SIZE_UNIT};

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
