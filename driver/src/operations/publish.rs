//! Publishing a volume: what is staged is shown at one more place, a directory for a file system
//! and a file for a block device.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;
use tonic::Code;

use super::validate::{LookupError, look_up};
use super::{At, Coded};
use crate::failpoint;
use crate::kernel::loop_device::LoopDevice;
use crate::kernel::mount_table::{self, MountTable};
use crate::kernel::mounting::{self, MountError};
use crate::kernel::{Attempt as _, Failed, files};
use crate::pool::{Busy, Pool, RecordError, StagingRecord};
use crate::volume::{Access, Capability, VolumeId};

/// Why a volume is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another operation is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such volume, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The volume has another file system than is asked for, or none.
    #[error("the volume has {found}, and that is not what is asked for")]
    Content {
        /// What it has.
        found: &'static str,
    },
    /// It is not staged at the staging path.
    #[error("the volume is not staged at {}; stage it first", .0.display())]
    NotStaged(PathBuf),
    /// It is published elsewhere, and may not be twice.
    #[error(
        "the volume is published at {} already, and may be shown at one target at a time; \
         unpublish it there first, or use the access mode SINGLE_NODE_MULTI_WRITER", .0.display()
    )]
    OneTarget(PathBuf),
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
    /// The target is there, and is of the wrong kind.
    #[error("{} is not an empty file or a directory, as it has to be; remove it", .0.display())]
    WrongKind(PathBuf),
    /// How it was staged cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
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
            Self::Content { .. } | Self::NotStaged(_) | Self::OneTarget(_) => {
                Code::FailedPrecondition
            }
            Self::Differs(_) => Code::AlreadyExists,
            Self::Obstructed { .. } | Self::WrongKind(_) | Self::Mount(_) => Code::Internal,
            Self::Record(error) => error.code(),
            Self::Failed(failed) => failed.code(),
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

/// What the mount at a target has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A directory, with just these attributes.
    Directory(MountAttrFlags),
    /// A file: the device's node. A mount cannot keep anybody from writing to a device; where one
    /// target of several is to be read-only, kubelet gives the container the device so.
    Node,
}

impl Publication {
    /// What was staged for reading only is published so, whatever is asked for here.
    fn shape(&self, staged: &StagingRecord) -> Shape {
        match &self.capability.access {
            Access::Block => Shape::Node,
            Access::Mount { options, .. } => {
                let mut attributes = options.attributes;
                if self.read_only || self.capability.read_only || staged.read_only {
                    attributes.insert(MountAttrFlags::MOUNT_ATTR_RDONLY);
                }
                Shape::Directory(attributes)
            }
        }
    }
}

/// What is at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Absent,
    Directory,
    File,
    Published(Shape),
    Other,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Make,
    Bind,
    Done,
    Refuse,
    Obstructed,
}

fn next(target: Target, wanted: Shape) -> Step {
    match (target, wanted) {
        (Target::Absent, _) => Step::Make,
        (Target::Directory, Shape::Directory(_)) | (Target::File, Shape::Node) => Step::Bind,
        (Target::Published(found), wanted) if found == wanted => Step::Done,
        (Target::Published(_), _) => Step::Refuse,
        (Target::Directory, Shape::Node)
        | (Target::File, Shape::Directory(_))
        | (Target::Other, _) => Step::Obstructed,
    }
}

