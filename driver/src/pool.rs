//! The pool: a directory with one image file per volume, and the books of what is promised.

mod backing;
mod books;
mod layout;
mod locks;
mod records;
mod recovery;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::kernel::loop_device::{self, DetachError, LoopDevice};
use crate::kernel::{Attempt as _, Failed, files};
use crate::volume::{NodeName, VolumeId};

pub use backing::{BackingError, MINIMUM as MINIMUM_POOL, PoolKind};
pub use books::{AdmissionError, Books, available};
pub use layout::Layout;
pub use locks::{Busy, Locks, VolumeLock};
pub use records::{RecordError, StagingRecord, VolumeRecord};

/// What a pool is, and on which node.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The directory that holds the pool, or in which its file system is mounted.
    pub directory: PathBuf,
    /// Where its blocks come from.
    pub kind: PoolKind,
    /// The node that volumes of this pool live on.
    pub node: NodeName,
}

/// An open pool. One process has it open at a time.
#[derive(Debug)]
pub struct Pool {
    /// Where things are.
    pub layout: Layout,
    /// What is promised.
    pub books: Books,
    /// Who is at work on which volume.
    pub locks: Locks,
    /// The node that its volumes live on.
    pub node: NodeName,
    /// Keeps other processes out until this one ends.
    _exclusive: File,
}

/// Why a pool does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file system is not there.
    #[error(transparent)]
    Backing(#[from] BackingError),
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl OpenError {
    /// Whether other settings are what it takes.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Backing(error) => error.is_configuration(),
            Self::Failed(_) => false,
        }
    }
}

/// Why the leavings of a volume are still there.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Its loop device does not detach.
    #[error(transparent)]
    Detach(#[from] DetachError),
}

impl Pool {
    /// Opens a pool, making what is not there yet, and clears away what a crash left half made.
    pub fn open(settings: &PoolSettings) -> Result<Self, OpenError> {
        let backing = backing::open(&settings.directory, &settings.kind)?;
        let layout = Layout::new(backing.root);
        let volumes = layout.volumes();
        std::fs::create_dir_all(&volumes).attempt(|| format!("make {}", volumes.display()))?;
        files::sync_directory(layout.root())?;
        let pool = Self {
            layout,
            books: Books::default(),
            locks: Locks::default(),
            node: settings.node.clone(),
            _exclusive: backing.exclusive,
        };
        recovery::run(&pool)?;
        Ok(pool)
    }

    /// Bytes that volumes may fill in all: what is free, and what their images have taken.
    ///
    /// Whatever else lies on the pool's file system is thereby left out. The images are looked at
    /// first: what they take meanwhile makes the sum too small, never too large.
    pub fn capacity(&self) -> Result<u64, Failed> {
        let volumes = self.layout.volumes();
        let attempt = || format!("list {}", volumes.display());
        let mut taken = 0;
        for entry in std::fs::read_dir(&volumes).attempt(attempt)? {
            let image = entry.attempt(attempt)?.path().join("image");
            match image.symlink_metadata() {
                Ok(metadata) => taken += metadata.blocks() * 512,
                // A volume that goes at this moment; its blocks are free when that is asked for.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failed::new(format!("look at {}", image.display()), error));
                }
            }
        }
        Ok(files::free_space(self.layout.root())? + taken)
    }

    /// The size of the largest volume that can be made now, in bytes.
    pub fn available(&self) -> Result<u64, Failed> {
        let (promised, _) = self.books.totals();
        Ok(available(self.capacity()?, promised))
    }

    /// The loop device of a volume; `None` when it has none, or when there is no such volume.
    pub fn device(&self, id: &VolumeId) -> Result<Option<LoopDevice>, Failed> {
        match loop_device::find(&self.layout.image(id), &Layout::image_tail(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result,
        }
    }

    /// Removes all that is left of a volume whose record is gone, or was never written.
    ///
    /// Only the files that volumes have are removed: with anything else in its directory, that
    /// stays, and this fails.
    pub fn clear(&self, id: &VolumeId) -> Result<(), ClearError> {
        if let Some(device) = self.device(id)? {
            device.detach()?;
        }
        let image = self.layout.image(id);
        match OpenOptions::new().write(true).open(&image) {
            // XFS frees an unlinked file's blocks some time later; a truncated one's at once. The
            // next volume may need them now.
            Ok(file) => file
                .set_len(0)
                .attempt(|| format!("empty {}", image.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failed::new(format!("open {}", image.display()), error).into());
            }
        }
        let record = self.layout.record(id);
        let staging = self.layout.staging(id);
        let temporary = [files::temporary(&record), files::temporary(&staging)];
        for file in [image, staging].iter().chain(&temporary) {
            files::remove(file)?;
        }
        files::remove_directory(&self.layout.folder(id))?;
        files::sync_directory(&self.layout.volumes())?;
        self.books.release(id);
        Ok(())
    }

    /// Finds out whether the pool can really be written, durably. Leaves nothing behind.
    pub fn probe(&self) -> Result<(), Failed> {
        files::nameless(self.layout.root())
            .and_then(|mut file| file.write_all(&[1; 4096]).and_then(|()| file.sync_all()))
            .attempt(|| format!("write to the pool at {}", self.layout.root().display()))
    }
}
