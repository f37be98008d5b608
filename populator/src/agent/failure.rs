//! Why an attempt failed, in one table: a word, a sentence that says what to do, and what may cure
//! it.

use archive::{RestoreError, Retry};
use crds::restore_order::{Cure, Failure};
use tonic::Code;

use super::mount::MountError;
use super::plugin::{CallError, Rpc};
use super::record::RecordError;
use super::volume::Unfit;
use crate::choices::ChoiceError;
use crate::seal::SealError;

/// Why a volume was not made, filled, unmounted or deleted.
#[derive(Debug, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum AttemptError {
    /// It was no longer wanted.
    #[error("it was cancelled")]
    Cancelled,
    /// The driver failed a call, or is away.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The driver's controller service is not on this node.
    #[error("the CSI driver {driver} does not make volumes at its socket on this node")]
    NoController {
        /// The driver.
        driver: String,
    },
    /// The driver made something else than was asked for.
    #[error("the CSI driver {driver} is at fault: {unfit}")]
    Unfit {
        /// The driver.
        driver: String,
        /// What is wrong with it.
        #[source]
        unfit: Unfit,
    },
    /// It is not certain that writing would reach the volume.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// What an earlier attempt has left in the volume does not go.
    #[error("the volume cannot be emptied: {0}")]
    Emptying(#[source] std::io::Error),
    /// The node's own disk failed or is full.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The order is not one that can be carried out.
    #[error("the order is invalid: {0}")]
    Order(&'static str),
    /// What it says of the restore makes no sense.
    #[error("the order is invalid: {0}")]
    Choice(#[from] ChoiceError),
    /// The agent was given no directory.
    #[error("the archive is a file, and the populator's agent on this node reads none")]
    NoFiles,
    /// The driver refuses the volume with the Secrets that are named for it.
    #[error(transparent)]
    Keys(CallError),
    /// What the driver wants on the node cannot be had.
    #[error("the Secrets for the driver cannot be opened: {0}")]
    Sealed(#[from] SealError),
    /// The archive, the store or the volume failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The agent does not live to see the end.
    #[error("the populator's agent on the node ended {times} times while it wrote the volume")]
    Interrupted {
        /// How often.
        times: u32,
    },
    /// The thread that fills the volume died.
    #[error("filling the volume ended in the middle ({0})")]
    Died(#[from] tokio::task::JoinError),
}

/// What a volume that an attempt has begun is worth to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// What it was.
    Same,
    /// Less each time: it may be the volume that cannot be mounted.
    Doubtful,
    /// Nothing: the next attempt must have another one.
    Nothing,
}

impl AttemptError {
    /// What the order's status says.
    pub fn failure(&self) -> Failure {
        let (reason, cure, advice) = self.table();
        let message = match advice {
            "" => self.to_string(),
            advice => format!("{self}; {advice}"),
        };
        Failure {
            reason: reason.to_owned(),
            message,
            cure,
        }
    }

    /// Whether it only means that nobody wanted it any more.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled | Self::Restore(RestoreError::Cancelled)
        )
    }

    /// Whether the driver knows no such volume on the node.
    pub fn is_of_no_volume(&self) -> bool {
        let Self::Call(CallError::Answer { rpc, code, .. }) = self else {
            return false;
        };
        *code == Code::NotFound && matches!(rpc, Rpc::NodeStageVolume | Rpc::NodePublishVolume)
    }

    /// What it says of the volume that the attempt had.
    pub fn worth(&self) -> Worth {
        match self {
            Self::Restore(
                RestoreError::VolumeError { .. } | RestoreError::VolumeNotEmpty { .. },
            )
            | Self::Unfit { .. }
            | Self::Died(_) => Worth::Nothing,
            _ if self.is_of_no_volume() => Worth::Nothing,
            Self::Mount(MountError::Look { .. }) | Self::Keys(_) => Worth::Doubtful,
            Self::Call(CallError::Answer { rpc, code, .. }) => match answered(*rpc, *code) {
                ("DriverUnavailable", _, _) => Worth::Same,
                (_, Cure::Time, _) => Worth::Doubtful,
                (_, Cure::Person | Cure::OtherNode, _) => Worth::Nothing,
            },
            Self::Cancelled
            | Self::Call(CallError::Driver(_))
            | Self::NoController { .. }
            | Self::Mount(
                MountError::NotAMount(_) | MountError::NotADevice(_) | MountError::KernelTooOld,
            )
            | Self::Emptying(_)
            | Self::Record(_)
            | Self::Order(_)
            | Self::Choice(_)
            | Self::NoFiles
            | Self::Sealed(_)
            | Self::Interrupted { .. }
            | Self::Restore(_) => Worth::Same,
        }
    }

    /// Reason, cure, and what to do where the error itself does not say so.
    fn table(&self) -> (&'static str, Cure, &'static str) {
        match self {
            Self::Cancelled => ("Cancelled", Cure::Time, "it begins anew"),
            Self::Call(CallError::Driver(_)) => (
                "DriverAway",
                Cure::Time,
                "see that the driver's pod runs on the node; it is tried again",
            ),
            Self::Call(CallError::Answer { rpc, code, .. }) => answered(*rpc, *code),
            Self::NoController { .. } => (
                "DriverUnsupported",
                Cure::Person,
                "name a driver whose controller runs on every node",
            ),
            Self::Unfit { unfit, .. } => match unfit {
                Unfit::Nameless => ("DriverAtFault", Cure::Person, "report it to its makers"),
                Unfit::Small { .. } => (
                    "VolumeTooSmall",
                    Cure::Person,
                    "ask for a size that the driver can make",
                ),
                Unfit::Large { .. } => (
                    "VolumeTooLarge",
                    Cure::Person,
                    "ask for a size that the driver can make",
                ),
                Unfit::Elsewhere => (
                    "VolumeElsewhere",
                    Cure::Person,
                    "check the topology of the driver and of its StorageClass",
                ),
            },
            Self::Mount(MountError::NotAMount(_) | MountError::NotADevice(_)) => (
                "MountNotVisible",
                Cure::Person,
                "the driver's mounts cannot be seen from the agent: mount kubelet's directory into \
                 the agent's pod with mountPropagation HostToContainer, and into the driver's with \
                 Bidirectional",
            ),
            Self::Mount(MountError::KernelTooOld) => (
                "KernelTooOld",
                Cure::Person,
                "update the node's kernel or use another node",
            ),
            Self::Mount(MountError::Look { .. }) => (
                "MountNotVisible",
                Cure::Time,
                "look at the node's kernel log and the driver's log; it is tried again",
            ),
            Self::Emptying(_) => (
                "VolumeError",
                Cure::Time,
                "look at the node's kernel log; it is tried again",
            ),
            Self::Record(_) => (
                "NodeError",
                Cure::Time,
                "see that the disk of kubelet's directory has room and works; it is tried again",
            ),
            Self::Order(_) | Self::Choice(_) => (
                "OrderInvalid",
                Cure::Person,
                "delete the PVC and make it again",
            ),
            Self::NoFiles => (
                "FilesDisabled",
                Cure::Person,
                "have the administrator give it --file-root too, as to the controller",
            ),
            Self::Keys(_) => (
                "DriverRefused",
                Cure::Time,
                "look at the driver's log on the node and at the Secrets that the StorageClass names for \
                 it, which the next attempt gets as they are then",
            ),
            Self::Sealed(_) => (
                "SecretsUnreadable",
                Cure::Time,
                "they are sealed anew for the next attempt",
            ),
            Self::Restore(error) => (error.reason(), restore(error), for_a_claim(error)),
            Self::Interrupted { .. } => (
                "AgentInterrupted",
                Cure::Time,
                "see what ends its pod, as for example a memory limit below what docs/operations.md says; it is \
                 tried again",
            ),
            Self::Died(_) => (
                "NodeError",
                Cure::Time,
                "the agent's log says more; it is tried again",
            ),
        }
    }
}

fn restore(error: &RestoreError) -> Cure {
    // It was open when the archive was pinned. Keys change, and the next attempt reads with those that the
    // Secret has by then.
    if matches!(error, RestoreError::ArchiveDenied(_)) {
        return Cure::Time;
    }
    match error.retry() {
        Retry::Transient => Cure::Time,
        Retry::Permanent => Cure::Person,
    }
}

/// What a PVC has to be for what the engine says.
fn for_a_claim(error: &RestoreError) -> &'static str {
    match error {
        RestoreError::NotAnImage { .. } => {
            "for an archive of files, make the PVC with volumeMode Filesystem, and leave imageFile out of the \
             VolumeBackup"
        }
        RestoreError::NotAnArchive { .. } => {
            "for the image of a disk, make the PVC with volumeMode Block, or name a file for it by imageFile in \
             the VolumeBackup"
        }
        _ => "",
    }
}

