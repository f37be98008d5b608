//! What calls there are, why they fail, and for how long they are made again.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

use crate::agent::registry::DriverError;

/// The longest text of a driver that is passed on, in characters.
const TEXT: usize = 512;

/// The calls that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// Whether volumes can be reached from everywhere.
    GetPluginCapabilities,
    /// What the controller service can do.
    ControllerGetCapabilities,
    /// How much room there is.
    GetCapacity,
    /// Makes a volume, or finds the one of the same name.
    CreateVolume,
    /// Deletes it.
    DeleteVolume,
    /// Makes a snapshot, or finds the one of the same name.
    CreateSnapshot,
    /// Deletes it.
    DeleteSnapshot,
    /// What the node service can do.
    NodeGetCapabilities,
    /// Where the node is.
    NodeGetInfo,
    /// Makes the volume ready on the node.
    NodeStageVolume,
    /// Shows it at a path.
    NodePublishVolume,
    /// Takes it away from the path.
    NodeUnpublishVolume,
    /// Undoes the staging.
    NodeUnstageVolume,
}

impl Rpc {
    /// The method's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetPluginCapabilities => "GetPluginCapabilities",
            Self::ControllerGetCapabilities => "ControllerGetCapabilities",
            Self::GetCapacity => "GetCapacity",
            Self::CreateVolume => "CreateVolume",
            Self::DeleteVolume => "DeleteVolume",
            Self::CreateSnapshot => "CreateSnapshot",
            Self::DeleteSnapshot => "DeleteSnapshot",
            Self::NodeGetCapabilities => "NodeGetCapabilities",
            Self::NodeGetInfo => "NodeGetInfo",
            Self::NodeStageVolume => "NodeStageVolume",
            Self::NodePublishVolume => "NodePublishVolume",
            Self::NodeUnpublishVolume => "NodeUnpublishVolume",
            Self::NodeUnstageVolume => "NodeUnstageVolume",
        }
    }
}

impl fmt::Display for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a call failed, after all its tries.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The driver could not be found.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// It answered with an error, or not at all.
    #[error("the CSI driver {driver} answered {rpc} with {code:?}: {message}")]
    Answer {
        /// The driver.
        driver: String,
        /// The call.
        rpc: Rpc,
        /// What it answered.
        code: Code,
        /// In its own words, fit for printing.
        message: String,
    },
}

impl CallError {
    /// The gRPC code, where the driver was reached.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Driver(_) => None,
            Self::Answer { code, .. } => Some(*code),
        }
    }
}

/// How long a driver that is away or busy is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For how long a call is made again while the driver is away.
    pub total: Duration,
    /// For how long one is that takes away what somebody else still holds.
    pub busy: Duration,
    /// The pause after the first try; it doubles.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for Patience {
    /// A minute, in which a driver's pod restarts; ten seconds for what is busy.
    fn default() -> Self {
        Self {
            total: Duration::from_secs(60),
            busy: Duration::from_secs(10),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
        }
    }
}

impl Patience {
    /// For how long a call that failed so is made again.
    pub(super) fn with(&self, rpc: Rpc, code: Option<Code>) -> Duration {
        match (code, rpc) {
            // Away, or at work on the same volume.
            (None | Some(Code::Unavailable | Code::Aborted), _) => self.total,
            // Most likely "device is busy": whatever copied the mount table a moment ago, such as a
            // container that starts, holds every mount in it until it has caught up.
            (
                Some(Code::Internal | Code::Unknown | Code::FailedPrecondition),
                Rpc::NodeUnpublishVolume | Rpc::NodeUnstageVolume | Rpc::DeleteVolume,
            ) => self.busy,
            (Some(_), _) => Duration::ZERO,
        }
    }

    /// One try.
    pub const NONE: Self = Self {
        total: Duration::ZERO,
        busy: Duration::ZERO,
        pause: Duration::ZERO,
        pause_max: Duration::ZERO,
    };
}

/// The code of a failed call. What the transport says about a server that went away in the middle of
/// a call is Unknown, Internal or Cancelled, and has a source, which no server's answer has.
pub(super) fn code(status: &Status) -> Code {
    match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled
            if std::error::Error::source(status).is_some() =>
        {
            Code::Unavailable
        }
        code => code,
    }
}

pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(TEXT)
        .collect()
}
