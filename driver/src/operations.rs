//! What the driver does with volumes and snapshots, one module per operation.
//!
//! Every operation takes the pool and a request in the driver's own terms, blocks, and can be
//! repeated at any time: it looks at what is really there, decides on the next step, and does it.
//! Every operation has an error of its own, with a table to gRPC's codes.

pub mod attach;
pub mod copying;
pub mod create;
pub mod delete;
pub mod delete_group;
pub mod delete_snapshot;
pub mod detach;
pub mod expand;
pub mod group;
pub mod health;
pub mod limit;
pub mod list;
pub mod metadata;
pub mod modify;
pub mod publish;
pub mod snapshot;
pub mod stage;
pub mod stats;
pub mod unpublish;
pub mod unstage;
pub mod validate;

use std::path::Path;

use tonic::Code;

use crate::kernel::freezing::FreezeError;
use crate::kernel::mount_table::{Mount, MountTable};
use crate::kernel::{DeviceNumber, Failed};
use crate::pool::{AdmissionError, RecordError};

/// An error that gRPC has a code for.
pub trait Coded: std::fmt::Display {
    /// The code, as the CSI specification has it for this operation.
    fn code(&self) -> Code;
}

/// What is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// Nothing.
    Nothing,
    /// The volume's file system.
    Volume(Mount),
    /// Some other file system.
    Foreign(Mount),
}

impl At {
    /// Looks a path, free of symbolic links, up in the table.
    fn look(table: &MountTable, path: &Path, device: Option<DeviceNumber>) -> Self {
        match table.at(path) {
            None => Self::Nothing,
            Some(mount) if Some(mount.device) == device => Self::Volume(mount.clone()),
            Some(mount) => Self::Foreign(mount.clone()),
        }
    }
}

/// INTERNAL, save when the disk is full: another node may have room.
impl Coded for Failed {
    fn code(&self) -> Code {
        match self.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Code::ResourceExhausted
            }
            _ => Code::Internal,
        }
    }
}

impl Coded for FreezeError {
    fn code(&self) -> Code {
        match self {
            Self::Frozen(_) | Self::Thawed(_) | Self::Replaced(_) => Code::Aborted,
            Self::Failed(failed) => failed.code(),
            Self::Guard { .. } => Code::Internal,
        }
    }
}

impl Coded for RecordError {
    fn code(&self) -> Code {
        match self {
            Self::Failed(failed) => failed.code(),
            Self::Damaged { .. } | Self::Newer { .. } => Code::Internal,
        }
    }
}

impl Coded for AdmissionError {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } | Self::Watermark { .. } => Code::ResourceExhausted,
            Self::Failed(failed) => failed.code(),
        }
    }
}