/// A failure to mount a volume with Secrets: those may be wrong, or have been changed since they were read.
pub(super) fn with_keys(error: CallError) -> AttemptError {
    match error
        .code()
        .map(|code| answered(Rpc::NodeStageVolume, code))
    {
        Some((_, Cure::Person, _)) => AttemptError::Keys(error),
        _ => AttemptError::Call(error),
    }
}

/// What a driver's answer to a call means.
fn answered(rpc: Rpc, code: Code) -> (&'static str, Cure, &'static str) {
    match (code, rpc) {
        (Code::ResourceExhausted, Rpc::CreateVolume) => (
            "NodeFull",
            Cure::OtherNode,
            "free space on the node or let the volume go to another one",
        ),
        (Code::OutOfRange, Rpc::CreateVolume) => (
            "SizeRefused",
            Cure::Person,
            "ask for a size that the driver can make",
        ),
        (Code::InvalidArgument, Rpc::CreateVolume) => (
            "ParametersRefused",
            Cure::Person,
            "correct the StorageClass's parameters or the PVC's access modes",
        ),
        (Code::AlreadyExists, Rpc::CreateVolume) => (
            "VolumeExists",
            Cure::Person,
            "a volume of the same name and another kind exists; delete the PVC and make it again",
        ),
        (
            Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted,
            _,
        ) => (
            "DriverUnavailable",
            Cure::Time,
            "look at the driver's log on the node; it is tried again",
        ),
        (Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok, _) => (
            "DriverFailed",
            Cure::Time,
            "look at the driver's log on the node; it is tried again",
        ),
        // What kubelet meets with patience: the volume may not have come to the node yet, or what the driver
        // itself needs to reach it is being mended.
        (
            Code::NotFound
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated,
            Rpc::NodeStageVolume | Rpc::NodePublishVolume,
        ) => (
            "DriverRefused",
            Cure::Time,
            "look at the driver's log on the node and correct what it names; it is tried again",
        ),
        (
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated,
            _,
        ) => (
            "DriverRefused",
            Cure::Person,
            "look at the driver's log on the node and correct what it names",
        ),
    }
}

/// Whether an error of CreateVolume leaves no volume behind, not even one still being made.
///
/// Source: external-provisioner treats the other codes as "may still be in progress".
pub fn made_nothing(error: &CallError) -> bool {
    match error.code() {
        // Not reached at the last try, or given up in the middle.
        None
        | Some(
            Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::Ok,
        ) => false,
        Some(
            Code::ResourceExhausted
            | Code::OutOfRange
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::NotFound
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::Unauthenticated,
        ) => true,
    }
}

#[cfg(test)]
mod tests;
