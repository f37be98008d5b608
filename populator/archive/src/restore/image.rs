//! The image of a disk, onto a block device or into a file: bytes at their offsets, holes where there
//! are zeros.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{
    FallocateFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid, fallocate, fchmod, fchown,
    fcntl_setfl, fstat, fstatvfs, fsync, ftruncate, openat, seek,
};
use rustix::io::{Errno, retry_on_intr};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::content::{DIRTY_MAX, may_be_direct, write_all, write_out};
use super::pieces::{ALIGNMENT, PIECE};
use super::root::Root;
use crate::error::RestoreError;
use crate::format::{Content, Format};
use crate::options::{Existing, Options};
use crate::outcome::Verified;
use crate::progress::Progress;
use crate::reading::{Aim, Reading};
use crate::source::Source;
use crate::stream::Stream;

/// Zeros of this many bytes, at a multiple of it, become a hole.
const HOLE: usize = 64 << 10;

static ZEROS: [u8; HOLE] = [0; HOLE];

/// Bytes of memory the stage takes.
const MEMORY: u64 = (PIECE + ALIGNMENT) as u64;

/// The most bytes that are zeroed in one call, which nothing interrupts.
const ZEROED_MAX: u64 = 64 << 20;

/// A completed restore of an image: everything is in place and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOutcome {
    /// What the object was.
    pub format: Format,
    /// Bytes of the image.
    pub size: u64,
    /// Bytes of it that were written.
    pub bytes_written: u64,
    /// Bytes of it that are holes: left out of a file, zeroed on a device.
    pub holes: u64,
    /// Bytes received from the store, repeated ranges included.
    pub bytes_fetched: u64,
    /// How far the data are known to be right.
    pub verified: Verified,
    /// SHA-256 of the stored object, in hexadecimal.
    pub sha256: String,
    /// From the call to the end of the last write.
    pub elapsed: Duration,
    /// What of it was spent at the end, until everything was durable.
    pub syncing: Duration,
}

/// Restores the image `source` onto `target`: a block device, of which what lies behind the image stays
/// as it is, or a file, which is empty unless the options allow it to be overwritten. Of the options,
/// those do not matter that concern entries.
///
/// Blocks until everything is in place and durable, or until the first failure; what `target` holds
/// then must not be used. `target` is open for writing, and nobody else uses it: of a device, that is
/// certain when it was opened with `O_EXCL` (open(2)). Its `O_DIRECT` flag changes.
///
/// Threads and `cancel` as with [`restore`](super::restore).
pub fn restore_image(
    source: Arc<dyn Source>,
    target: BorrowedFd<'_>,
    options: &Options,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    runtime: &Handle,
) -> Result<ImageOutcome, RestoreError> {
    let target = Target::new(target, options)?;
    let aim = Aim {
        content: Content::Raw,
        memory: MEMORY,
        from: None,
    };
    let mut reading = Reading::begin(source, aim, options, progress, cancel, runtime)?;
    target.has_room(reading.least)?;
    let mut image = Image::new(target, progress, cancel)?;
    image.write(&mut reading.content)?;
    let begun = reading.begun;
    let read = reading.end(options)?;
    let written = Instant::now();
    let (size, holes) = image.finish()?;
    let syncing = written.elapsed();
    let seen = progress.snapshot();
    Ok(ImageOutcome {
        format: read.format,
        size,
        bytes_written: seen.written,
        holes,
        bytes_fetched: seen.fetched,
        verified: read.verified,
        sha256: read.sha256,
        elapsed: begun.elapsed(),
        syncing,
    })
}

/// Makes the file `name` for [`restore_image`] in a directory, an empty one unless the options allow files that
/// exist: for user and group alone, who are those that the options give to what no archive mentions. Its
/// name is durable when this returns. With it, how many bytes the file system has room for.
pub fn image_file(
    directory: BorrowedFd<'_>,
    name: &str,
    options: &Options,
) -> Result<(OwnedFd, u64), RestoreError> {
    let root = Root::new(directory, options, false)?;
    let refused = |doing| move |errno| RestoreError::volume(doing, name.as_bytes(), errno);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(root.fd(), name, flags, Mode::RUSR | Mode::WUSR);
    let file = file.map_err(refused("making"))?;
    if let Some((uid, gid)) = options.ownership.of_the_unmentioned() {
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(refused("giving an owner to"))?;
    }
    // Whatever the umask is.
    fchmod(&file, Mode::from_raw_mode(0o660)).map_err(refused("setting the mode of"))?;
    fsync(root.fd()).map_err(refused("syncing the name of"))?;
    let room = fstatvfs(&file).map_err(refused("asking for the room of"))?;
    Ok((file, room.f_bavail.saturating_mul(room.f_frsize)))
}

