//! Where a pool's blocks come from: a directory that can do reflinks, or XFS made for the purpose
//! in a file or on a device, and mounted.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::mount::MountAttrFlags;

use crate::bytes::{Bytes, MIB};
use crate::kernel::loop_device::{self, AttachError, DetachError};
use crate::kernel::mount_table::MountTable;
use crate::kernel::mounting::{self, MountError, MountOptions};
use crate::kernel::superblock::{self, Superblock};
use crate::kernel::tools::{self, ToolError};
use crate::kernel::{Attempt as _, DeviceNumber, Failed, files, reflink};

/// The label by which a pool on a device is known again. XFS takes 12 characters.
const LABEL: &str = "fastcopypool";

/// The smallest pool that is made, in bytes: mkfs.xfs needs 300 MiB, and some is to be left.
pub const MINIMUM: u64 = 512 * MIB;

/// How long a predecessor may take to end before its pool counts as in use.
const HANDOVER: Duration = Duration::from_secs(30);

/// Where a pool's blocks come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolKind {
    /// The directory itself, on a file system with reflinks.
    Directory,
    /// XFS in a file `pool.img` in the directory.
    File {
        /// Its size in bytes, at least [`MINIMUM`].
        size: u64,
        /// Whether it may have holes, so that a write can find the disk full.
        sparse: bool,
    },
    /// XFS on a device.
    Device(PathBuf),
}

/// A pool's file system, in place.
#[derive(Debug)]
pub(super) struct Backing {
    /// The pool's directory.
    pub(super) root: PathBuf,
    /// Held locked as long as it is open.
    pub(super) exclusive: File,
}

/// Why a pool's file system is not there.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// The directory cannot do reflinks.
    #[error(
        "{} is on {file_system}, which has no reflinks; set --pool-size=20Gi (or another size) \
         for an XFS pool in a file there, or --pool-device, or --pool to a directory on XFS or \
         btrfs", .directory.display()
    )]
    NoReflinks {
        /// The directory.
        directory: PathBuf,
        /// Its file system's type.
        file_system: String,
    },
    /// The volumes are in a pool file, which the settings do not name.
    #[error("{} holds volumes already; set --pool-size, by which it was made", .0.display())]
    FileWithoutSize(PathBuf),
    /// The disk is too small for the pool.
    #[error(
        "{} has {} free, and a pool of {} needs that much; choose a smaller --pool-size",
        .directory.display(), Bytes(*.free), Bytes(*.size)
    )]
    TooLarge {
        /// The directory.
        directory: PathBuf,
        /// What it has, in bytes.
        free: u64,
        /// What it would take, in bytes.
        size: u64,
    },
    /// Not a device.
    #[error("--pool-device {} is not a block device", .0.display())]
    NoDevice(PathBuf),
    /// A device with something on it.
    #[error(
        "{} is not empty and not a pool of this driver, so it was left as it is; if nothing on it \
         is needed, clear it with `wipefs --all` ({reason})", .device.display()
    )]
    Occupied {
        /// The device.
        device: PathBuf,
        /// What mkfs found.
        reason: ToolError,
    },
    /// Another process has the pool.
    #[error("another process is using the pool at {}; end it first", .0.display())]
    InUse(PathBuf),
    /// Something else is mounted where the pool belongs.
    #[error("{} has another file system mounted on it ({file_system}); unmount it", .point.display())]
    Obstructed {
        /// The pool's mount point.
        point: PathBuf,
        /// What is there.
        file_system: String,
    },
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// No file system could be made.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// No loop device for the file.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A loop device that is wrong stays.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The file system does not mount.
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl BackingError {
    /// Whether other settings are what it takes.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::NoReflinks { .. }
            | Self::FileWithoutSize(_)
            | Self::TooLarge { .. }
            | Self::NoDevice(_)
            | Self::Occupied { .. } => true,
            Self::InUse(_)
            | Self::Obstructed { .. }
            | Self::Failed(_)
            | Self::Tool(_)
            | Self::Attach(_)
            | Self::Detach(_)
            | Self::Mount(_) => false,
        }
    }
}

/// Puts a pool's file system in place; whatever of it is there already is taken as it is.
pub(super) fn open(directory: &Path, kind: &PoolKind) -> Result<Backing, BackingError> {
    make_directory(directory)?;
    let directory = directory
        .canonicalize()
        .attempt(|| format!("find {}", directory.display()))?;
    let exclusive = lock(&directory)?;
    let root = match kind {
        PoolKind::Directory => in_directory(directory)?,
        PoolKind::File { size, sparse } => in_file(&directory, *size, *sparse)?,
        PoolKind::Device(device) => on_device(&directory, device)?,
    };
    Ok(Backing { root, exclusive })
}

fn make_directory(path: &Path) -> Result<(), Failed> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .attempt(|| format!("make {}", path.display()))
}

/// Two processes on one pool would promise the same space twice. The lock ends with the process,
/// however it ends.
fn lock(directory: &Path) -> Result<File, BackingError> {
    let path = directory.join("lock");
    let attempt = || format!("lock {}", path.display());
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).attempt(attempt)?;
    let deadline = Instant::now() + HANDOVER;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(BackingError::InUse(directory.to_owned()));
            }
            Err(error) => return Err(Failed::new(attempt(), error).into()),
        }
    }
}

