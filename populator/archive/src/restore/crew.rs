//! Small files, which several threads make and write: what they take is mostly system calls, one file
//! no longer than another, and a direct write waits for the disk.
//!
//! Files are handed over in the archive's order and made in any. So whatever depends on one of them,
//! by its path or as a link to it, first waits until the [`Crew`] has settled.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::fs::syncfs;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::content::{self, Aligned};
use super::metadata;
use super::pieces::ALIGNMENT;
use super::place::Place;
use super::root;
use crate::entry::Metadata;
use crate::error::RestoreError;
use crate::outcome::Losses;
use crate::progress::Progress;

/// Bytes of memory that files may take which wait to be written or are being written.
pub(super) const MEMORY: u64 = 1 << 20;

/// What a file counts besides its content, name and attributes, so that no more than 64 wait, each with
/// a directory that is kept open.
const OVERHEAD: usize = 16 << 10;

/// More do not help one disk.
const THREADS_MAX: usize = 4;

/// Bytes of files that may be dirty in the page cache before one of the threads writes them out, while
/// the others go on until there are as many again: a volume is busy from early on, and a container's memory
/// is not filled.
const DIRTY_MAX: u64 = 32 << 20;

/// A file that is to be made, with all that is known of it.
pub(super) struct SmallFile {
    pub(super) parent: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    /// The whole name, for messages.
    pub(super) shown: Vec<u8>,
    pub(super) metadata: Metadata,
    pub(super) content: Aligned,
}

impl SmallFile {
    fn cost(&self) -> usize {
        let xattrs = self.metadata.xattrs.iter();
        let xattrs: usize = xattrs.map(|it| it.name.len() + it.value.len()).sum();
        OVERHEAD + self.content.capacity() + self.name.len() + self.shown.len() + xattrs
    }
}

/// The threads, and what they have to do.
pub(super) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the threads: there is a file, or the end.
    work: Condvar,
    /// For who hands files over: what it waits for has come.
    done: Condvar,
    /// Whether a directory was removed to make room for a file.
    removed_directory: AtomicBool,
    /// Whether this file system has not refused direct writes yet.
    direct: AtomicBool,
    /// Bytes in the page cache since the last time that it was written out.
    dirty: AtomicU64,
    /// Held while it is.
    writing_out: Mutex<()>,
    lost: Mutex<Losses>,
    progress: Arc<Progress>,
    cancel: CancellationToken,
}

#[derive(Default)]
struct Queue {
    files: VecDeque<SmallFile>,
    /// Of those that wait and of those that are being written.
    cost: usize,
    /// Threads that wait for a file.
    idle: usize,
    /// Whoever hands files over waits until they take no more than this.
    awaited: Option<usize>,
    failed: Option<RestoreError>,
    closed: bool,
}

