//! Pieces of large files, which threads write behind the reader: while some are on their way to the disk,
//! the next is filled.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;

use super::content::write_all;
use crate::error::RestoreError;

/// Bytes in a piece.
pub(super) const PIECE: usize = 1 << 20;

/// What pieces, and all that is written directly, are aligned to: a page, and the blocks of every
/// volume that has no larger ones.
pub(super) const ALIGNMENT: usize = 4096;

/// A disk that has the next write at hand when one is done is never idle.
const THREADS: usize = 2;

/// Pieces that exist: one being written by each thread, one being filled.
const COUNT: usize = THREADS + 1;

/// Bytes of memory that they take.
pub(super) const MEMORY: u64 = (COUNT * (PIECE + ALIGNMENT)) as u64;

/// Memory for one piece.
pub(super) struct Piece {
    buffer: Vec<u8>,
    start: usize,
}

impl Piece {
    fn new() -> Self {
        let buffer = vec![0; PIECE + ALIGNMENT];
        Self {
            start: buffer.as_ptr().align_offset(ALIGNMENT),
            buffer,
        }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + PIECE]
    }
}

/// A piece on its way to its file.
struct Order {
    piece: Piece,
    file: Arc<OwnedFd>,
    offset: u64,
    /// How much of it is data, and with the zeros that complete a block.
    length: usize,
    padded: usize,
}

/// A piece that was written, or was not.
struct Done {
    piece: Piece,
    length: usize,
    result: Result<Way, Errno>,
}

/// How it was written.
enum Way {
    Direct,
    /// Through the page cache: the file system refused otherwise, and the file is open for that now.
    Cached,
}

/// What came back.
#[derive(Default)]
pub(super) struct Written {
    /// Bytes of data.
    pub(super) count: usize,
    /// Whether direct writes were refused.
    pub(super) refused: bool,
}

/// The threads, and the pieces that are not with them.
pub(super) struct Pieces {
    orders: Option<Sender<Order>>,
    done: Receiver<Done>,
    under_way: usize,
    spare: Vec<Piece>,
    threads: Vec<JoinHandle<()>>,
}

impl Pieces {
    pub(super) fn start() -> Result<Self, RestoreError> {
        let (orders, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let (sender, done) = channel();
        let mut pieces = Self {
            orders: Some(orders),
            done,
            under_way: 0,
            spare: Vec::new(),
            threads: Vec::new(),
        };
        for _ in 0..THREADS {
            let (waiting, sender) = (Arc::clone(&waiting), sender.clone());
            let thread = thread::Builder::new().name("archive-pieces".into());
            let thread = thread.spawn(move || run(&waiting, &sender));
            let thread = thread.map_err(|error| RestoreError::NodeError {
                what: format!("starting a thread: {error}"),
            })?;
            pieces.threads.push(thread);
        }
        Ok(pieces)
    }

    /// A piece to fill, and what was written meanwhile; waits if all are under way.
    pub(super) fn next(&mut self) -> Result<(Piece, Written), Errno> {
        let mut written = Written::default();
        while let Ok(done) = self.done.try_recv() {
            self.take_back(done, &mut written)?;
        }
        if let Some(piece) = self.spare.pop() {
            return Ok((piece, written));
        }
        if self.under_way < COUNT {
            return Ok((Piece::new(), written));
        }
        self.wait(&mut written)?;
        let piece = self.spare.pop().unwrap_or_else(Piece::new);
        Ok((piece, written))
    }

    /// Hands the first `length` bytes of a piece over, for this offset of a file that is open for
    /// direct writes. The rest of its last block is written as zeros.
    pub(super) fn write(
        &mut self,
        mut piece: Piece,
        length: usize,
        file: &Arc<OwnedFd>,
        offset: u64,
    ) -> Result<(), Errno> {
        let padded = length.next_multiple_of(ALIGNMENT);
        piece.bytes()[length..padded].fill(0);
        let order = Order {
            piece,
            file: Arc::clone(file),
            offset,
            length,
            padded,
        };
        let orders = self.orders.as_ref().ok_or(LOST)?;
        orders.send(order).map_err(|_| LOST)?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits until all is written.
    pub(super) fn settle(&mut self) -> Result<Written, Errno> {
        let mut written = Written::default();
        while self.under_way > 0 {
            self.wait(&mut written)?;
        }
        Ok(written)
    }

    fn wait(&mut self, written: &mut Written) -> Result<(), Errno> {
        let done = self.done.recv().map_err(|_| LOST)?;
        self.take_back(done, written)
    }

    fn take_back(&mut self, done: Done, written: &mut Written) -> Result<(), Errno> {
        self.under_way -= 1;
        self.spare.push(done.piece);
        written.refused |= matches!(done.result?, Way::Cached);
        written.count += done.length;
        Ok(())
    }
}

/// A thread died.
const LOST: Errno = Errno::IO;

/// A thread: carries out one order after the other.
fn run(waiting: &Mutex<Receiver<Order>>, sender: &Sender<Done>) {
    let next = || {
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.recv().ok()
    };
    while let Some(order) = next() {
        // Nobody waits any more when the restore has failed elsewhere.
        let _ = sender.send(order.carry_out());
    }
}

impl Order {
    fn carry_out(mut self) -> Done {
        let result = self.write();
        Done {
            piece: self.piece,
            length: self.length,
            result,
        }
    }

    fn write(&mut self) -> Result<Way, Errno> {
        let file = self.file.as_fd();
        let bytes = &self.piece.bytes()[..self.padded];
        match write_all(file, bytes, self.offset) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                tracing::debug!("the file system refuses direct writes");
                fcntl_setfl(file, OFlags::empty())?;
                write_all(file, &bytes[..self.length], self.offset)?;
                Ok(Way::Cached)
            }
            other => other.map(|()| Way::Direct),
        }
    }
}

impl Drop for Pieces {
    /// Nothing of a restore goes on when it has ended.
    fn drop(&mut self) {
        self.orders = None;
        for thread in self.threads.drain(..) {
            // Whatever it has to say, something else went wrong before.
            let _ = thread.join();
        }
    }
}
