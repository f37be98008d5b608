//! A volume's file system: made once, recovered or refused, and mounted.

use std::fs::OpenOptions;

use rustix::io::Errno;

use super::StageError;
use crate::failpoint;
use crate::kernel::Attempt as _;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mounting::{self, MountError, MountOptions};
use crate::kernel::superblock::{self, Superblock};
use crate::kernel::tools::{self, ToolError};
use crate::pool::{Pool, StagingRecord, VolumeRecord};
use crate::volume::{FileSystem, VolumeId};

/// Makes the file system, and only then writes down that there is one.
pub(super) fn format(
    pool: &Pool,
    id: &VolumeId,
    record: &mut VolumeRecord,
    device: &LoopDevice,
) -> Result<(), StageError> {
    let options = record.mkfs_options.words();
    failpoint::around("stage.format", || match record.file_system {
        Some(FileSystem::Ext4) => tools::make_ext4(device.path(), options),
        Some(FileSystem::Xfs) => tools::make_xfs(device.path(), options),
        None => Ok(()),
    })?;
    let attempt = || format!("sync {}", device.path().display());
    let open = OpenOptions::new()
        .write(true)
        .open(device.path())
        .attempt(attempt)?;
    open.sync_all().attempt(attempt)?;
    let formatted = VolumeRecord {
        formatted: true,
        ..record.clone()
    };
    failpoint::around("stage.record", || pool.layout.store(id, &formatted))?;
    *record = formatted;
    Ok(())
}

/// Mounts the file system, having made sure that it is the one that was made. What only needs its
/// log replayed the kernel recovers by mounting it.
pub(super) fn mount(
    pool: &Pool,
    id: &VolumeId,
    record: &VolumeRecord,
    expected: FileSystem,
    device: &LoopDevice,
    wanted: &StagingRecord,
    options: &MountOptions,
) -> Result<(), StageError> {
    let damaged = |found: String| StageError::Damaged {
        image: pool.layout.image(id),
        expected: expected.name(),
        found,
    };
    let mut options = options.clone();
    match (expected, superblock::read(device.path())?) {
        (FileSystem::Ext4, Superblock::Ext4 { size, errors }) => {
            let unfit = |error| match error {
                ToolError::Failed { complaint, .. } => damaged(complaint),
                other => other.into(),
            };
            // The kernel met errors in it, and would go on from there. What can be mended without
            // a loss is mended.
            if errors {
                tools::check_ext4(device.path()).map_err(unfit)?;
            }
            if device.size()? != record.size_bytes {
                device.follow_size()?;
            }
            if size < record.size_bytes && !mounting::can_grow_ext4() {
                failpoint::around("stage.grow", || tools::grow_ext4(device.path()))
                    .map_err(unfit)?;
            }
        }
        // Copies of a volume have its UUID, and each is to mount beside the others.
        (FileSystem::Xfs, Superblock::Xfs { .. }) => {
            options.file_system.push(("nouuid".to_owned(), None));
        }
        (_, found) => return Err(damaged(format!("{found:?}"))),
    }
    pool.layout.store(id, wanted)?;
    let mounted = failpoint::around("stage.mount", || {
        mounting::mount_device(device.path(), expected.name(), &wanted.path, &options)
    });
    mounted.map_err(|error| match &error {
        // EUCLEAN and EBADMSG are what both file systems say of themselves when they are damaged;
        // EIO what a device says.
        MountError::Refused { reason, .. }
            if matches!(*reason, Errno::UCLEAN | Errno::BADMSG | Errno::IO) =>
        {
            damaged(error.to_string())
        }
        _ => error.into(),
    })
}
