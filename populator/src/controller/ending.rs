//! What the controller itself finds out of a restore that goes wrong, in words that say what to do. What
//! keeps one from beginning is a [`Refusal`](super::refusal::Refusal), and what an agent meets comes
//! with its order.

use std::fmt;

use crds::restore_order::{Cure, Failure};

use super::prime::Unfit;
use crate::units;

/// Why a restore is over, without its data.
#[derive(thiserror::Error, strum::EnumDiscriminants, Debug, Clone, PartialEq, Eq)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum Ending {
    /// Binding ignores data sources.
    #[error(
        "Kubernetes bound this PVC to the PersistentVolume {volume}, which does not hold the data of \
         VolumeBackup {backup}; delete the PVC and make it again when no PersistentVolume without a \
         claim fits it"
    )]
    BoundElsewhere {
        /// The PersistentVolume.
        volume: String,
        /// The VolumeBackup.
        backup: String,
    },
    /// Somebody made another PersistentVolume of the only name that will do.
    #[error(
        "a PersistentVolume of the name that this restore must use exists and holds something else; \
         have the administrator delete it"
    )]
    VolumeNameTaken,
    /// Somebody has taken the volume away.
    #[error(
        "the PersistentVolume {volume} of the restored volume was deleted, released or given to \
         another PVC before it could be handed over; leave what the populator makes in its namespace \
         alone"
    )]
    VolumeLost {
        /// The PersistentVolume.
        volume: String,
    },
    /// What the driver's provisioner gave cannot be filled.
    #[error(
        "the PersistentVolume {volume}, which the restore was given, cannot be filled: {unfit}"
    )]
    Unfillable {
        /// The PersistentVolume.
        volume: String,
        /// Why not.
        #[source]
        unfit: Unfit,
    },
    /// The driver's volume is too small.
    #[error(
        "the CSI driver {driver} made a volume of {} where {} were asked for; ask for a size that it \
         can make",
        bytes(*made),
        bytes(*required)
    )]
    VolumeTooSmall {
        /// The driver.
        driver: String,
        /// Bytes of what it made.
        made: i64,
        /// Bytes asked for.
        required: i64,
    },
    /// An agent of another version.
    #[error(
        "the agent reported a filled volume of another kind, or without saying which; update the agents \
         and the controller of the populator to the same version"
    )]
    AnswerInvalid,
    /// The store or the way to it is not worth more attempts.
    #[error(
        "after {attempts} attempts {} were fetched for an archive of {}{}; see that the connection between \
         nodes and store is stable",
        bytes(*fetched),
        bytes(*size),
        last.as_ref().map(|last| format!(", and the last failure was: {last}")).unwrap_or_default()
    )]
    BudgetSpent {
        /// How many.
        attempts: i64,
        /// Bytes, in all of them.
        fetched: i64,
        /// Bytes of the archive.
        size: i64,
        /// What the last one failed for, unless it is still under way.
        last: Option<String>,
    },
    /// As often as the VolumeBackup allows.
    #[error(
        "it was tried as often as retry.attempts of the VolumeBackup allows, {attempts} times, and the last \
         failure was: {last}; mend that, or allow more"
    )]
    AttemptsSpent {
        /// How many.
        attempts: i64,
        /// What the last one failed for.
        last: String,
    },
    /// For as long as the VolumeBackup allows.
    #[error(
        "it was not complete within the {seconds} seconds that retry.activeDeadlineSeconds of the \
         VolumeBackup allows{}; mend what holds it up, or allow more",
        last.as_ref().map(|last| format!(", and the last failure was: {last}")).unwrap_or_default()
    )]
    DeadlinePassed {
        /// How long that was.
        seconds: i64,
        /// What the last attempt failed for, if it has.
        last: Option<String>,
    },
}

fn bytes(number: i64) -> String {
    units::bytes(u64::try_from(number).unwrap_or(0))
}

