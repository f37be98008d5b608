//! Staging a volume: its image becomes a device, gets its file system the first time, and is
//! mounted.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tonic::Code;

use super::validate::{LookupError, look_up};
use super::{At, Coded, code_of};
use crate::failpoint;
use crate::kernel::loop_device::{self, AttachError, DetachError, LoopDevice};
use crate::kernel::mkfs::{self, MkfsError};
use crate::kernel::mount_table::{self, MountTable};
use crate::kernel::mounting::{self, MountError};
use crate::kernel::superblock::{self, Superblock};
use crate::kernel::{Attempt as _, Failed};
use crate::pool::{Busy, Pool, RecordError, StagingRecord, VolumeRecord};
use crate::volume::{Capability, FileSystem, VolumeId};

/// Why a volume is not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The volume has another file system than is asked for.
    #[error("the volume has {found}, and not the file system that is asked for")]
    FileSystem {
        /// What it has.
        found: &'static str,
    },
    /// It is staged at this path in another way.
    #[error("the volume is staged at {} with the mount options {flags:?}; unstage it first", .path.display())]
    Differs {
        /// The staging path.
        path: PathBuf,
        /// How it is staged.
        flags: Vec<String>,
    },
    /// It is in use from another staging path.
    #[error("the volume is mounted at {} already; unstage it there first", .0.display())]
    Elsewhere(PathBuf),
    /// Something else is mounted at the staging path.
    #[error("{} has another file system mounted on it ({file_system}); unmount it", .path.display())]
    Obstructed {
        /// The staging path.
        path: PathBuf,
        /// What is there.
        file_system: String,
    },
    /// The file system that was made is not there any more.
    #[error(
        "the image {} should hold {expected} and does not ({found:?}); it was left as it is: \
         restore the volume, or repair the image with {expected}'s tools", .image.display()
    )]
    Damaged {
        /// The image.
        image: PathBuf,
        /// The file system that was made.
        expected: &'static str,
        /// What is there now.
        found: Superblock,
    },
    /// The steps lead nowhere: something undoes them.
    #[error("the volume keeps changing while it is staged; is another program at work on it?")]
    Unsteady,
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No loop device.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A loop device that is wrong does not go.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// No file system.
    #[error(transparent)]
    Mkfs(#[from] MkfsError),
    /// The file system does not mount.
    #[error("{0} (if an option is wrong, mend mountOptions of the StorageClass or volume)")]
    Mount(#[from] MountError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for StageError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::FileSystem { .. } | Self::Elsewhere(_) => Code::FailedPrecondition,
            Self::Differs { .. } => Code::AlreadyExists,
            Self::Damaged { .. } => Code::DataLoss,
            Self::Record(RecordError::Failed(failed)) | Self::Failed(failed) => code_of(failed),
            Self::Obstructed { .. }
            | Self::Unsteady
            | Self::Record(RecordError::Damaged { .. } | RecordError::Newer { .. })
            | Self::Attach(_)
            | Self::Detach(_)
            | Self::Mkfs(_)
            | Self::Mount(_) => Code::Internal,
        }
    }
}

/// What is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Observed {
    /// The loop device, if there is one, and whether it has the right geometry.
    device: Option<Geometry>,
    /// Whether the image has a file system.
    formatted: bool,
    /// Whether anything was ever written to the image.
    written: bool,
    /// Whether it is mounted at the staging path.
    mounted: bool,
}

/// Whether a loop device is as it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Geometry {
    Right,
    Wrong,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Detach,
    Empty,
    Attach,
    Format,
    Mount,
    Done,
}

/// A file system is only made on an image in which nothing was ever written, so that all of it
/// reads as zeros; what an interrupted mkfs left is thrown away before.
fn next(observed: Observed) -> Step {
    let leavings = !observed.formatted && observed.written;
    match observed {
        Observed { mounted: true, .. } => Step::Done,
        Observed {
            device: Some(Geometry::Wrong),
            ..
        } => Step::Detach,
        Observed {
            device: Some(Geometry::Right),
            ..
        } if leavings => Step::Detach,
        Observed { device: None, .. } if leavings => Step::Empty,
        Observed { device: None, .. } => Step::Attach,
        Observed {
            formatted: false, ..
        } => Step::Format,
        Observed {
            formatted: true, ..
        } => Step::Mount,
    }
}

