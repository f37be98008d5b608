//! Loop devices: files as block devices.
//!
//! Every device made here has 4096-byte blocks and direct I/O, and both are read back. Left to
//! itself the kernel takes the block size from the file's history, and a file system made on the
//! one size does not mount on the other.
//!
//! A machine's loop devices are shared by all its programs, and on a test machine by several
//! drivers. So a device counts as ours only by the device and inode number of its backing file,
//! never by a path, and no other is changed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{Attempt as _, DeviceNumber, Failed, free_loop_device, raw};

/// The block size of every loop device here, in bytes. Images are multiples of it.
pub const BLOCK_SIZE: u32 = 4096;

/// How many loop devices there can be: as many as there are minor numbers.
pub const MOST: u64 = 1 << 20;

/// How often another program may be quicker to take the device that the kernel called free.
const ATTEMPTS: usize = 64;

/// How long a device that was told to detach may be held open by some passer-by (udev, blkid).
const DETACH_PATIENCE: Duration = Duration::from_secs(3);

/// A loop device that is bound to one of our files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopDevice {
    path: PathBuf,
    number: DeviceNumber,
    backing: FileIdentity,
}

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: DeviceNumber,
    inode: u64,
}

impl FileIdentity {
    fn of(path: &Path) -> Result<Self, Failed> {
        let metadata = path
            .symlink_metadata()
            .attempt(|| format!("look at {}", path.display()))?;
        Ok(Self {
            device: DeviceNumber::from_dev(metadata.dev()),
            inode: metadata.ino(),
        })
    }
}

/// Why a file is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The kernel took the call and did not do what it asked for.
    #[error(
        "{} has {block_size}-byte blocks and {} I/O where 4096-byte blocks and direct I/O are \
         needed; the file system that holds the pool must offer direct I/O",
        .device.display(), if *.direct_io { "direct" } else { "buffered" }
    )]
    Geometry {
        /// The device, already detached again.
        device: PathBuf,
        /// Its block size in bytes.
        block_size: u32,
        /// Whether it goes past the page cache.
        direct_io: bool,
    },
    /// Another program was quicker each time, or there are no nodes for the devices.
    #[error(
        "no loop device could be taken in {ATTEMPTS} attempts; is /dev the host's, or does some \
         program keep taking them?"
    )]
    Contended,
}

/// Why a device is still attached.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Somebody has it open. It detaches by itself when they close it.
    #[error("{} is still in use, by a mount or a process; end that, then retry", .0.display())]
    InUse(PathBuf),
}

/// The loop device that the file is attached to, if any.
///
/// `tail` is the end of the file's path that cannot look different in another mount namespace,
/// by which all other devices are left alone, unopened.
pub fn find(file: &Path, tail: &Path) -> Result<Option<LoopDevice>, Failed> {
    let backing = FileIdentity::of(file)?;
    let entries = std::fs::read_dir("/sys/block").attempt(|| "list /sys/block")?;
    for entry in entries {
        let name = entry.attempt(|| "list /sys/block")?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else {
            continue;
        };
        if backing_path(name).is_some_and(|path| path.ends_with(tail)) {
            let path = Path::new("/dev").join(name);
            if let Some(device) = inspect(path, backing)? {
                return Ok(Some(device));
            }
        }
    }
    Ok(None)
}

/// A loop device that is bound to some file, as sysfs shows it: unopened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Its node: `/dev/loop7`.
    pub path: PathBuf,
    /// Its number.
    pub number: DeviceNumber,
    /// The path of its file in the kernel's view. Only a hint, as for [`backing_path`].
    pub file: PathBuf,
}

/// All loop devices that are bound to a file.
pub fn all() -> Result<Vec<Bound>, Failed> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/sys/block").attempt(|| "list /sys/block")? {
        let name = entry.attempt(|| "list /sys/block")?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("loop")) else {
            continue;
        };
        let number = std::fs::read_to_string(format!("/sys/block/{name}/dev"));
        let number = number.ok().and_then(|text| DeviceNumber::parse(&text));
        if let (Some(number), Some(file)) = (number, backing_path(name)) {
            let path = Path::new("/dev").join(name);
            all.push(Bound { path, number, file });
        }
    }
    Ok(all)
}

