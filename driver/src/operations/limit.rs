//! How many volumes the node can have in use at once.

use crate::kernel::loop_device::{self, Bound};
use crate::kernel::mount_table::MountTable;
use crate::kernel::{Failed, limits};
use crate::pool::Pool;
use crate::volume::VolumeId;

/// Where a volume is mounted while it is in use: where it is staged, and where it is published.
const MOUNTS_PER_VOLUME: u64 = 2;

/// What the machine has, and how much of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Observed {
    /// How many mounts a mount namespace can have.
    mounts: u64,
    /// How many this one has that are not of our volumes.
    other_mounts: u64,
    /// How many loop devices there can be.
    loop_devices: u64,
    /// How many are bound that are not our volumes'.
    other_loop_devices: u64,
    /// What the administrator allows.
    allowed: Option<u64>,
}

/// Never none, which to Kubernetes would mean any number.
fn most(observed: Observed) -> u64 {
    let mounts = observed.mounts.saturating_sub(observed.other_mounts);
    let devices = observed
        .loop_devices
        .saturating_sub(observed.other_loop_devices);
    (mounts / MOUNTS_PER_VOLUME)
        .min(devices)
        .min(observed.allowed.unwrap_or(u64::MAX))
        .max(1)
}

/// How many volumes of this pool can be in use at once, those that are so already included.
pub fn most_volumes(pool: &Pool) -> Result<u64, Failed> {
    let (ours, others): (Vec<_>, Vec<_>) = loop_device::all()?
        .into_iter()
        .partition(|device| is_volume(pool, device));
    let table = MountTable::read()?;
    let own_mounts: usize = ours
        .iter()
        .map(|device| table.showing(&device.path, device.number).count())
        .sum();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    Ok(most(Observed {
        mounts: limits::mounts()?,
        other_mounts: count(table.len().saturating_sub(own_mounts)),
        loop_devices: loop_device::MOST,
        other_loop_devices: count(others.len()),
        allowed: pool.max_volumes,
    }))
}

/// Whether the file that a loop device is bound to is the image of a volume here. Its path is not
/// looked at as a whole, for it may be another one in the kernel's view.
fn is_volume(pool: &Pool, device: &Bound) -> bool {
    let id = device
        .folder()
        .and_then(VolumeId::parse)
        .filter(|id| device.file.ends_with(crate::pool::Layout::image_tail(id)));
    id.is_some_and(|id| pool.layout.record(&id).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Observed = Observed {
        mounts: 100_000,
        other_mounts: 200,
        loop_devices: 1 << 20,
        other_loop_devices: 3,
        allowed: None,
    };

    #[test]
    fn the_scarcest_thing_decides() {
        let with = |change: fn(&mut Observed)| {
            let mut observed = MACHINE;
            change(&mut observed);
            most(observed)
        };
        assert_eq!(most(MACHINE), 49_900);
        assert_eq!(with(|it| it.other_mounts = 201), 49_899);
        assert_eq!(with(|it| it.loop_devices = 100), 97);
        assert_eq!(with(|it| it.allowed = Some(8)), 8);
        assert_eq!(with(|it| it.allowed = Some(60_000)), 49_900);
        assert_eq!(with(|it| it.other_mounts = 200_000), 1);
    }
}
