//! From the bytes of a tar archive to the object: cut into frames, compressed by several threads, and
//! handed on in order.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::Sink;
use super::error::PackError;
use crate::index::seek_table::Frame;
use crate::progress::Progress;

/// Bytes in a frame before compression, at most. Larger ones compress little better (1 % here), smaller
/// ones much worse (10 % at 2 MiB, 23 % at 1 MiB for small files), and readers decode whole frames in
/// memory.
pub(super) const FRAME: usize = 4 << 20;

/// Bytes of memory that a thread takes: what it compresses, what it makes of that, and its tables.
pub(super) const MEMORY: u64 = 3 * FRAME as u64;

/// What became of a frame: the bytes to be stored, and how many they were.
type Compressed = Result<(Vec<u8>, usize), PackError>;

/// A frame to be compressed, and where it is waited for.
struct Job {
    bytes: Vec<u8>,
    done: SyncSender<Compressed>,
}

/// What was handed on.
pub(super) struct Written {
    /// All frames, in order.
    pub(super) frames: Vec<Frame>,
    sha256: Sha256,
    pub(super) length: u64,
}

impl Written {
    /// Hands on what is not compressed here.
    pub(super) fn write(&mut self, sink: &mut dyn Sink, bytes: Vec<u8>) -> Result<(), PackError> {
        self.sha256.update(&bytes);
        self.length += bytes.len() as u64;
        sink.write(bytes).map_err(PackError::Store)
    }

    pub(super) fn sha256(self) -> [u8; 32] {
        self.sha256.finalize().into()
    }
}

/// The bytes of the archive, on their way into frames. They are taken in any portions; `cut` says
/// where a frame should end.
pub(super) struct Frames<'scope> {
    buffer: Vec<u8>,
    /// Bytes of the unpacked archive before the buffer.
    before: u64,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Compressed>>,
    /// Buffers that were compressed.
    empties: Receiver<Vec<u8>>,
    writer: ScopedJoinHandle<'scope, Result<Written, PackError>>,
}

impl<'scope> Frames<'scope> {
    /// Starts `threads` that compress, and one that hands on to `sink`.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        level: i32,
        sink: &'env mut dyn Sink,
        progress: &'env Progress,
        queue: &'env Queue,
    ) -> Result<Self, PackError> {
        let failed = |error: io::Error| PackError::node(format!("starting a thread: {error}"));
        let (jobs, waiting) = sync_channel(1);
        let (order, ordered) = sync_channel(threads);
        let (returned, empties) = channel();
        *queue.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
        for _ in 0..threads {
            let returned = returned.clone();
            std::thread::Builder::new()
                .name("archive-encode".into())
                .spawn_scoped(scope, move || queue.compress(level, &returned))
                .map_err(failed)?;
        }
        let writer = std::thread::Builder::new()
            .name("archive-store".into())
            .spawn_scoped(scope, move || store(&ordered, sink, progress))
            .map_err(failed)?;
        Ok(Self {
            buffer: Vec::with_capacity(FRAME),
            before: 0,
            jobs,
            order,
            empties,
            writer,
        })
    }

    /// Bytes of the unpacked archive so far.
    pub(super) fn position(&self) -> u64 {
        self.before + self.buffer.len() as u64
    }

    /// Ends the frame unless so many bytes more have room in it.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<(), PackError> {
        if self.buffer.len() as u64 + bytes > FRAME as u64 {
            self.cut()?;
        }
        Ok(())
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let room = FRAME - self.buffer.len();
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            self.cut_full()?;
        }
        Ok(())
    }

    /// Lets `read` append up to `wanted` bytes, fewer if the frame has less room, and gives back what
    /// it said together with the bytes appended.
    pub(super) fn read<E>(
        &mut self,
        wanted: u64,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<&[u8], E> {
        let start = self.buffer.len();
        let room = FRAME - start;
        let count = usize::try_from(wanted).map_or(room, |wanted| wanted.min(room));
        self.buffer.resize(start + count, 0);
        let done = read(&mut self.buffer[start..]);
        self.buffer
            .truncate(start + done.as_ref().map_or(0, |count| *count));
        done.map(|_| &self.buffer[start..])
    }

    /// Ends the frame if it is full.
    pub(super) fn cut_full(&mut self) -> Result<(), PackError> {
        if self.buffer.len() == FRAME {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), PackError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut next = self.empties.try_recv().unwrap_or_default();
        next.clear();
        next.reserve_exact(FRAME);
        let bytes = std::mem::replace(&mut self.buffer, next);
        self.before += bytes.len() as u64;
        let (done, result) = sync_channel(1);
        // They only go away when the sink failed, and `finish` says how.
        let stopped = |()| PackError::node("storing stopped");
        self.order.send(result).map_err(|_| stopped(()))?;
        self.jobs.send(Job { bytes, done }).map_err(|_| stopped(()))
    }

    /// Stores what is left; all that was stored.
    pub(super) fn finish(mut self) -> Result<Written, PackError> {
        let cut = self.cut();
        let Self {
            jobs,
            order,
            writer,
            ..
        } = self;
        drop((jobs, order));
        let written = writer
            .join()
            .map_err(|_| PackError::node("a thread died"))?;
        // The sink's own words, where it failed, come first.
        written.and_then(|written| cut.map(|()| written))
    }
}

/// Where the compressing threads wait for work.
#[derive(Default)]
pub(super) struct Queue(Mutex<Option<Receiver<Job>>>);

impl Queue {
    fn next(&self) -> Option<Job> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_ref()?.recv().ok()
    }

    /// A thread: compresses one frame after the other.
    fn compress(&self, level: i32, returned: &Sender<Vec<u8>>) {
        let mut compressor = compressor(level);
        while let Some(Job { bytes, done }) = self.next() {
            let compressed = match &mut compressor {
                Ok(compressor) => compressor.compress(&bytes).map_err(|error| failed(&error)),
                Err(error) => Err(failed(error)),
            };
            let count = bytes.len();
            // Nobody waits any more when the sink has failed.
            let _ = done.send(compressed.map(|it| (it, count)));
            let _ = returned.send(bytes);
        }
    }
}

fn failed(error: &io::Error) -> PackError {
    PackError::node(format!("compressing: {error}"))
}

fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    Ok(compressor)
}

/// The thread that hands on, in order.
fn store(
    ordered: &Receiver<Receiver<Compressed>>,
    sink: &mut dyn Sink,
    progress: &Progress,
) -> Result<Written, PackError> {
    let mut written = Written {
        frames: Vec::new(),
        sha256: Sha256::new(),
        length: 0,
    };
    while let Ok(next) = ordered.recv() {
        let died = |_| PackError::node("a compressing thread died");
        let (bytes, unpacked) = next.recv().map_err(died)??;
        let too_long = |_| PackError::node("a frame does not fit");
        written.frames.push(Frame {
            stored: u32::try_from(bytes.len()).map_err(too_long)?,
            unpacked: u32::try_from(unpacked).map_err(too_long)?,
        });
        progress.add_written(bytes.len() as u64);
        written.write(sink, bytes)?;
    }
    Ok(written)
}