impl Bound {
    /// The name of the folder that its file is in.
    pub fn folder(&self) -> Option<&str> {
        self.file.parent()?.file_name()?.to_str()
    }
}

/// A moment, unless the deadline has passed.
fn wait(path: &Path, deadline: Instant) -> Result<(), DetachError> {
    if Instant::now() >= deadline {
        return Err(DetachError::InUse(path.to_owned()));
    }
    thread::sleep(Duration::from_millis(5));
    Ok(())
}

/// The path of a device's file as the kernel tells it; `None` for a device that has none. Only a
/// hint: it is seen from our mount namespace, and a deleted file has a remark at its end.
fn backing_path(name: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
    Some(PathBuf::from(
        text.trim_end_matches('\n').trim_end_matches(" (deleted)"),
    ))
}

/// Whether the device of this number is bound to a file.
pub(super) fn is_bound(number: u32) -> bool {
    backing_path(&format!("loop{number}")).is_some()
}

/// Opens a loop device; `None` when there is none, or when it is just being detached.
fn open(options: &OpenOptions, path: &Path) -> io::Result<Option<File>> {
    match options.open(path) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Block size in bytes, and whether it goes past the page cache.
fn geometry(device: &File) -> io::Result<(u32, bool)> {
    let block_size = rustix::fs::ioctl_blksszget(device)?;
    let status = raw::loop_status(device)?;
    Ok((block_size, status.is_some_and(|status| status.direct_io)))
}

/// The device at `path` if it is bound to just this file.
fn inspect(path: PathBuf, backing: FileIdentity) -> Result<Option<LoopDevice>, Failed> {
    let attempt = || format!("read the status of {}", path.display());
    let Some(device) = open(File::options().read(true), &path).attempt(attempt)? else {
        return Ok(None);
    };
    let status = match raw::loop_status(&device) {
        // Its file system is gone; that of our file has just answered.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => None,
        status => status.attempt(attempt)?,
    };
    match status {
        Some(status) if (status.device, status.inode) == (backing.device, backing.inode) => {
            let metadata = device.metadata().attempt(attempt)?;
            let number = DeviceNumber::from_dev(metadata.rdev());
            Ok(Some(LoopDevice {
                path,
                number,
                backing,
            }))
        }
        _ => Ok(None),
    }
}

/// Attaches the file to a free loop device. The caller has made sure that it has none yet.
pub fn attach(file: &Path) -> Result<LoopDevice, AttachError> {
    let control = Path::new("/dev/loop-control");
    let control_file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(control)
        .attempt(|| format!("open {} (is /dev the host's?)", control.display()))?;
    let backing_file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(file)
        .attempt(|| format!("open {} for direct I/O", file.display()))?;
    let backing = FileIdentity::of(file)?;
    for _ in 0..ATTEMPTS {
        let path = free_loop_device::choose(&control_file)?;
        let attempt = || format!("attach {} to {}", file.display(), path.display());
        let options = File::options().read(true).write(true).clone();
        let Some(device) = open(&options, &path).attempt(attempt)? else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        match raw::loop_configure(&device, &backing_file, BLOCK_SIZE) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => continue,
            result => result.attempt(attempt)?,
        }
        // Whether a device can be written outlives its file: whoever had it before has to undo it,
        // and may have been killed.
        raw::set_read_only(&device, false).attempt(attempt)?;
        let metadata = device.metadata().attempt(attempt)?;
        let number = DeviceNumber::from_dev(metadata.rdev());
        let geometry = geometry(&device).attempt(attempt)?;
        drop(device);
        let attached = LoopDevice {
            path,
            number,
            backing,
        };
        return match geometry {
            (BLOCK_SIZE, true) => Ok(attached),
            (block_size, direct_io) => {
                let device = attached.path.clone();
                // The geometry is what needs telling; a device that stays is found and refused
                // again at the next attempt.
                let _ = attached.detach();
                Err(AttachError::Geometry {
                    device,
                    block_size,
                    direct_io,
                })
            }
        };
    }
    Err(AttachError::Contended)
}

impl LoopDevice {
    /// Its node: `/dev/loop7`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number, which is also the `st_dev` of a file system on it.
    pub fn number(&self) -> DeviceNumber {
        self.number
    }

