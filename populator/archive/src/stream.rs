//! How bytes pass between the stages: borrowed from the producer's buffer, never copied on the way.

use std::sync::Arc;

use crate::decode::Point;
use crate::error::RestoreError;

/// A run of bytes that is read once, front to back.
pub(crate) trait Stream {
    /// The bytes that are at hand next, at least one of them; empty only when all have been read.
    fn fill(&mut self) -> Result<&[u8], RestoreError>;

    /// Marks the first `count` of the bytes that `fill` last showed as used.
    fn consume(&mut self, count: usize);

    /// How many bytes have been consumed so far.
    fn position(&self) -> u64;

    /// The last place up to the position where reading can go on later; `None` for the begin.
    fn point(&self) -> Option<Arc<Point>>;

    /// Fills `buffer` as far as the stream goes and says how far that was.
    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, RestoreError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&bytes[..count]);
            self.consume(count);
            filled += count;
        }
        Ok(filled)
    }

    /// Passes over `count` bytes; false if the stream ends before.
    fn skip(&mut self, mut count: u64) -> Result<bool, RestoreError> {
        while count > 0 {
            let available = self.fill()?.len();
            if available == 0 {
                return Ok(false);
            }
            let step = count.min(available as u64);
            // At most `available`, which is a usize.
            self.consume(usize::try_from(step).unwrap_or(available));
            count -= step;
        }
        Ok(true)
    }

    /// Passes over zeros.
    fn skip_zeros(&mut self) -> Result<(), RestoreError> {
        loop {
            let bytes = self.fill()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let all = zeros == bytes.len();
            if zeros > 0 {
                self.consume(zeros);
            }
            if !all || zeros == 0 {
                return Ok(());
            }
        }
    }

    /// Reads to the end, where only zeros may be left; otherwise the position of the first other byte.
    fn only_zeros_left(&mut self) -> Result<Result<(), u64>, RestoreError> {
        loop {
            let bytes = self.fill()?;
            let count = bytes.len();
            if count == 0 {
                return Ok(Ok(()));
            }
            if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Err(self.position() + at as u64));
            }
            self.consume(count);
        }
    }
}

impl<S: Stream + ?Sized> Stream for &mut S {
    fn fill(&mut self) -> Result<&[u8], RestoreError> {
        (**self).fill()
    }

    fn consume(&mut self, count: usize) {
        (**self).consume(count);
    }

    fn position(&self) -> u64 {
        (**self).position()
    }

    fn point(&self) -> Option<Arc<Point>> {
        (**self).point()
    }
}

/// Bytes in memory, for the unit tests of the stages and for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) struct Memory<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) position: usize,
    /// How many bytes one `fill` shows at most, so that tests meet every seam.
    pub(crate) step: usize,
}

#[cfg(any(test, feature = "fuzzing"))]
impl<'a> Memory<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            step: usize::MAX,
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Stream for Memory<'_> {
    fn fill(&mut self) -> Result<&[u8], RestoreError> {
        let rest = &self.bytes[self.position..];
        Ok(&rest[..rest.len().min(self.step)])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }

    fn position(&self) -> u64 {
        self.position as u64
    }

    fn point(&self) -> Option<Arc<Point>> {
        None
    }
}