impl Crew {
    /// Starts as many threads as there are processors to run them, and one that may wait for the disk.
    pub(super) fn start(
        progress: &Arc<Progress>,
        cancel: &CancellationToken,
    ) -> Result<Self, RestoreError> {
        let mut crew = Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                work: Condvar::new(),
                done: Condvar::new(),
                removed_directory: AtomicBool::new(false),
                direct: AtomicBool::new(true),
                dirty: AtomicU64::new(0),
                writing_out: Mutex::new(()),
                lost: Mutex::default(),
                progress: Arc::clone(progress),
                cancel: cancel.clone(),
            }),
            threads: Vec::new(),
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..=processors.min(THREADS_MAX) {
            let shared = Arc::clone(&crew.shared);
            let thread = thread::Builder::new()
                .name("archive-write".into())
                .spawn(move || shared.run())
                .map_err(|error| RestoreError::NodeError {
                    what: format!("starting a thread: {error}"),
                })?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// Hands a file over; waits while there are too many. Fails as soon as any file has failed.
    pub(super) fn hand_over(&self, file: SmallFile) -> Result<(), RestoreError> {
        let cost = file.cost();
        let most = usize::try_from(MEMORY).unwrap_or(usize::MAX);
        let queue = self.shared.lock();
        let room = match queue.cost + cost {
            all if all <= most => 0,
            // Many of them, so that it is not woken for each.
            _ if cost < most / 16 => most / 2,
            // One of any size goes alone.
            _ => cost.min(most),
        };
        let mut queue = self.wait_until(queue, most - room)?;
        queue.cost += cost;
        queue.files.push_back(file);
        let is_awaited = queue.idle > 0;
        drop(queue);
        if is_awaited {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Waits until every file is made. Says whether a directory made room for one.
    pub(super) fn settle(&self) -> Result<bool, RestoreError> {
        drop(self.wait_until(self.shared.lock(), 0)?);
        Ok(self.shared.removed_directory.swap(false, Ordering::Relaxed))
    }

    /// What was lost since it was asked last.
    pub(super) fn lost(&self) -> Losses {
        let lost = self.shared.lost.lock();
        std::mem::take(&mut *lost.unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until all files take no more than this.
    fn wait_until<'q>(
        &self,
        mut queue: MutexGuard<'q, Queue>,
        cost: usize,
    ) -> Result<MutexGuard<'q, Queue>, RestoreError> {
        loop {
            queue.awaited = None;
            if let Some(error) = queue.failed.take() {
                return Err(error);
            }
            if queue.cost <= cost {
                return Ok(queue);
            }
            queue.awaited = Some(cost);
            let waited = self.shared.done.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Crew {
    /// Nothing of a restore goes on when it has ended.
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // Whatever it has to say, something else went wrong before.
            let _ = thread.join();
        }
    }
}

/// A file being written; dropped, it is done, also by a panic.
struct Turn<'a> {
    shared: &'a Shared,
    cost: usize,
    result: Result<(), RestoreError>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.cost -= self.cost;
        if let Err(error) = std::mem::replace(&mut self.result, Ok(())) {
            queue.failed.get_or_insert(error);
        }
        let is_awaited = |cost| queue.cost <= cost || queue.failed.is_some();
        let is_awaited = queue.awaited.is_some_and(is_awaited);
        drop(queue);
        if is_awaited {
            self.shared.done.notify_one();
        }
    }
}

impl Shared {
    /// The queue is whole at every moment, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the threads end; what waits is given up.
    fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.files.clear();
        drop(queue);
        self.work.notify_all();
    }

    /// A thread: writes files until there are no more.
    fn run(&self) {
        while let Some(file) = self.next() {
            let mut turn = Turn {
                shared: self,
                cost: file.cost(),
                result: Err(died()),
            };
            turn.result = if self.cancel.is_cancelled() {
                Err(RestoreError::Cancelled)
            } else {
                self.write(&file)
            };
        }
    }

    fn next(&self) -> Option<SmallFile> {
        let mut queue = self.lock();
        loop {
            if let Some(file) = queue.files.pop_front() {
                return Some(file);
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            let waited = self.work.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn write(&self, small: &SmallFile) -> Result<(), RestoreError> {
        let place = Place {
            parent: &small.parent,
            name: &small.name,
            shown: &small.shown,
        };
        let file = match place.create() {
            Err(Errno::EXIST) => root::remove(place.parent, place.name).and_then(|directory| {
                if directory {
                    self.removed_directory.store(true, Ordering::Relaxed);
                }
                place.create()
            }),
            other => other,
        };
        let file = file.map_err(place.failed("creating"))?;
        let cached = content::write_small(file.as_fd(), &small.content, &self.direct)
            .map_err(place.failed("writing"))?;
        self.progress.add_written(small.content.len() as u64);
        let mut lost = Losses::default();
        metadata::apply(file.as_fd(), &small.metadata, &small.shown, &mut lost)
            .map_err(place.failed("setting the metadata of"))?;
        if !lost.is_empty() {
            let all = self.lost.lock();
            all.unwrap_or_else(PoisonError::into_inner).merge(lost);
        }
        if cached {
            // In the page cache it takes whole pages.
            let pages = small.content.len().next_multiple_of(ALIGNMENT) as u64;
            self.dirty.fetch_add(pages, Ordering::Relaxed);
            self.write_out(&place, &file)?;
        }
        Ok(())
    }

    /// Writes out what is in the page cache, if that is much.
    fn write_out(&self, place: &Place<'_>, file: &OwnedFd) -> Result<(), RestoreError> {
        let is_much = || self.dirty.load(Ordering::Relaxed) >= DIRTY_MAX;
        if !is_much() {
            return Ok(());
        }
        let alone = self.writing_out.lock();
        let _alone = alone.unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have done it meanwhile.
        if !is_much() {
            return Ok(());
        }
        if self.cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        self.dirty.store(0, Ordering::Relaxed);
        syncfs(file).map_err(place.failed("writing out what came before"))
    }
}

fn died() -> RestoreError {
    RestoreError::NodeError {
        what: "a writing thread died".into(),
    }
}
