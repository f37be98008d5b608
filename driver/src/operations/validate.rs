//! Looking a volume up, to say whether it suits a use.

use tonic::Code;

use super::Coded;
use crate::pool::{Pool, RecordError, VolumeRecord};
use crate::volume::VolumeId;

/// Why a volume is not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("there is no {0} here")]
    NotFound(String),
    /// Its record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Coded for LookupError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Record(error) => error.code(),
        }
    }
}

/// Finds the volume.
pub fn look_up(pool: &Pool, id: &VolumeId) -> Result<VolumeRecord, LookupError> {
    pool.layout
        .load(id)?
        .ok_or_else(|| LookupError::NotFound(id.to_string()))
}
