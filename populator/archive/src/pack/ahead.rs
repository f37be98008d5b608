//! What comes next in a tree, looked at by several threads before it is packed: a small file costs system
//! calls more than anything else, and on a volume that was just mounted, waiting for the disk.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, pread};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::PackError;
use super::inode::{self, Inspection};
use super::walk::{Found, Walk};
use crate::entry::Metadata;

/// So many requests at a time does a disk serve well; processors have the less to do with it.
const THREADS: usize = 4;

/// The most that a file has which is read before its turn, in bytes.
const SMALL: u64 = 64 << 10;

/// So many things are looked at before their turn.
const DEPTH: usize = 64;

/// Bytes of memory that this takes.
pub(super) const MEMORY: u64 = DEPTH as u64 * SMALL + THREADS as u64 * inode::MEMORY;

/// Something of the tree, in order.
pub(super) struct Next {
    pub(super) found: Arc<Found>,
    pub(super) metadata: Metadata,
    /// What is in it, of a small file that has one name and no holes.
    pub(super) content: Option<SmallContent>,
}

/// All that is in a file.
pub(super) struct SmallContent {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: [u8; 32],
}

/// What a thread saw.
type Seen = Result<(Metadata, Option<SmallContent>), PackError>;

/// Something that waits for its turn.
struct Waiting {
    found: Arc<Found>,
    seen: Receiver<Seen>,
}

/// Something to look at.
struct Job {
    found: Arc<Found>,
    done: SyncSender<Seen>,
}

/// The tree, in order.
pub(super) struct Ahead {
    waiting: Receiver<Result<Waiting, PackError>>,
    /// Ends the threads, whatever they still have to do.
    _stop: DropGuard,
}

impl Ahead {
    /// Starts a thread that walks and some that look. They end with this, or with the walk.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        walk: Walk,
        cancel: &CancellationToken,
    ) -> Result<Self, PackError> {
        let failed = |error: io::Error| PackError::node(format!("starting a thread: {error}"));
        let stop = cancel.child_token();
        let (jobs, todo) = channel();
        let todo = Arc::new(Mutex::new(todo));
        for _ in 0..THREADS {
            let (todo, stop) = (Arc::clone(&todo), stop.clone());
            thread::Builder::new()
                .name("archive-look".into())
                .spawn_scoped(scope, move || look(&todo, &stop))
                .map_err(failed)?;
        }
        // With the one that a sender holds and the one that is being packed.
        let (sender, waiting) = sync_channel(DEPTH - 2);
        let (cancel, guard) = (stop.clone(), stop.drop_guard());
        thread::Builder::new()
            .name("archive-walk".into())
            .spawn_scoped(scope, move || go(walk, &jobs, &sender, &cancel))
            .map_err(failed)?;
        Ok(Self {
            waiting,
            _stop: guard,
        })
    }

    /// The next thing; none at the end.
    pub(super) fn next(&self) -> Result<Option<Next>, PackError> {
        let Ok(waiting) = self.waiting.recv() else {
            return Ok(None);
        };
        let Waiting { found, seen } = waiting?;
        let seen = seen.recv().map_err(|_| PackError::node("a thread died"))?;
        let (metadata, content) = seen?;
        Ok(Some(Next {
            found,
            metadata,
            content,
        }))
    }
}

/// The thread that walks.
fn go(
    mut walk: Walk,
    jobs: &Sender<Job>,
    sender: &SyncSender<Result<Waiting, PackError>>,
    cancel: &CancellationToken,
) {
    loop {
        let next = if cancel.is_cancelled() {
            Err(PackError::Cancelled)
        } else {
            walk.next()
        };
        let next = match next {
            Ok(None) => return,
            Ok(Some(found)) => {
                let found = Arc::new(found);
                let (done, seen) = sync_channel(1);
                let job = Job {
                    found: Arc::clone(&found),
                    done,
                };
                // If all who look have died, whoever waits learns it.
                let _ = jobs.send(job);
                Ok(Waiting { found, seen })
            }
            Err(error) => Err(error),
        };
        let failed = next.is_err();
        // Nobody waits any more when packing has failed.
        if sender.send(next).is_err() || failed {
            return;
        }
    }
}

/// A thread that looks at one thing after the other.
fn look(todo: &Mutex<Receiver<Job>>, stop: &CancellationToken) {
    let next = || {
        let todo = todo.lock().unwrap_or_else(PoisonError::into_inner);
        todo.recv().ok()
    };
    let mut inspection = Inspection::new();
    while let Some(Job { found, done }) = next() {
        let _ = done.send(if stop.is_cancelled() {
            Err(PackError::Cancelled)
        } else {
            see(&found, &mut inspection)
        });
    }
}

fn see(found: &Found, inspection: &mut Inspection) -> Seen {
    let metadata = inspection.metadata(found);
    let metadata = metadata.map_err(|errno| PackError::read(&found.path, errno))?;
    let content = is_small(found).then(|| read(found)).transpose()?;
    Ok((metadata, content))
}

fn is_small(found: &Found) -> bool {
    let stat = &found.stat;
    found.kind() == FileType::RegularFile
        && stat.st_nlink == 1
        && u64::try_from(stat.st_size).is_ok_and(|size| size <= SMALL)
        && stat.st_blocks.saturating_mul(512) >= stat.st_size
}

/// Reads a file that is as it was found, before and after.
fn read(found: &Found) -> Result<SmallContent, PackError> {
    let failed = |errno| PackError::read(&found.path, errno);
    let changed = || PackError::changed(&found.path);
    let file = inode::open(found).map_err(failed)?;
    let opened = fstat(&file).map_err(failed)?;
    if !inode::is_unchanged(&found.stat, &opened) {
        return Err(changed());
    }
    let size = usize::try_from(opened.st_size).unwrap_or_default();
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match pread(&file, &mut bytes[filled..], filled as u64) {
            Ok(0) => return Err(changed()),
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    if !inode::is_unchanged(&opened, &fstat(&file).map_err(failed)?) {
        return Err(changed());
    }
    let digest = blake3::hash(&bytes).into();
    Ok(SmallContent { bytes, digest })
}