/// More steps than any state of things needs.
const MOST_STEPS: usize = 8;

/// Stages the volume at `path`, or finds it staged there.
pub fn stage(
    pool: &Pool,
    id: &VolumeId,
    path: &Path,
    capability: &Capability,
) -> Result<(), StageError> {
    let _lock = pool.locks.begin(id)?;
    let mut record = look_up(pool, id)?;
    if !capability.suits(record.file_system) {
        return Err(StageError::FileSystem {
            found: record.file_system.name(),
        });
    }
    let path = mount_table::resolved(path)?;
    let wanted = StagingRecord {
        path,
        mount_flags: capability.flags.clone(),
    };
    for _ in 0..MOST_STEPS {
        let device = pool.device(id)?;
        let observed = observe(pool, id, &record, device.as_ref(), &wanted)?;
        let step = next(observed);
        tracing::debug!(?observed, ?step, "staging");
        match (step, device) {
            (Step::Done, _) => return Ok(()),
            (Step::Attach, _) => {
                let image = pool.layout.image(id);
                failpoint::around("stage.attach", || loop_device::attach(&image))?;
            }
            (Step::Empty, _) => empty(&pool.layout.image(id), record.size_bytes)?,
            (Step::Detach, Some(device)) => device.detach()?,
            (Step::Format, Some(device)) => format(pool, id, &mut record, &device)?,
            (Step::Mount, Some(device)) => mount(pool, id, &record, device, &wanted, capability)?,
            // The device is gone since it was looked at: look again.
            (Step::Detach | Step::Format | Step::Mount, None) => {}
        }
    }
    Err(StageError::Unsteady)
}

fn observe(
    pool: &Pool,
    id: &VolumeId,
    record: &VolumeRecord,
    device: Option<&LoopDevice>,
    wanted: &StagingRecord,
) -> Result<Observed, StageError> {
    let table = MountTable::read()?;
    let number = device.map(LoopDevice::number);
    let mounted = match At::look(&table, &wanted.path, number) {
        At::Nothing => false,
        At::Volume(_) => true,
        At::Foreign(mount) => {
            let path = mount.point;
            return Err(StageError::Obstructed {
                path,
                file_system: mount.file_system,
            });
        }
    };
    let other = number.and_then(|number| table.of(number).find(|mount| mount.point != wanted.path));
    if mounted {
        match pool.layout.load_staging(id)? {
            Some(staged) if staged != *wanted => {
                return Err(StageError::Differs {
                    path: staged.path,
                    flags: staged.mount_flags,
                });
            }
            _ => {}
        }
    } else if let Some(mount) = other {
        return Err(StageError::Elsewhere(mount.point.clone()));
    }
    let geometry = match device.map(LoopDevice::is_as_attached).transpose()? {
        Some(true) => Some(Geometry::Right),
        Some(false) => Some(Geometry::Wrong),
        None => None,
    };
    let image = pool.layout.image(id);
    let metadata = image
        .symlink_metadata()
        .attempt(|| format!("look at {}", image.display()))?;
    let (formatted, written) = (record.formatted, metadata.blocks() > 0);
    Ok(Observed {
        device: geometry,
        formatted,
        written,
        mounted,
    })
}

/// Throws away what an interrupted mkfs left.
fn empty(image: &Path, size: u64) -> Result<(), Failed> {
    let attempt = || format!("empty {}", image.display());
    let file = OpenOptions::new()
        .write(true)
        .open(image)
        .attempt(attempt)?;
    file.set_len(0).attempt(attempt)?;
    file.set_len(size).attempt(attempt)?;
    file.sync_all().attempt(attempt)
}

