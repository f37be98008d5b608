//! Which loop device is taken next.
//!
//! The kernel calls a device free that is bound to no file. Its node may still be mounted somewhere all the
//! same, as the raw block volume of a driver that has deleted it without having it unpublished; whoever looks
//! there would see, and could write, what the device is bound to next.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::mount_table::MountTable;
use super::{Attempt as _, DeviceNumber, Failed, loop_device, raw};

/// The node of a device that is free at this moment, and mounted nowhere.
pub(super) fn choose(control: &File) -> Result<PathBuf, Failed> {
    let first = raw::loop_get_free(control).attempt(|| "find a free loop device")?;
    let mounts = MountTable::read()?;
    for number in first.. {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        if number > first {
            raw::loop_add(control, number).attempt(|| format!("make {}", path.display()))?;
            if loop_device::is_bound(number) {
                continue;
            }
        }
        if !is_shown(&mounts, &path) {
            return Ok(path);
        }
        tracing::warn!(device = %path.display(), "is free, and left alone: its node is mounted");
    }
    unreachable!("the kernel has fewer numbers for devices")
}

fn is_shown(mounts: &MountTable, path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| {
        let number = DeviceNumber::from_dev(metadata.rdev());
        mounts.showing(path, number).next().is_some()
    })
}