fn in_directory(directory: PathBuf) -> Result<PathBuf, BackingError> {
    let file = directory.join("pool.img");
    if file.exists() {
        return Err(BackingError::FileWithoutSize(file));
    }
    if reflink::is_supported(&directory)? {
        return Ok(directory);
    }
    let table = MountTable::read()?;
    let file_system = table
        .holding(&directory)
        .map_or("an unknown file system", |mount| mount.file_system.as_str());
    Err(BackingError::NoReflinks {
        file_system: file_system.to_owned(),
        directory,
    })
}

fn in_file(directory: &Path, size: u64, sparse: bool) -> Result<PathBuf, BackingError> {
    let file = directory.join("pool.img");
    if sparse {
        tracing::warn!(
            "--pool-sparse: the pool's space is not reserved, and writes to volumes fail when the \
             disk under it fills up; for demonstrations and tests only"
        );
    }
    if let Ok(metadata) = file.symlink_metadata() {
        if metadata.len() != size {
            tracing::warn!(
                "the pool {} has {} and --pool-size says {}; a pool keeps the size it was made with",
                file.display(),
                Bytes(metadata.len()),
                Bytes(size)
            );
        }
        if !sparse {
            // A pool that was sparse once, or that was trimmed, has holes.
            allocate(&file, metadata.len(), metadata.blocks() * 512)?;
        }
    } else {
        make_file(&file, size, sparse)?;
    }
    let device = match loop_device::find(&file, Path::new("pool.img"))? {
        Some(device) if device.is_as_attached()? => device,
        Some(device) => {
            device.detach()?;
            loop_device::attach(&file)?
        }
        None => loop_device::attach(&file)?,
    };
    mount(directory, device.path(), device.number())
}

/// Makes the pool's file under another name, so that a file of the right name is complete.
fn make_file(file: &Path, size: u64, sparse: bool) -> Result<(), BackingError> {
    let temporary = files::temporary(file);
    let attempt = || format!("make {}", temporary.display());
    files::remove(&temporary)?;
    if !sparse {
        check_room(file, size, 0)?;
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let new = options.open(&temporary).attempt(attempt)?;
    new.set_len(size).attempt(attempt)?;
    if !sparse && let Err(error) = allocate(&temporary, size, 0) {
        files::remove(&temporary)?;
        return Err(error);
    }
    tools::make_xfs_pool(&temporary, LABEL)?;
    new.sync_all().attempt(attempt)?;
    std::fs::rename(&temporary, file).attempt(attempt)?;
    Ok(files::sync_directory(
        file.parent().unwrap_or(Path::new("/")),
    )?)
}

/// Finds out whether a file that has `taken` bytes can come to have `size`.
fn check_room(file: &Path, size: u64, taken: u64) -> Result<(), BackingError> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let free = files::free_space(directory)?;
    if free < size.saturating_sub(taken) {
        return Err(BackingError::TooLarge {
            directory: directory.to_owned(),
            free,
            size,
        });
    }
    Ok(())
}

/// Gives the file all blocks that it lacks, or says in time that there are too few.
fn allocate(file: &Path, size: u64, taken: u64) -> Result<(), BackingError> {
    check_room(file, size, taken)?;
    let attempt = || format!("allocate {} for {}", Bytes(size), file.display());
    let open = OpenOptions::new().write(true).open(file).attempt(attempt)?;
    rustix::fs::fallocate(&open, FallocateFlags::empty(), 0, size).attempt(attempt)?;
    Ok(())
}

fn on_device(directory: &Path, device: &Path) -> Result<PathBuf, BackingError> {
    let metadata = match device.metadata() {
        Ok(metadata) if metadata.file_type().is_block_device() => metadata,
        _ => return Err(BackingError::NoDevice(device.to_owned())),
    };
    match superblock::read(device)? {
        Superblock::Xfs { label, .. } if label == LABEL => {}
        Superblock::Xfs { .. } | Superblock::Ext4 { .. } | Superblock::Unknown => {
            // mkfs.xfs looks for every signature that blkid knows, and refuses if it finds one.
            tools::make_xfs_pool(device, LABEL).map_err(|error| match error {
                ToolError::Failed { .. } => BackingError::Occupied {
                    device: device.to_owned(),
                    reason: error,
                },
                ToolError::Missing(_) | ToolError::Start { .. } => error.into(),
            })?;
        }
    }
    mount(directory, device, DeviceNumber::from_dev(metadata.rdev()))
}

/// Mounts the pool at `pool` in the directory, unless it is mounted there already.
fn mount(directory: &Path, device: &Path, number: DeviceNumber) -> Result<PathBuf, BackingError> {
    let point = directory.join("pool");
    make_directory(&point)?;
    let table = MountTable::read()?;
    match table.at(&point) {
        Some(mount) if mount.device == number => return Ok(point),
        Some(mount) => {
            let file_system = mount.file_system.clone();
            return Err(BackingError::Obstructed { point, file_system });
        }
        None => {}
    }
    if table.holding(&point).is_some_and(|mount| !mount.shared) {
        tracing::info!(
            "{} is on a private mount: the pool will be seen in this mount namespace only; in a \
             container, give its volume mountPropagation: Bidirectional",
            directory.display()
        );
    }
    let options = MountOptions {
        attributes: MountAttrFlags::MOUNT_ATTR_NOATIME
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        file_system: Vec::new(),
    };
    mounting::mount_device(device, "xfs", &point, &options)?;
    Ok(point)
}