/// Makes the file system, and only then writes down that there is one.
fn format(
    pool: &Pool,
    id: &VolumeId,
    record: &mut VolumeRecord,
    device: &LoopDevice,
) -> Result<(), StageError> {
    failpoint::around("stage.format", || match record.file_system {
        FileSystem::Ext4 => mkfs::ext4(device.path()),
        FileSystem::Xfs => mkfs::xfs(device.path()),
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

/// Mounts the file system, having made sure that it is the one that was made. When it does not
/// mount, nothing stays attached.
fn mount(
    pool: &Pool,
    id: &VolumeId,
    record: &VolumeRecord,
    device: LoopDevice,
    wanted: &StagingRecord,
    capability: &Capability,
) -> Result<(), StageError> {
    let result = try_mount(pool, id, record, &device, wanted, capability);
    if result.is_err()
        && let Err(stays) = device.detach()
    {
        tracing::warn!("a volume that did not mount stays attached: {stays}");
    }
    result
}

fn try_mount(
    pool: &Pool,
    id: &VolumeId,
    record: &VolumeRecord,
    device: &LoopDevice,
    wanted: &StagingRecord,
    capability: &Capability,
) -> Result<(), StageError> {
    let mut options = capability.options.clone();
    match (record.file_system, superblock::read(device.path())?) {
        (FileSystem::Ext4, Superblock::Ext4) => {}
        // Copies of a volume have its UUID, and each is to mount beside the others.
        (FileSystem::Xfs, Superblock::Xfs { .. }) => {
            options.file_system.push(("nouuid".to_owned(), None));
        }
        (expected, found) => {
            let image = pool.layout.image(id);
            return Err(StageError::Damaged {
                image,
                expected: expected.name(),
                found,
            });
        }
    }
    pool.layout.store_staging(id, wanted)?;
    let name = record.file_system.name();
    failpoint::around("stage.mount", || {
        mounting::mount_device(device.path(), name, &wanted.path, &options)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_things_leads_to_the_mount() {
        use Geometry::{Right, Wrong};
        for (device, formatted, written, step) in [
            (None, false, false, Step::Attach),
            (None, false, true, Step::Empty),
            (None, true, true, Step::Attach),
            (Some(Right), false, false, Step::Format),
            (Some(Right), false, true, Step::Detach),
            (Some(Right), true, true, Step::Mount),
            (Some(Right), true, false, Step::Mount),
            (Some(Wrong), false, false, Step::Detach),
            (Some(Wrong), true, true, Step::Detach),
        ] {
            let observed = Observed {
                device,
                formatted,
                written,
                mounted: false,
            };
            assert_eq!(next(observed), step, "{observed:?}");
            let mounted = Observed {
                mounted: true,
                ..observed
            };
            assert_eq!(next(mounted), Step::Done, "{mounted:?}");
        }
    }

    #[test]
    fn the_longest_way_has_fewer_steps_than_are_allowed() {
        let mut observed = Observed {
            device: Some(Geometry::Wrong),
            formatted: false,
            written: true,
            mounted: false,
        };
        let mut steps = 0;
        loop {
            match next(observed) {
                Step::Detach => observed.device = None,
                Step::Empty => observed.written = false,
                Step::Attach => observed.device = Some(Geometry::Right),
                Step::Format => (observed.formatted, observed.written) = (true, true),
                Step::Mount => observed.mounted = true,
                Step::Done => break,
            }
            steps += 1;
            assert!(steps < MOST_STEPS, "{observed:?}");
        }
    }

    #[test]
    fn a_formatted_image_is_never_emptied_or_formatted() {
        for device in [None, Some(Geometry::Right), Some(Geometry::Wrong)] {
            for (written, mounted) in [(false, false), (false, true), (true, false), (true, true)] {
                let step = next(Observed {
                    device,
                    formatted: true,
                    written,
                    mounted,
                });
                assert!(!matches!(step, Step::Empty | Step::Format), "{step:?}");
            }
        }
    }
}
