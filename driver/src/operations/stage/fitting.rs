//! Bringing a staged volume to the size and the attributes that are written down for it.

use std::path::Path;

use tonic::Code;

use super::{At, Coded};
use crate::failpoint;
use crate::kernel::freezing::{self, FreezeError, Target};
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::MountTable;
use crate::kernel::superblock;
use crate::kernel::tools::{self, ToolError};
use crate::kernel::{Failed, mounting};
use crate::pool::{Pool, RecordError, StagingRecord, VolumeRecord};
use crate::volume::{FileSystem, VolumeId};

/// Why a volume does not have its size or its attributes.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// An ext4 in use cannot grow from here.
    #[error(
        "ext4 can only grow while it is in use if the driver has CAP_SYS_RESOURCE, and it has not: \
         grant it to the driver's container, or end the pods that use the volume: it grows before \
         it is mounted again"
    )]
    NotPermitted,
    /// A tool did not do its work.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file system that has grown could not be brought to its disk.
    #[error("the file system has grown, and is not safe from a power cut yet: {0}")]
    Freeze(#[from] FreezeError),
    /// How it is staged cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for FitError {
    fn code(&self) -> Code {
        match self {
            Self::NotPermitted => Code::FailedPrecondition,
            Self::Tool(_) => Code::Internal,
            Self::Freeze(error) => error.code(),
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// Has the device take the volume's size, and the file system mounted at `point` the device's,
/// and sets what can be set. All of it while the volume is in use; what fits already is left.
pub fn fit(
    record: &VolumeRecord,
    device: &LoopDevice,
    point: Option<&Path>,
    read_only: bool,
) -> Result<(), FitError> {
    if device.size()? != record.size_bytes {
        failpoint::around("fit.device", || device.follow_size())?;
    }
    if let Some(kib) = record.attributes.read_ahead_kib {
        device.set_read_ahead(kib)?;
    }
    let (Some(file_system), Some(point), false) = (record.file_system, point, read_only) else {
        return Ok(());
    };
    // A volume whose pool fails must not keep snapshots of it waiting for ever.
    if file_system == FileSystem::Xfs
        && let Err(error) = mounting::end_retries(device.path())
    {
        tracing::warn!("{error}");
    }
    if superblock::read(device.path())?.size() < record.size_bytes {
        failpoint::around("stage.grow", || grow(file_system, point, record.size_bytes))?;
        if file_system == FileSystem::Xfs {
            failpoint::around("grow.settle", || settle(device, point))?;
        }
    }
    if let (FileSystem::Ext4, Some(percent)) = (file_system, record.attributes.reserved_percent) {
        tools::reserve_ext4(device.path(), percent)?;
    }
    Ok(())
}

/// As [`fit`], if the volume is staged now. The caller holds its lock.
pub fn fit_where_staged(pool: &Pool, id: &VolumeId, record: &VolumeRecord) -> Result<(), FitError> {
    let (Some(device), Some(staged)) = (pool.device(id)?, pool.layout.load::<StagingRecord>(id)?)
    else {
        return Ok(());
    };
    if record.file_system.is_none() {
        return fit(record, &device, None, staged.read_only);
    }
    match At::look(&MountTable::read()?, &staged.path, Some(device.number())) {
        At::Volume(mount) => fit(record, &device, Some(&mount.point), staged.read_only),
        // A staging was interrupted, and its repetition sees to all of it.
        At::Nothing | At::Foreign(_) => Ok(()),
    }
}

fn grow(file_system: FileSystem, point: &Path, size: u64) -> Result<(), FitError> {
    match file_system {
        FileSystem::Ext4 if !mounting::can_grow_ext4() => Err(FitError::NotPermitted),
        FileSystem::Ext4 => Ok(mounting::grow_ext4(point, size)?),
        FileSystem::Xfs => Ok(tools::grow_xfs(point)?),
    }
}

/// Has an XFS that has grown write its new superblock in its place.
///
/// Until then it is in the log alone, and Linux from 6.17 on cannot replay a log in which anything
/// lies in what was added: it measures that by the superblock in its place (`xfs_buf_map_verify`,
/// fs/xfs/xfs_buf.c), and the mount after a power cut fails with EUCLEAN. To sync does not do;
/// a freeze empties the log (`xfs_log_quiesce`). While the superblock in its place has the old
/// size, whoever repeats this comes here again.
fn settle(device: &LoopDevice, point: &Path) -> Result<(), FreezeError> {
    let target = Target {
        point: point.to_owned(),
        device: device.number(),
    };
    freezing::freeze(&[target])?.thaw().map(drop)
}