/// What is written to.
#[derive(Clone, Copy)]
enum Target<'a> {
    /// A block device of so many bytes, with anything on it.
    Device(BorrowedFd<'a>, u64),
    /// A file, whatever it has had, and how many bytes it may get.
    File(BorrowedFd<'a>, u64),
}

impl<'a> Target<'a> {
    fn new(fd: BorrowedFd<'a>, options: &Options) -> Result<Self, RestoreError> {
        let found = fstat(fd).map_err(|errno| failed("looking at the target", errno))?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::BlockDevice => {
                let size = seek(fd, SeekFrom::End(0));
                let size = size.map_err(|errno| failed("asking for the device's size", errno))?;
                Ok(Self::Device(fd, size))
            }
            FileType::RegularFile
                if found.st_size == 0 || options.existing == Existing::Overwrite =>
            {
                Ok(Self::File(fd, options.image_room.unwrap_or(u64::MAX)))
            }
            FileType::RegularFile => Err(RestoreError::VolumeNotEmpty {
                name: format!("{} bytes", found.st_size),
            }),
            _ => Err(failed("writing an image into something else", Errno::INVAL)),
        }
    }

    fn fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Device(fd, _) | Self::File(fd, _) => fd,
        }
    }

    /// Whether an image of so many bytes fits, as far as that is known without writing.
    fn has_room(self, wanted: u64) -> Result<(), RestoreError> {
        match self {
            Self::Device(_, size) if wanted > size => Err(RestoreError::DoesNotFit {
                what: format!("the image has {wanted} bytes or more, and the device {size}"),
                source: Errno::NOSPC,
            }),
            Self::File(_, room) if wanted > room => Err(RestoreError::DoesNotFit {
                what: format!(
                    "the image has {wanted} bytes or more, holes too, and the volume room for {room}"
                ),
                source: Errno::NOSPC,
            }),
            _ => Ok(()),
        }
    }
}

/// How zeros are brought about on a device, the cheapest way first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zeroing {
    /// The blocks are given back and read as zeros.
    Punch,
    /// The device or the kernel writes zeros.
    Range,
    /// We do.
    Write,
}

