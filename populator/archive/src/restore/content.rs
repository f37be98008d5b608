//! The data of files: large and middling ones past the page cache, those in small pieces through it.
//!
//! Direct writes of whole megabytes cost a fraction of the CPU time that the page cache takes, and leave
//! nothing dirty that would count against the memory limit of a container. Into space that is allocated
//! beforehand, as for all files without holes, they also tell a full volume before the data are fetched.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    Advice, AtFlags, FallocateFlags, OFlags, StatxFlags, fadvise, fallocate, fcntl_setfl,
    fdatasync, ftruncate, statx,
};
use rustix::io::{Errno, pwrite, retry_on_intr};
use tokio_util::sync::CancellationToken;

use super::pieces::{ALIGNMENT, PIECE, Pieces};
use crate::entry::{Extent, Layout};
use crate::error::RestoreError;
use crate::progress::Progress;
use crate::stream::Stream;
use crate::tar_reader::TarReader;

/// The size from which a file that is written in one piece is written directly.
const DIRECT_SMALL: usize = 64 << 10;

/// Bytes of a large file that may be dirty in the page cache before they are written out.
pub(super) const DIRTY_MAX: u64 = 8 << 20;

/// All that a small file holds, in a buffer that may be written directly if it is long enough.
pub(super) struct Aligned {
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// A buffer for a file of this size; none if that is not small, but of a piece or more.
    pub(super) fn for_small(size: u64) -> Option<Self> {
        let length = usize::try_from(size).ok().filter(|it| *it < PIECE)?;
        if length < DIRECT_SMALL {
            return Some(Self {
                buffer: vec![0; length],
                start: 0,
                length,
            });
        }
        let buffer = vec![0; length.next_multiple_of(ALIGNMENT) + ALIGNMENT];
        Some(Self {
            start: buffer.as_ptr().align_offset(ALIGNMENT),
            buffer,
            length,
        })
    }

    /// Fills it with the data of the current entry.
    pub(super) fn read(&mut self, reader: &mut TarReader<impl Stream>) -> Result<(), RestoreError> {
        let whole = &mut self.buffer[self.start..self.start + self.length];
        // The reader gives as much as it said, or fails.
        fill(reader, whole).map(drop)
    }

    /// What the file holds.
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }

    /// The same and zeros to the end of a block, for a direct write.
    fn blocks(&self) -> Option<&[u8]> {
        let padded = self.length.next_multiple_of(ALIGNMENT);
        (self.length >= DIRECT_SMALL).then(|| &self.buffer[self.start..self.start + padded])
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Writes a small file, which is empty yet, and says whether it went into the page cache. `direct` says
/// whether the file system has not refused direct writes, and learns it.
pub(super) fn write_small(
    file: BorrowedFd<'_>,
    content: &Aligned,
    direct: &AtomicBool,
) -> Result<bool, Errno> {
    if let Some(blocks) = content.blocks()
        && direct.load(Ordering::Relaxed)
        && may_be_direct(file)
    {
        match write_all(file, blocks, 0) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                direct.store(false, Ordering::Relaxed);
                fcntl_setfl(file, OFlags::empty())?;
            }
            Err(errno) => return Err(errno),
            Ok(()) if blocks.len() == content.len() => return Ok(false),
            Ok(()) => {
                return retry_on_intr(|| ftruncate(file, content.length as u64)).map(|()| false);
            }
        }
    }
    write_all(file, content.bytes(), 0).map(|()| true)
}

/// Writes the contents of one file after the other.
pub(super) struct Content<'a> {
    /// None before the first large file.
    pieces: Option<Pieces>,
    /// Whether this file system has not refused direct writes yet.
    direct: bool,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

/// Why a file could not be written.
pub(super) enum ContentError {
    /// The archive ended or failed.
    Archive(RestoreError),
    /// The file system refused.
    Volume(Errno),
}

impl From<Errno> for ContentError {
    fn from(errno: Errno) -> Self {
        Self::Volume(errno)
    }
}

