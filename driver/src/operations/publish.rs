//! Publishing a volume: what is staged is shown at one more directory.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;
use tonic::Code;

use super::validate::{LookupError, look_up};
use super::{At, Coded, code_of};
use crate::failpoint;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{self, MountTable};
use crate::kernel::mounting::{self, MountError};
use crate::kernel::{Attempt as _, Failed, files};
use crate::pool::{Busy, Pool};
use crate::volume::{Capability, VolumeId};

/// Why a volume is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
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
    /// It is not staged at the staging path.
    #[error("the volume is not staged at {}; stage it first", .0.display())]
    NotStaged(PathBuf),
    /// It is published there in another way.
    #[error("the volume is published at {} with other options; unpublish it first", .0.display())]
    Differs(PathBuf),
    /// Something else is mounted at the target.
    #[error("{} has another file system mounted on it ({file_system}); unmount it", .path.display())]
    Obstructed {
        /// The target.
        path: PathBuf,
        /// What is there.
        file_system: String,
    },
    /// The target is there, and is no directory.
    #[error("{} is not a directory; remove it", .0.display())]
    NotDirectory(PathBuf),
    /// The mount was refused.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for PublishError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::FileSystem { .. } | Self::NotStaged(_) => Code::FailedPrecondition,
            Self::Differs(_) => Code::AlreadyExists,
            Self::Obstructed { .. } | Self::NotDirectory(_) | Self::Mount(_) => Code::Internal,
            Self::Failed(failed) => code_of(failed),
        }
    }
}

/// How a volume is to be published.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where it is staged.
    pub staging: PathBuf,
    /// Where it is to be shown.
    pub target: PathBuf,
    /// How it is to be used.
    pub capability: Capability,
    /// Whether nobody may write through this target.
    pub read_only: bool,
}

impl Publication {
    /// The attributes that the mount at the target shall have.
    fn attributes(&self) -> MountAttrFlags {
        let mut attributes = self.capability.options.attributes;
        if self.read_only || self.capability.read_only {
            attributes.insert(MountAttrFlags::MOUNT_ATTR_RDONLY);
        }
        attributes
    }
}

/// What is at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Absent,
    Directory,
    Published(MountAttrFlags),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    MakeDirectory,
    Bind,
    Done,
    Refuse,
}

fn next(target: Target, wanted: MountAttrFlags) -> Step {
    match target {
        Target::Absent => Step::MakeDirectory,
        Target::Directory => Step::Bind,
        Target::Published(attributes) if attributes == wanted => Step::Done,
        Target::Published(_) => Step::Refuse,
    }
}

/// Publishes the volume, or finds it published so.
pub fn publish(pool: &Pool, id: &VolumeId, wanted: &Publication) -> Result<(), PublishError> {
    let _lock = pool.locks.begin(id)?;
    let record = look_up(pool, id)?;
    if !wanted.capability.suits(record.file_system) {
        return Err(PublishError::FileSystem {
            found: record.file_system.name(),
        });
    }
    let not_staged = || PublishError::NotStaged(wanted.staging.clone());
    let device = pool.device(id)?.ok_or_else(not_staged)?;
    let staging = mount_table::existing(&wanted.staging)?.ok_or_else(not_staged)?;
    let target = mount_table::resolved(&wanted.target)?;
    let mut made = false;
    loop {
        let step = next(
            observe(&device, &staging, &target, wanted)?,
            wanted.attributes(),
        );
        tracing::debug!(?step, "publishing");
        match step {
            Step::Done => return Ok(()),
            Step::Refuse => return Err(PublishError::Differs(target)),
            Step::MakeDirectory => {
                let mut builder = std::fs::DirBuilder::new();
                builder.mode(0o750);
                builder
                    .create(&target)
                    .attempt(|| format!("make {}", target.display()))?;
                made = true;
            }
            Step::Bind => {
                let attributes = wanted.attributes();
                let bound = failpoint::around("publish.bind", || {
                    mounting::bind(&staging, device.number(), &target, attributes)
                });
                if bound.is_err() && made {
                    files::remove_directory(&target)?;
                }
                bound?;
            }
        }
    }
}

fn observe(
    device: &LoopDevice,
    staging: &Path,
    target: &Path,
    wanted: &Publication,
) -> Result<Target, PublishError> {
    let table = MountTable::read()?;
    match At::look(&table, staging, Some(device.number())) {
        At::Volume(_) => {}
        At::Nothing | At::Foreign(_) => {
            return Err(PublishError::NotStaged(wanted.staging.clone()));
        }
    }
    match At::look(&table, target, Some(device.number())) {
        At::Volume(mount) => return Ok(Target::Published(mount.attributes)),
        At::Foreign(mount) => {
            let path = mount.point;
            return Err(PublishError::Obstructed {
                path,
                file_system: mount.file_system,
            });
        }
        At::Nothing => {}
    }
    match target.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(Target::Directory),
        Ok(_) => Err(PublishError::NotDirectory(target.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Target::Absent),
        Err(error) => Err(Failed::new(format!("look at {}", target.display()), error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_made_then_bound_and_never_changed() {
        let writable = MountAttrFlags::empty();
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        for (target, wanted, step) in [
            (Target::Absent, writable, Step::MakeDirectory),
            (Target::Directory, writable, Step::Bind),
            (Target::Published(writable), writable, Step::Done),
            (Target::Published(read_only), read_only, Step::Done),
            (Target::Published(writable), read_only, Step::Refuse),
            (Target::Published(read_only), writable, Step::Refuse),
        ] {
            assert_eq!(next(target, wanted), step, "{target:?}");
        }
    }
}