/// Publishes the volume, or finds it published so.
pub fn publish(pool: &Pool, id: &VolumeId, wanted: &Publication) -> Result<(), PublishError> {
    let _lock = pool.locks.begin(id)?;
    let record = look_up(pool, id)?;
    if !wanted.capability.suits(record.file_system) {
        return Err(PublishError::Content {
            found: record.content_name(),
        });
    }
    let not_staged = || PublishError::NotStaged(wanted.staging.clone());
    let device = pool.device(id)?.ok_or_else(not_staged)?;
    let staging = mount_table::existing(&wanted.staging)?.ok_or_else(not_staged)?;
    let staged: StagingRecord = pool.layout.load(id)?.ok_or_else(not_staged)?;
    if staged.path != staging {
        return Err(not_staged());
    }
    let shape = wanted.shape(&staged);
    let target = mount_table::resolved(&wanted.target)?;
    let mut made = false;
    loop {
        let table = MountTable::read()?;
        let found = observe(&table, &device, &staging, &target, shape)?;
        let step = next(found, shape);
        tracing::debug!(?found, ?step, "publishing");
        match step {
            Step::Done => return Ok(()),
            Step::Refuse => return Err(PublishError::Differs(target)),
            Step::Obstructed => return Err(PublishError::WrongKind(target)),
            Step::Make => {
                check_others(&table, &device, &staged, &target, &wanted.capability)?;
                make(&target, shape)?;
                made = true;
            }
            Step::Bind => {
                check_others(&table, &device, &staged, &target, &wanted.capability)?;
                let bound = failpoint::around("publish.bind", || match shape {
                    Shape::Directory(attributes) => {
                        mounting::bind(&staging, device.number(), &target, attributes)
                    }
                    Shape::Node => mounting::bind_node(device.path(), device.number(), &target),
                });
                if bound.is_err() && made {
                    match shape {
                        Shape::Directory(_) => files::remove_directory(&target)?,
                        Shape::Node => files::remove(&target)?,
                    }
                }
                bound?;
            }
        }
    }
}

/// One target at a time, unless the volume was staged to be shared and is asked for so.
fn check_others(
    table: &MountTable,
    device: &LoopDevice,
    staged: &StagingRecord,
    target: &Path,
    capability: &Capability,
) -> Result<(), PublishError> {
    if staged.shared && capability.shared {
        return Ok(());
    }
    let mut others = table.showing(device.path(), device.number());
    match others.find(|mount| mount.point != staged.path && mount.point != target) {
        Some(mount) => Err(PublishError::OneTarget(mount.point.clone())),
        None => Ok(()),
    }
}

fn make(target: &Path, shape: Shape) -> Result<(), Failed> {
    let attempt = || format!("make {}", target.display());
    match shape {
        Shape::Directory(_) => std::fs::DirBuilder::new()
            .mode(0o750)
            .create(target)
            .attempt(attempt),
        Shape::Node => OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(target)
            .attempt(attempt)
            .map(drop),
    }
}

fn observe(
    table: &MountTable,
    device: &LoopDevice,
    staging: &Path,
    target: &Path,
    shape: Shape,
) -> Result<Target, PublishError> {
    if let Shape::Directory(_) = shape {
        match At::look(table, staging, Some(device.number())) {
            At::Volume(_) => {}
            At::Nothing | At::Foreign(_) => {
                return Err(PublishError::NotStaged(staging.to_owned()));
            }
        }
    }
    match table.at(target) {
        Some(mount) if mount.device == device.number() => {
            return Ok(Target::Published(Shape::Directory(mount.attributes)));
        }
        Some(mount) if mount_table::is_node(&mount.point, device.number()) => {
            return Ok(Target::Published(Shape::Node));
        }
        Some(mount) => {
            return Err(PublishError::Obstructed {
                path: mount.point.clone(),
                file_system: mount.file_system.clone(),
            });
        }
        None => {}
    }
    match target.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(Target::Directory),
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Ok(Target::File),
        Ok(_) => Ok(Target::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Target::Absent),
        Err(error) => Err(Failed::new(format!("look at {}", target.display()), error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_made_then_bound_and_never_changed() {
        let writable = Shape::Directory(MountAttrFlags::empty());
        let read_only = Shape::Directory(MountAttrFlags::MOUNT_ATTR_RDONLY);
        for (target, wanted, step) in [
            (Target::Absent, writable, Step::Make),
            (Target::Absent, Shape::Node, Step::Make),
            (Target::Directory, writable, Step::Bind),
            (Target::File, Shape::Node, Step::Bind),
            (Target::Directory, Shape::Node, Step::Obstructed),
            (Target::File, writable, Step::Obstructed),
            (Target::Other, Shape::Node, Step::Obstructed),
            (Target::Published(writable), writable, Step::Done),
            (Target::Published(read_only), read_only, Step::Done),
            (Target::Published(Shape::Node), Shape::Node, Step::Done),
            (Target::Published(writable), read_only, Step::Refuse),
            (Target::Published(read_only), writable, Step::Refuse),
        ] {
            assert_eq!(next(target, wanted), step, "{target:?}");
        }
    }
}
