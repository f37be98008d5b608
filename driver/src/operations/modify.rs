//! Changing the attributes of a volume, in use or not. They are written down, and set at once
//! where the volume is staged, else when it is staged next.

use tonic::Code;

use super::Coded;
use super::stage::{FitError, fit_where_staged};
use super::validate::{LookupError, look_up};
use crate::pool::{Busy, Pool, RecordError, VolumeRecord};
use crate::volume::{Attributes, FileSystem, VolumeId};

/// Why a volume does not have other attributes.
#[derive(Debug, thiserror::Error)]
pub enum ModifyError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// An attribute that the volume's file system does not have.
    #[error("reservedPercent is for ext4, and the volume has {0}; remove it")]
    Reserved(&'static str),
    /// Its record cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// They are written down, and not set yet.
    #[error(transparent)]
    Fit(#[from] FitError),
}

impl Coded for ModifyError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::Reserved(_) => Code::InvalidArgument,
            Self::Record(error) => error.code(),
            Self::Fit(error) => error.code(),
        }
    }
}

/// Has the volume take these attributes; those that `changes` leaves open stay.
pub fn modify(pool: &Pool, id: &VolumeId, changes: Attributes) -> Result<(), ModifyError> {
    let _lock = pool.locks.begin(id)?;
    let record = look_up(pool, id)?;
    if changes.reserved_percent.is_some() && record.file_system != Some(FileSystem::Ext4) {
        return Err(ModifyError::Reserved(record.content_name()));
    }
    let modified = VolumeRecord {
        attributes: record.attributes.changed(changes),
        ..record.clone()
    };
    if modified != record {
        pool.layout.store(id, &modified)?;
    }
    Ok(fit_where_staged(pool, id, &modified)?)
}