    /// Whether it has the one geometry that [`attach`] gives.
    pub fn is_as_attached(&self) -> Result<bool, Failed> {
        let attempt = || format!("read the status of {}", self.path.display());
        match open(File::options().read(true), &self.path).attempt(attempt)? {
            Some(device) => Ok(geometry(&device).attempt(attempt)? == (BLOCK_SIZE, true)),
            None => Ok(false),
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> Result<u64, Failed> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/sys/block/{name}/size");
        let attempt = || format!("read {path}");
        let text = std::fs::read_to_string(&path).attempt(attempt)?;
        let sectors: u64 = text
            .trim()
            .parse()
            .map_err(io::Error::other)
            .attempt(attempt)?;
        Ok(sectors * 512)
    }

    /// Reads its first and its last block past all caches, to see whether its file still can be
    /// read.
    pub fn probe(&self) -> Result<(), Failed> {
        #[repr(align(4096))]
        struct Block([u8; BLOCK_SIZE as usize]);
        let attempt = || format!("read {}", self.path.display());
        let last = self.size()?.saturating_sub(u64::from(BLOCK_SIZE));
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECT);
        let device = options.open(&self.path).attempt(attempt)?;
        let mut block = Block([0; BLOCK_SIZE as usize]);
        device.read_exact_at(&mut block.0, 0).attempt(attempt)?;
        device.read_exact_at(&mut block.0, last).attempt(attempt)
    }

    /// Takes the present size of its file as its own, while it is in use.
    pub fn follow_size(&self) -> Result<(), Failed> {
        File::open(&self.path)
            .and_then(raw::loop_set_capacity)
            .attempt(|| format!("give {} its file's size", self.path.display()))
    }

    /// Has the kernel read ahead so many KiB of sequential readers.
    pub fn set_read_ahead(&self, kib: u32) -> Result<(), Failed> {
        File::open(&self.path)
            .and_then(|device| raw::set_read_ahead(device, kib.saturating_mul(2)))
            .attempt(|| format!("set the read-ahead of {}", self.path.display()))
    }

    /// Has the device, or lets it, be written. What is mounted on it is not asked.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), Failed> {
        File::open(&self.path)
            .and_then(|device| raw::set_read_only(device, read_only))
            .attempt(|| format!("change whether {} can be written", self.path.display()))
    }

    /// Whether a file system on it is mounted, in whatever mount namespace, or another program
    /// has claimed it for itself.
    pub fn is_claimed(&self) -> Result<bool, Failed> {
        let mut options = File::options();
        match open(options.read(true).custom_flags(libc::O_EXCL), &self.path) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(true),
            Err(error) => Err(Failed::new(format!("claim {}", self.path.display()), error)),
        }
    }

    /// Detaches it from its file, and returns when that is done. Detached already is fine.
    pub fn detach(self) -> Result<(), DetachError> {
        let attempt = || format!("detach {}", self.path.display());
        let deadline = Instant::now() + DETACH_PATIENCE;
        // A mount namespace that is just going still holds its mounts for a moment.
        while self.is_claimed()? {
            wait(&self.path, deadline)?;
        }
        {
            // While this descriptor is open the device cannot be bound to another file, so what
            // the status says still holds when it is cleared.
            let Some(device) = open(File::options().read(true), &self.path).attempt(attempt)?
            else {
                return Ok(());
            };
            match raw::loop_status(&device).attempt(attempt)? {
                Some(status) if self.is_bound_by(status) => {
                    raw::loop_clear(&device).attempt(attempt)?;
                }
                _ => return Ok(()),
            }
        }
        while self.is_attached() {
            wait(&self.path, deadline)?;
        }
        // For the next program that takes this device; ours see to it themselves.
        if let Ok(device) = File::open(&self.path) {
            let _ = raw::set_read_only(device, false);
        }
        Ok(())
    }

    fn is_bound_by(&self, status: raw::LoopStatus) -> bool {
        (status.device, status.inode) == (self.backing.device, self.backing.inode)
    }

    /// Whether it is bound to its file still. Asks sysfs first: to open the device would itself
    /// keep it from detaching.
    fn is_attached(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        backing_path(&name).is_some()
            && File::open(&self.path)
                .and_then(raw::loop_status)
                .is_ok_and(|status| status.is_some_and(|status| self.is_bound_by(status)))
    }
}