impl From<RestoreError> for ContentError {
    fn from(error: RestoreError) -> Self {
        Self::Archive(error)
    }
}

impl<'a> Content<'a> {
    pub(super) fn new(progress: &'a Progress, cancel: &'a CancellationToken) -> Self {
        Self {
            pieces: None,
            direct: true,
            progress,
            cancel,
        }
    }

    /// Writes what the reader has for the current entry, which is no small file, into a file that has
    /// nothing behind the first `done` bytes of its data. Says how many of them it has then: all, or
    /// fewer if `pause` said so.
    pub(super) fn write(
        &mut self,
        file: &Arc<OwnedFd>,
        layout: &Layout,
        done: u64,
        pause: &dyn Fn() -> bool,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<u64, ContentError> {
        match layout {
            Layout::Dense(size) => {
                let left = size - done;
                match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), done, left)) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                    Err(errno) => return Err(errno.into()),
                }
                if self.direct && is_aligned(done) && may_be_direct(file.as_fd()) {
                    let whole = Extent {
                        offset: 0,
                        length: *size,
                    };
                    return self.direct(file, &[whole], done, *size, pause, reader);
                }
                self.cached(file.as_fd(), done, left, &mut 0, pause, reader)
                    .map(|written| done + written)
            }
            Layout::Sparse { size, extents } => {
                retry_on_intr(|| ftruncate(file, *size))?;
                let direct = self.direct && is_aligned(done) && are_large(extents, *size);
                if direct && may_be_direct(file.as_fd()) {
                    return self.direct(file, extents, done, *size, pause, reader);
                }
                self.cached_extents(file.as_fd(), extents, done, pause, reader)
            }
        }
    }

    /// Writes what is behind the first `done` bytes of the data through the page cache, or less, and says
    /// how many of them there are then.
    fn cached_extents(
        &mut self,
        file: BorrowedFd<'_>,
        extents: &[Extent],
        done: u64,
        pause: &dyn Fn() -> bool,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<u64, ContentError> {
        let (mut passed, mut dirty) = (0, 0);
        for extent in extents {
            let before = done.saturating_sub(passed).min(extent.length);
            let (offset, left) = (extent.offset + before, extent.length - before);
            let written = self.cached(file, offset, left, &mut dirty, pause, reader)?;
            passed += before + written;
            if written < left || (left > 0 && pause() && reader.here().is_some()) {
                break;
            }
        }
        Ok(passed)
    }

    /// Writes `length` bytes at `offset` through the page cache, or fewer, and says how many. `dirty`
    /// counts what the file has there.
    fn cached(
        &mut self,
        file: BorrowedFd<'_>,
        begin: u64,
        length: u64,
        dirty: &mut u64,
        pause: &dyn Fn() -> bool,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<u64, ContentError> {
        let (mut offset, end) = (begin, begin + length);
        while offset < end {
            let bytes = reader.data()?;
            let count = usize::try_from(end - offset)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            write_all(file, &bytes[..count], offset)?;
            reader.consume(count);
            offset += count as u64;
            self.written(count)?;
            // A few bytes make a whole page dirty, and sparse files may have a few in each.
            *dirty += count.max(ALIGNMENT) as u64;
            if *dirty >= DIRTY_MAX {
                write_out(file)?;
                *dirty = 0;
            }
            if pause() && reader.here().is_some() {
                break;
            }
        }
        Ok(offset - begin)
    }

    /// Writes what is behind the first `begin` bytes of the data, directly as long as that works, or
    /// until it is to pause; says how many of them there are then. The extents begin with blocks, and all
    /// but one at the end of the file end with them.
    fn direct(
        &mut self,
        file: &Arc<OwnedFd>,
        extents: &[Extent],
        begin: u64,
        size: u64,
        pause: &dyn Fn() -> bool,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<u64, ContentError> {
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            none => none.insert(Pieces::start()?),
        };
        let all: u64 = extents.iter().map(|extent| extent.length).sum();
        let (mut done, mut passed, mut refused, mut paused) = (begin, 0, false, false);
        for extent in extents {
            let end = extent.offset + extent.length;
            let mut offset = extent.offset + begin.saturating_sub(passed).min(extent.length);
            passed += extent.length;
            while offset < end && !refused && !paused {
                let (mut piece, written) = pieces.next()?;
                // No piece goes on behind where the digest of an index is known: a checkpoint may be due.
                let whole = PIECE as u64 - done % PIECE as u64;
                let room = usize::try_from(whole.min(end - offset)).unwrap_or(PIECE);
                let filled = fill(reader, &mut piece.bytes()[..room])?;
                pieces.write(piece, filled, file, offset)?;
                offset += filled as u64;
                done += filled as u64;
                refused = written.refused;
                account(written.count, self.progress, self.cancel)?;
                paused = done < all && pause() && reader.here().is_some();
            }
        }
        let written = pieces.settle()?;
        refused |= written.refused;
        account(written.count, self.progress, self.cancel)?;
        self.direct = !refused;
        if refused {
            write_out(file.as_fd())?;
        }
        if refused && !paused && done < all {
            return self.cached_extents(file.as_fd(), extents, done, pause, reader);
        }
        // The tail was written as a whole block.
        if done == all && !is_aligned(size) {
            retry_on_intr(|| ftruncate(file, size))?;
        }
        Ok(done)
    }

    fn written(&self, count: usize) -> Result<(), RestoreError> {
        account(count, self.progress, self.cancel)
    }
}

/// Counts what is on the volume, or does not go on.
fn account(
    count: usize,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    progress.add_written(count as u64);
    if cancel.is_cancelled() {
        Err(RestoreError::Cancelled)
    } else {
        Ok(())
    }
}

fn is_aligned(position: u64) -> bool {
    position.is_multiple_of(ALIGNMENT as u64)
}

/// Whether the extents of a file of this size are whole blocks, as all are that come from holes of a file
/// system, and hardly any so short that the page cache would gain by bringing it together with others.
fn are_large(extents: &[Extent], size: u64) -> bool {
    let whole = extents.iter().all(|extent| {
        let end = extent.offset + extent.length;
        is_aligned(extent.offset) && (is_aligned(end) || end == size)
    });
    let short = |extent: &&Extent| extent.length < DIRECT_SMALL as u64;
    let short = extents.iter().filter(short).count() as u64;
    let data: u64 = extents.iter().map(|extent| extent.length).sum();
    whole && data >= (short + 1) * PIECE as u64
}

/// Whether direct writes fit this file's alignment; if so, makes them the file's way.
pub(super) fn may_be_direct(file: BorrowedFd<'_>) -> bool {
    let fits = match statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(found) if found.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let fits = |alignment: u32| (1..=ALIGNMENT).contains(&(alignment as usize));
            fits(found.stx_dio_mem_align) && fits(found.stx_dio_offset_align)
        }
        // An older kernel does not say; the first write will show.
        _ => true,
    };
    fits && fcntl_setfl(file, OFlags::DIRECT).is_ok()
}

/// Copies data of the current entry until the buffer is full or the data end.
fn fill(reader: &mut TarReader<impl Stream>, buffer: &mut [u8]) -> Result<usize, RestoreError> {
    let mut filled = 0;
    while filled < buffer.len() {
        let bytes = reader.data()?;
        if bytes.is_empty() {
            break;
        }
        let count = bytes.len().min(buffer.len() - filled);
        buffer[filled..filled + count].copy_from_slice(&bytes[..count]);
        reader.consume(count);
        filled += count;
    }
    Ok(filled)
}

pub(super) fn write_all(
    file: BorrowedFd<'_>,
    mut bytes: &[u8],
    mut offset: u64,
) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes the file's dirty pages out and lets them go.
pub(super) fn write_out(file: BorrowedFd<'_>) -> Result<(), Errno> {
    retry_on_intr(|| fdatasync(file))?;
    let to_the_end = None;
    fadvise(file, 0, to_the_end, Advice::DontNeed)
}