impl Ending {
    /// One word in CamelCase.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BoundElsewhere { .. } => "BoundElsewhere",
            Self::VolumeNameTaken => "VolumeNameTaken",
            Self::VolumeLost { .. } => "VolumeLost",
            Self::Unfillable { .. } => "VolumeUnfillable",
            Self::VolumeTooSmall { .. } => "VolumeTooSmall",
            Self::AnswerInvalid => "AgentAnswerInvalid",
            Self::BudgetSpent { .. } => "BudgetSpent",
            Self::AttemptsSpent { .. } => "AttemptsSpent",
            Self::DeadlinePassed { .. } => "DeadlinePassed",
        }
    }

    /// As an agent would say it.
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason().to_owned(),
            message: self.to_string(),
            cure: Cure::Person,
        }
    }
}

/// What works beside a driver's controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// external-provisioner.
    Provisioner,
    /// external-attacher.
    Attacher,
}

impl fmt::Display for Sidecar {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Provisioner => "provisioner",
            Self::Attacher => "attacher",
        })
    }
}

/// What a restore that has begun waits for.
#[derive(thiserror::Error, strum::EnumDiscriminants, Debug, Clone, PartialEq, Eq)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum Hindrance {
    /// The API server does not do what must be done.
    #[error(
        "the API server refuses what the populator must do ({why}); have the administrator look at \
         its permissions, quotas and admission policies, it is tried again"
    )]
    Refused {
        /// What it said.
        why: String,
    },
    /// It fails.
    #[error(
        "the {sidecar} of the CSI driver {driver} says: {said}; it tries again by itself, have the \
         administrator look at it if that has no end"
    )]
    Complaint {
        /// Who.
        sidecar: Sidecar,
        /// The driver.
        driver: String,
        /// What it says.
        said: String,
    },
    /// Nobody makes the volume, or attaches it.
    #[error(
        "the {sidecar} of the CSI driver {driver} has not answered for {seconds} seconds; have the \
         administrator see that it runs, the restore then goes on by itself"
    )]
    Silent {
        /// Who.
        sidecar: Sidecar,
        /// The driver.
        driver: String,
        /// For how long at least.
        seconds: i64,
    },
    /// The volume was taken from the node.
    #[error(
        "the volume's VolumeAttachment was deleted while the volume was being filled; it is attached \
         and tried again"
    )]
    Detached,
    /// The driver's provisioner has no room where the volume shall lie.
    #[error(
        "the provisioner of the CSI driver {driver} has no room on node {node}; free space there or \
         let the volume go to another one"
    )]
    NodeFull {
        /// The driver.
        driver: String,
        /// The node.
        node: String,
    },
    /// A VolumeRestore of the same name is on its way out.
    #[error(
        "the VolumeRestore of the same name is being deleted, and a finalizer keeps it; see whose that is with \
         kubectl get volumerestore -o yaml, the restore goes on by itself when it is gone"
    )]
    RestoreKept,
    /// What is left of an earlier attempt does not go.
    #[error(
        "what an earlier attempt left on node {node} cannot be deleted: {said}; it is tried again, and the \
         restore then goes on by itself"
    )]
    VolumeKept {
        /// The node.
        node: String,
        /// What the agent there says.
        said: String,
    },
    /// Nobody renews the agent's Lease.
    #[error(
        "the populator's agent on node {node} does not answer; see that its pod runs there, the \
         restore then goes on by itself"
    )]
    AgentSilent {
        /// The node.
        node: String,
    },
}

impl Hindrance {
    /// One word in CamelCase.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "APIServerRefused",
            Self::Complaint { sidecar, .. } => match sidecar {
                Sidecar::Provisioner => "ProvisioningFailed",
                Sidecar::Attacher => "AttachFailed",
            },
            Self::Silent { .. } => "SidecarSilent",
            Self::Detached => "VolumeDetached",
            Self::NodeFull { .. } => "NodeFull",
            Self::RestoreKept => "VolumeRestoreKept",
            Self::VolumeKept { .. } => "VolumeKept",
            Self::AgentSilent { .. } => "AgentSilent",
        }
    }

    /// As an agent would say it.
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason().to_owned(),
            message: self.to_string(),
            cure: match self {
                Self::NodeFull { .. } => Cure::OtherNode,
                Self::Refused { .. }
                | Self::Complaint { .. }
                | Self::Silent { .. }
                | Self::Detached
                | Self::RestoreKept
                | Self::VolumeKept { .. }
                | Self::AgentSilent { .. } => Cure::Time,
            },
        }
    }
}