/// An image that is being written.
struct Image<'a> {
    target: Target<'a>,
    /// Where the next bytes go.
    offset: u64,
    /// Zeros before that which are not on the device yet.
    pending: u64,
    holes: u64,
    /// Whether direct writes have not been refused yet, and what may be dirty if they were.
    direct: bool,
    dirty: u64,
    zeroing: Zeroing,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl<'a> Image<'a> {
    fn new(
        target: Target<'a>,
        progress: &'a Progress,
        cancel: &'a CancellationToken,
    ) -> Result<Self, RestoreError> {
        if let Target::File(file, _) = target {
            let emptied = retry_on_intr(|| ftruncate(file, 0));
            emptied.map_err(|errno| failed("emptying the image file", errno))?;
        }
        Ok(Self {
            target,
            offset: 0,
            pending: 0,
            holes: 0,
            direct: may_be_direct(target.fd()),
            dirty: 0,
            zeroing: Zeroing::Punch,
            progress,
            cancel,
        })
    }

    /// Writes all of `content`.
    fn write(&mut self, content: &mut impl Stream) -> Result<(), RestoreError> {
        let mut buffer = vec![0; PIECE + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut buffer[start..start + PIECE];
        loop {
            if self.cancel.is_cancelled() {
                return Err(RestoreError::Cancelled);
            }
            let filled = content.read_full(buffer)?;
            self.target.has_room(self.offset + filled as u64)?;
            for run in runs(&buffer[..filled]) {
                match run {
                    Run::Zeros(count) => self.zeros(count as u64),
                    Run::Data(bytes) => self.data(bytes),
                }
                .map_err(|errno| failed(&format!("writing at byte {}", self.offset), errno))?;
            }
            // The stream was full to the last byte, or it has ended.
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    fn zeros(&mut self, count: u64) -> Result<(), Errno> {
        self.offset += count;
        self.pending += count;
        self.holes += count;
        if self.pending >= ZEROED_MAX {
            self.settle()?;
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.settle()?;
        // What is less than a block comes last, and must not take more than its own bytes.
        let (blocks, tail) = bytes.split_at(bytes.len() / ALIGNMENT * ALIGNMENT);
        self.put(blocks)?;
        if !tail.is_empty() {
            self.through_the_cache()?;
            self.put(tail)?;
        }
        Ok(())
    }

    /// Sees to it that the zeros before the offset are there.
    fn settle(&mut self) -> Result<(), Errno> {
        let length = std::mem::take(&mut self.pending);
        let Target::Device(device, _) = self.target else {
            // A new file has nothing else.
            return Ok(());
        };
        let start = self.offset - length;
        while length > 0 && self.zeroing != Zeroing::Write {
            let (flags, next) = match self.zeroing {
                Zeroing::Punch => (FallocateFlags::PUNCH_HOLE, Zeroing::Range),
                _ => (FallocateFlags::ZERO_RANGE, Zeroing::Write),
            };
            let flags = flags | FallocateFlags::KEEP_SIZE;
            match retry_on_intr(|| fallocate(device, flags, start, length)) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.zeroing = next,
                other => return other,
            }
        }
        let mut at = start;
        while at < self.offset {
            // Not aligned in memory, as direct writes would have it.
            self.through_the_cache()?;
            let count = (self.offset - at).min(HOLE as u64);
            // At most HOLE.
            let zeros = &ZEROS[..usize::try_from(count).unwrap_or(HOLE)];
            write_all(device, zeros, at)?;
            self.wrote(zeros.len())?;
            at += count;
        }
        Ok(())
    }

    /// Writes bytes at the offset, directly as long as that works.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        match write_all(self.target.fd(), bytes, self.offset) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) if self.direct => {
                tracing::debug!("the target refuses direct writes");
                self.through_the_cache()?;
                write_all(self.target.fd(), bytes, self.offset)?;
            }
            other => other?,
        }
        self.offset += bytes.len() as u64;
        self.progress.add_written(bytes.len() as u64);
        self.wrote(bytes.len())
    }

    /// From now on.
    fn through_the_cache(&mut self) -> Result<(), Errno> {
        if self.direct {
            self.direct = false;
            fcntl_setfl(self.target.fd(), OFlags::empty())?;
        }
        Ok(())
    }

    /// Keeps what is dirty in the page cache small.
    fn wrote(&mut self, count: usize) -> Result<(), Errno> {
        self.dirty += count as u64;
        if !self.direct && self.dirty >= DIRTY_MAX {
            self.dirty = 0;
            write_out(self.target.fd())?;
        }
        Ok(())
    }

    /// Makes it durable. How many bytes it has, and how many of them are holes.
    fn finish(mut self) -> Result<(u64, u64), RestoreError> {
        if self.offset == 0 {
            return Err(RestoreError::ArchiveEmpty {
                found: "it is an image without a byte",
            });
        }
        let ended = self.settle().and_then(|()| match self.target {
            // It may end with a hole.
            Target::File(file, _) => retry_on_intr(|| ftruncate(file, self.offset)),
            Target::Device(..) => Ok(()),
        });
        ended
            .and_then(|()| retry_on_intr(|| fsync(self.target.fd())))
            .map_err(|errno| failed("writing everything out", errno))?;
        Ok((self.offset, self.holes))
    }
}

/// A part of the image, from the start of a piece.
#[derive(Debug, PartialEq, Eq)]
enum Run<'a> {
    Zeros(usize),
    Data(&'a [u8]),
}

/// Whole pieces of zeros, and what is between them. The buffer begins where a piece does.
fn runs(buffer: &[u8]) -> Vec<Run<'_>> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut pieces = buffer.chunks(HOLE).map(|it| it == ZEROS).peekable();
    while let Some(zeros) = pieces.next() {
        let mut end = (start + HOLE).min(buffer.len());
        while pieces.next_if_eq(&zeros).is_some() {
            end = (end + HOLE).min(buffer.len());
        }
        runs.push(if zeros {
            Run::Zeros(end - start)
        } else {
            Run::Data(&buffer[start..end])
        });
        start = end;
    }
    runs
}

fn failed(what: &str, errno: Errno) -> RestoreError {
    let (what, source) = (what.to_owned(), errno);
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => RestoreError::DoesNotFit { what, source },
        _ => RestoreError::VolumeError { what, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_holes_from_piece_to_piece() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[0; 5]), [Run::Data(&[0; 5])]);
        assert_eq!(runs(&vec![0; 2 * HOLE]), [Run::Zeros(2 * HOLE)]);
        let mut buffer = vec![0; 4 * HOLE + 5];
        buffer[HOLE] = 1;
        buffer[3 * HOLE - 1] = 1;
        let expected = [
            Run::Zeros(HOLE),
            Run::Data(&buffer[HOLE..3 * HOLE]),
            Run::Zeros(HOLE),
            Run::Data(&[0; 5]),
        ];
        assert_eq!(runs(&buffer), expected);
    }
}
