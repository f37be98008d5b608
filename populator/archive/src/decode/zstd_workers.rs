//! Whole zstd frames, decoded by several threads ahead of the reader.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zstd::bulk::Decompressor;

use super::lost_thread;
use crate::budget::Share;
use crate::error::RestoreError;

/// More threads than this have no use: what they decode is written by fewer.
const THREADS_MAX: usize = 8;

/// The most bytes that a frame may unpack to in order to be decoded as a whole.
pub(super) const FRAME_MAX: u64 = 8 << 20;

/// A frame as it is stored.
pub(super) struct Job {
    /// All of it, from the magic number to the checksum.
    pub(super) packed: Vec<u8>,
    /// What it says that it unpacks to, [`FRAME_MAX`] at most.
    pub(super) content: usize,
    /// Where it is in the object, for messages.
    pub(super) position: u64,
    /// The memory that it takes, packed and unpacked.
    pub(super) share: Share,
}

/// A frame that is being decoded.
pub(super) struct Ahead {
    result: Receiver<Result<Vec<u8>, RestoreError>>,
    share: Share,
}

/// A decoded frame.
pub(super) struct Ready {
    pub(super) bytes: Vec<u8>,
    pub(super) share: Share,
}

/// A job on its way to a thread.
struct Task {
    packed: Vec<u8>,
    output: Vec<u8>,
    position: u64,
    done: SyncSender<Result<Vec<u8>, RestoreError>>,
}

/// The threads. They end when this is dropped, at the latest after the frames that they have.
pub(super) struct Workers {
    tasks: Sender<Task>,
    /// Buffers for the next frames.
    spare: Vec<Vec<u8>>,
    pub(super) count: usize,
}

impl Workers {
    /// Starts them; none where there is one processor, since nothing is gained then.
    pub(super) fn start() -> Result<Option<Self>, RestoreError> {
        let count = thread::available_parallelism().map_or(1, Into::into);
        let count = count.min(THREADS_MAX);
        if count < 2 {
            return Ok(None);
        }
        let (tasks, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..count {
            let waiting = Arc::clone(&waiting);
            let started = thread::Builder::new()
                .name("archive-frames".into())
                .spawn(move || run(&waiting));
            started.map_err(|error| RestoreError::NodeError {
                what: format!("starting a thread: {error}"),
            })?;
        }
        Ok(Some(Self {
            tasks,
            spare: Vec::new(),
            count,
        }))
    }

    /// Begins to decode a frame.
    pub(super) fn begin(&mut self, job: Job) -> Result<Ahead, RestoreError> {
        let mut output = self.spare.pop().unwrap_or_default();
        output.clear();
        output.reserve_exact(job.content);
        let (done, result) = sync_channel(1);
        let task = Task {
            packed: job.packed,
            output,
            position: job.position,
            done,
        };
        self.tasks.send(task).map_err(|_| lost_thread())?;
        Ok(Ahead {
            result,
            share: job.share,
        })
    }

    /// Takes a buffer back, for another frame.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        if self.spare.len() <= self.count {
            self.spare.push(buffer);
        }
    }

    /// Frees the buffers that wait for other frames.
    pub(super) fn free(&mut self) {
        self.spare.clear();
    }
}

impl Ahead {
    /// Waits until it is decoded.
    pub(super) fn wait(self) -> Result<Ready, RestoreError> {
        let bytes = self.result.recv().map_err(|_| lost_thread())??;
        let share = self.share;
        Ok(Ready { bytes, share })
    }

    /// The frame, if it is decoded; itself if not.
    pub(super) fn ready(self) -> Result<Result<Ready, Self>, RestoreError> {
        match self.result.try_recv() {
            Ok(bytes) => {
                let (bytes, share) = (bytes?, self.share);
                Ok(Ok(Ready { bytes, share }))
            }
            Err(TryRecvError::Empty) => Ok(Err(self)),
            Err(TryRecvError::Disconnected) => Err(lost_thread()),
        }
    }
}

/// A thread: decodes one frame after the other.
fn run(waiting: &Mutex<Receiver<Task>>) {
    let next = || {
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.recv().ok()
    };
    let mut decompressor = Decompressor::new();
    while let Some(task) = next() {
        let decoded = match &mut decompressor {
            Ok(decompressor) => decode(decompressor, &task.packed, task.output, task.position),
            Err(error) => Err(RestoreError::NodeError {
                what: format!("starting zstd: {error}"),
            }),
        };
        // Nobody waits any more when the restore has failed elsewhere.
        let _ = task.done.send(decoded);
    }
}

fn decode(
    decompressor: &mut Decompressor<'_>,
    packed: &[u8],
    mut output: Vec<u8>,
    position: u64,
) -> Result<Vec<u8>, RestoreError> {
    let corrupt = |error: io::Error| {
        RestoreError::corrupt(format!("zstd says {error} of the frame at byte {position}"))
    };
    decompressor
        .decompress_to_buffer(packed, &mut output)
        .map_err(corrupt)?;
    Ok(output)
}
