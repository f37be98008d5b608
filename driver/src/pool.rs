//! The pool: a directory with one image file per volume, and the books of what is promised.

mod backing;
mod books;
mod fragments;
mod freezes;
mod layout;
mod locks;
mod records;
mod recovery;
mod space;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::kernel::loop_device::{self, DetachError, LoopDevice};
use crate::kernel::{Attempt as _, Failed, files, reflink};
use crate::volume::{GroupId, NodeName, SnapshotId, VolumeId};

pub use backing::{BackingError, MINIMUM as MINIMUM_POOL, PoolKind};
pub use books::{AdmissionError, Books, Policy, Promise, Totals};
pub use fragments::Fragments;
pub use freezes::Freezes;
pub use layout::Layout;
pub use locks::{Busy, Lock, Locks};
pub use records::{
    AttachmentRecord, GroupRecord, Intent, Member, Record, RecordError, SnapshotRecord, Source,
    StagingRecord, VolumeRecord,
};

/// What btrfs may need for itself, in hundredths: it writes its metadata twice, gives them space
/// in large pieces, and has about 0.6 KiB of them for every 4 KiB that lie by themselves.
const BTRFS_MARGIN_PERCENT: u64 = 20;

/// What a pool is, and on which node.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// The directory that holds the pool, or in which its file system is mounted.
    pub directory: PathBuf,
    /// Where its blocks come from.
    pub kind: PoolKind,
    /// The node that volumes of this pool live on.
    pub node: NodeName,
    /// How far promises may go.
    pub policy: Policy,
    /// Whether volumes are attached before they are staged.
    pub attach: bool,
    /// How many volumes may be in use at once, where that is less than the machine can have.
    pub max_volumes: Option<u64>,
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
    /// Whether volumes are attached before they are staged.
    pub attach: bool,
    /// Held while attached volumes are counted and one more is written down.
    pub attaching: Mutex<()>,
    /// Held while what is pinned is measured, but for the first time.
    measuring: Mutex<()>,
    /// How many volumes may be in use at once, where that is less than the machine can have.
    pub max_volumes: Option<u64>,
    /// For how long volumes were frozen.
    pub freezes: Freezes,
    /// In how many extents volumes lie.
    pub fragments: Fragments,
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
        for folder in [layout.volumes(), layout.snapshots(), layout.groups()] {
            if !folder.exists() {
                std::fs::create_dir(&folder).attempt(|| format!("make {}", folder.display()))?;
                reflink::write_in_place(&folder)?;
            }
        }
        files::sync_directory(layout.root())?;
        let mut policy = settings.policy;
        if reflink::is_btrfs(layout.root())? {
            policy.margin_percent = BTRFS_MARGIN_PERCENT;
        }
        let pool = Self {
            layout,
            books: Books::new(policy),
            locks: Locks::default(),
            node: settings.node.clone(),
            attach: settings.attach,
            attaching: Mutex::default(),
            measuring: Mutex::default(),
            max_volumes: settings.max_volumes,
            freezes: Freezes::default(),
            fragments: Fragments::default(),
            _exclusive: backing.exclusive,
        };
        recovery::run(&pool)?;
        Ok(pool)
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
        let layout = &self.layout;
        let records = [
            layout.record(id),
            layout.staging(id),
            layout.attachment(id),
            layout.intent(id),
        ];
        clear_folder(&layout.folder(id), &records)?;
        self.books.release(id);
        self.fragments.forget(id);
        Ok(())
    }

    /// Removes all that is left of a snapshot whose record is gone, or was never written.
    pub fn clear_snapshot(&self, id: &SnapshotId) -> Result<(), Failed> {
        let layout = &self.layout;
        let records = [layout.snapshot_record(id), layout.snapshot_intent(id)];
        clear_folder(&layout.snapshot_folder(id), &records)?;
        self.books.loosen();
        Ok(())
    }

    /// Removes all that is left of a group whose snapshots are gone.
    pub fn clear_group(&self, id: &GroupId) -> Result<(), Failed> {
        let layout = &self.layout;
        let records = [layout.group_record(id), layout.group_intent(id)];
        clear_folder(&layout.group_folder(id), &records)
    }

    /// Finds out whether the pool can really be written, durably. Leaves nothing behind.
    pub fn probe(&self) -> Result<(), Failed> {
        files::nameless(self.layout.root())
            .and_then(|mut file| file.write_all(&[1; 4096]).and_then(|()| file.sync_all()))
            .attempt(|| format!("write to the pool at {}", self.layout.root().display()))
    }
}

/// Removes a folder with its image and these records, and nothing else: with another file in it,
/// it stays, and this fails.
fn clear_folder(folder: &Path, records: &[PathBuf]) -> Result<(), Failed> {
    let image = folder.join("image");
    match OpenOptions::new().write(true).open(&image) {
        // XFS frees an unlinked file's blocks some time later; a truncated one's at once. The
        // next volume may need them now.
        Ok(file) => file
            .set_len(0)
            .attempt(|| format!("empty {}", image.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failed::new(format!("open {}", image.display()), error)),
    }
    files::remove(&image)?;
    for record in records {
        files::remove(record)?;
        files::remove(&files::temporary(record))?;
    }
    files::remove_directory(folder)?;
    files::sync_directory(folder.parent().unwrap_or(Path::new("/")))
}
