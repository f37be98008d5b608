//! A thread that decodes, a few chunks ahead of its reader.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tokio_util::sync::CancellationToken;

use super::{CHUNKS, Decoder, Finished, POINTS, Point};
use crate::error::RestoreError;
use crate::outcome::Verified;
use crate::stream::Stream;

/// The reading end of a decoding thread.
pub(crate) struct Pipe {
    chunks: Option<Receiver<Result<Chunk, RestoreError>>>,
    empties: Option<SyncSender<Vec<u8>>>,
    current: Vec<u8>,
    used: usize,
    /// The last one in what was read before the current chunk, and the one in that.
    points: [Option<Arc<Point>>; 2],
    position: u64,
    finished: Option<Finished>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<Option<Finished>>>,
}

/// A piece of what was decoded.
struct Chunk {
    bytes: Vec<u8>,
    /// In it, or at its end.
    point: Option<Arc<Point>>,
}

/// Starts a thread that decodes `chunk` bytes at a time; what it decodes begins at `position`.
pub(super) fn spawn(
    name: &str,
    decoder: Box<dyn Decoder>,
    position: u64,
    chunk: usize,
    cancel: CancellationToken,
) -> Result<Pipe, RestoreError> {
    // Room for every chunk in both directions, so that returning an empty one never blocks.
    let (sender, chunks) = sync_channel(CHUNKS - 2);
    let (empties, returned) = sync_channel(CHUNKS);
    for _ in 0..CHUNKS - 1 {
        // The receiver is alive, it is in this function; and there is room for CHUNKS.
        let _ = empties.send(Vec::new());
    }
    let stop = cancel.clone();
    let thread = thread::Builder::new()
        .name(name.into())
        .spawn(move || run(decoder, position, chunk, &stop, &sender, &returned))
        .map_err(|error| RestoreError::NodeError {
            what: format!("starting a thread: {error}"),
        })?;
    Ok(Pipe {
        chunks: Some(chunks),
        empties: Some(empties),
        current: Vec::new(),
        used: 0,
        points: [None, None],
        position,
        finished: None,
        cancel,
        thread: Some(thread),
    })
}

/// The thread: decodes until the end, an error, or until nobody wants more.
fn run(
    mut decoder: Box<dyn Decoder>,
    begin: u64,
    size: usize,
    cancel: &CancellationToken,
    sender: &SyncSender<Result<Chunk, RestoreError>>,
    returned: &Receiver<Vec<u8>>,
) -> Option<Finished> {
    let (mut position, mut last_point) = (begin, begin);
    while let Ok(mut bytes) = returned.recv() {
        bytes.resize(size, 0);
        let wanted_from = last_point + POINTS;
        let filled = fill(&mut *decoder, &mut bytes, position, wanted_from, cancel);
        let (message, last) = match filled {
            Ok((count, point)) => {
                bytes.truncate(count);
                position += count as u64;
                last_point = point.as_ref().map_or(last_point, |point| point.unpacked);
                (Ok(Chunk { bytes, point }), count == 0)
            }
            Err(error) => (Err(error), true),
        };
        if sender.send(message).is_err() || last {
            break;
        }
    }
    let verified = if decoder.is_checked() {
        Verified::Stream
    } else {
        Verified::None
    };
    let digest = decoder.digest()?;
    Some(Finished { verified, digest })
}

/// Fills the whole chunk, which begins at `position`, unless the end comes first. Looks for a point
/// from `wanted_from` on.
fn fill(
    decoder: &mut dyn Decoder,
    chunk: &mut [u8],
    position: u64,
    wanted_from: u64,
    cancel: &CancellationToken,
) -> Result<(usize, Option<Arc<Point>>), RestoreError> {
    if cancel.is_cancelled() {
        return Err(RestoreError::Cancelled);
    }
    let (mut filled, mut point) = (0, None);
    while filled < chunk.len() {
        match decoder.decode(&mut chunk[filled..])? {
            0 => break,
            count => filled += count,
        }
        let unpacked = position + filled as u64;
        if point.is_none() && unpacked >= wanted_from {
            point = decoder.point().map(|place| place.after(unpacked));
        }
    }
    Ok((filled, point))
}

impl Pipe {
    /// What is known once all was read.
    pub(super) fn finished(&self) -> Option<Finished> {
        self.finished
    }

    /// Waits for the thread, which has nobody to wait for once its channels are closed. `None` if
    /// that was done before, if it was given up, or if it panicked.
    fn join(&mut self) -> Option<Finished> {
        drop((self.chunks.take(), self.empties.take()));
        self.thread.take()?.join().ok()?
    }
}

impl Drop for Pipe {
    /// Nothing of a restore goes on when it has ended.
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.cancel.cancel();
            self.join();
        }
    }
}

pub(crate) fn lost_thread() -> RestoreError {
    RestoreError::NodeError {
        what: "the decoding thread died".into(),
    }
}

impl Stream for Pipe {
    fn fill(&mut self) -> Result<&[u8], RestoreError> {
        if self.used == self.current.len() && self.finished.is_none() {
            let empty = std::mem::take(&mut self.current);
            self.used = 0;
            let (Some(chunks), Some(empties)) = (&self.chunks, &self.empties) else {
                return Err(lost_thread());
            };
            // A thread that has ended wants no more chunks.
            let _ = empties.send(empty);
            let chunk = chunks.recv().map_err(|_| lost_thread())??;
            self.current = chunk.bytes;
            if let Some(last) = self.points[1].take() {
                self.points[0] = Some(last);
            }
            self.points[1] = chunk.point;
            if self.current.is_empty() {
                // Decoders end where the object ends, so only a thread that died has no sum.
                self.finished = Some(self.join().ok_or_else(lost_thread)?);
            }
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
        self.position += count as u64;
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn point(&self) -> Option<Arc<Point>> {
        let passed = |point: &&Arc<Point>| point.unpacked <= self.position;
        self.points.iter().rev().flatten().find(passed).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::CHUNK;
    use super::*;

    /// Gives some bytes and then meets a bug of its own.
    struct Buggy(usize);

    impl Decoder for Buggy {
        fn decode(&mut self, out: &mut [u8]) -> Result<usize, RestoreError> {
            self.0 = self.0.checked_sub(1).expect("the bug");
            Ok(out.len())
        }

        fn is_checked(&self) -> bool {
            true
        }

        fn digest(&self) -> Option<[u8; 32]> {
            Some([0; 32])
        }
    }

    #[test]
    fn a_thread_that_dies_is_an_error_and_no_end() {
        for good in [0, 1, 20] {
            let cancel = CancellationToken::new();
            let mut pipe = spawn("test", Box::new(Buggy(good)), 0, CHUNK, cancel).unwrap();
            let wanted = (good * CHUNK) as u64;
            assert!(pipe.skip(wanted).unwrap());
            assert_eq!(pipe.skip(1).unwrap_err().reason(), "NodeError");
            assert!(pipe.finished().is_none());
        }
    }
}
