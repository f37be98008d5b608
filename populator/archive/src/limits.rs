//! The most that an archive may have of anything, for those who restore what strangers packed.

use std::sync::Arc;

use crate::decode::Point;
use crate::error::RestoreError;
use crate::progress::Progress;
use crate::stream::Stream;

/// From how many unpacked bytes on the ratio is looked at: a small file of zeros is no bomb.
const RATIO_FROM: u64 = 16 << 20;

/// The most that an archive may have. Memory is bounded without these: by default the volume is the
/// limit to what is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes in the name of an entry; 32 KiB is the most that can be followed.
    pub name: usize,
    /// Bytes of extended headers that one entry, or all global ones together, may have. They are held
    /// in memory, the attributes of a file among them.
    pub headers: u64,
    /// Bytes of the unpacked archive.
    pub unpacked: u64,
    /// Bytes of the unpacked archive for each byte of the object, from 16 MiB on.
    pub ratio: u64,
    /// The work factor of scrypt, by which age makes a key of a passphrase: n takes 2^n KiB of memory
    /// for a moment, on top of the budget, and as much time.
    pub work_factor: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: u64::MAX,
            name: 32 << 10,
            headers: 1 << 20,
            unpacked: u64::MAX,
            ratio: u64::MAX,
            // What age(1) always uses: 256 MiB, for about a second.
            work_factor: 18,
        }
    }
}

/// The unpacked archive, as long as it is within the limits.
pub(crate) struct Limited<S> {
    stream: S,
    limits: Limits,
    progress: Arc<Progress>,
}

impl<S: Stream> Limited<S> {
    pub(crate) fn new(stream: S, limits: Limits, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            limits,
            progress,
        }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    fn check(&self) -> Result<(), RestoreError> {
        let unpacked = self.stream.position();
        if unpacked > self.limits.unpacked {
            return Err(RestoreError::LimitExceeded {
                what: "unpacked bytes",
                limit: self.limits.unpacked,
            });
        }
        let read = self.progress.snapshot().consumed;
        if unpacked >= RATIO_FROM && read.saturating_mul(self.limits.ratio) < unpacked {
            return Err(RestoreError::LimitExceeded {
                what: "unpacked bytes for each stored one",
                limit: self.limits.ratio,
            });
        }
        Ok(())
    }
}

impl<S: Stream> Stream for Limited<S> {
    fn fill(&mut self) -> Result<&[u8], RestoreError> {
        self.check()?;
        self.stream.fill()
    }

    fn consume(&mut self, count: usize) {
        self.stream.consume(count);
    }

    fn position(&self) -> u64 {
        self.stream.position()
    }

    fn point(&self) -> Option<Arc<Point>> {
        self.stream.point()
    }
}
