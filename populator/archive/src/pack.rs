//! The way back: a tree becomes an archive of our own, an ordinary `.tar.zst` with an index
//! (docs/archive-format.md).

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FileType, fadvise, fstat};
use rustix::io::{Errno, pread};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::entry::{Entry, Extent, Kind, Layout, Metadata, OwnerNames};
use crate::error::printable;
use crate::index::{self, Content, Record};
use crate::outcome::Losses;
use crate::progress::Progress;
use crate::source::SourceError;
use crate::tar_reader::header::BLOCK;
use ahead::{Ahead, Next, SmallContent};
use frames::{FRAME, Frames, Queue};
use index_writer::IndexWriter;
use walk::{Found, Walk};

pub use error::PackError;

mod ahead;
mod error;
mod frames;
mod header;
mod index_writer;
mod inode;
mod walk;

/// Where an archive goes.
pub trait Sink: Send {
    /// Takes the next bytes of the object; blocks while there are too many on the way.
    fn write(&mut self, bytes: Vec<u8>) -> Result<(), SourceError>;
}

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The memory that is shared with whatever else the process does.
    pub budget: Arc<Budget>,
    /// zstd's level, 1 to 19.
    pub level: i32,
    /// Threads that compress; fewer where the budget is small. The result does not depend on it.
    pub threads: usize,
}

impl PackOptions {
    /// Level 3, and as many threads as the machine has processors.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            level: 3,
            threads: std::thread::available_parallelism().map_or(1, Into::into),
        }
    }
}

/// A tree before it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// Everything in it, and its root.
    pub entries: u64,
    /// Bytes of file data, holes apart (as far as the file system tells by its blocks).
    pub data: u64,
}

/// A tree that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Entries of every kind.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Directories among them.
    pub directories: u64,
    /// Symbolic and hard links among them.
    pub links: u64,
    /// Bytes of file data, holes apart.
    pub data: u64,
    /// Bytes of the object.
    pub stored: u64,
    /// SHA-256 of the object, in hexadecimal.
    pub sha256: String,
    /// What is in the tree and not in the archive.
    pub left_out: Losses,
    /// From the call to the end of the last write.
    pub elapsed: Duration,
}

/// Counts what is in `directory`, so that progress can be told and parts of an upload be measured.
pub fn survey(directory: BorrowedFd<'_>, cancel: &CancellationToken) -> Result<Survey, PackError> {
    let mut walk = Walk::new(directory)?;
    let (mut entries, mut data) = (0, 0);
    while let Some(found) = walk.next()? {
        if cancel.is_cancelled() {
            return Err(PackError::Cancelled);
        }
        entries += 1;
        if found.kind() == FileType::RegularFile {
            let allocated = u64::try_from(found.stat.st_blocks).unwrap_or_default() * 512;
            data += allocated.min(u64::try_from(found.stat.st_size).unwrap_or_default());
        }
    }
    Ok(Survey { entries, data })
}

/// Packs what is in `directory` and hands the object to `sink`, front to back. The same tree gives the
/// same bytes, whatever the number of threads.
///
/// Blocks the calling thread, which is none of `runtime`'s workers (that panics). The caller completes
/// the object if this succeeds and throws it away otherwise; a file that changes while it is read is a
/// failure. `cancel` ends it within a second, the sink apart.
pub fn pack(
    directory: BorrowedFd<'_>,
    sink: &mut dyn Sink,
    options: &PackOptions,
    progress: &Progress,
    cancel: &CancellationToken,
    runtime: &tokio::runtime::Handle,
) -> Result<Packed, PackError> {
    let begun = Instant::now();
    // What is being filled and what waits, besides what each thread has.
    let fixed = 3 * FRAME as u64 + ahead::MEMORY;
    let room = options.budget.bytes().saturating_sub(fixed) / frames::MEMORY;
    let threads = options
        .threads
        .clamp(1, usize::try_from(room).unwrap_or(1).max(1));
    let memory = fixed + threads as u64 * frames::MEMORY;
    let share = runtime.block_on(cancel.run_until_cancelled(options.budget.buffers(memory)));
    let _share = share.ok_or(PackError::Cancelled)?;

    let queue = Queue::default();
    let walk = Walk::new(directory)?;
    let to = &mut *sink;
    let (written, totals) = std::thread::scope(|scope| {
        let frames = Frames::start(scope, threads, options.level, to, progress, &queue)?;
        let mut packer = Packer {
            frames,
            index: IndexWriter::new()?,
            linked: HashMap::new(),
            totals: Totals::default(),
            progress,
            cancel,
        };
        let walked = Ahead::start(scope, walk, cancel).and_then(|ahead| packer.walk(&ahead));
        let Packer {
            frames,
            index,
            totals,
            ..
        } = packer;
        let unpacked = frames.position();
        // What the sink says goes before what its silence looked like.
        let written = frames.finish();
        match walked {
            Err(error @ PackError::NodeError { .. }) => Err(written.err().unwrap_or(error)),
            Err(error) => Err(error),
            Ok(()) => written.map(|written| (written, index, totals, unpacked)),
        }
    })
    .and_then(|(mut written, index, totals, unpacked)| {
        index.finish(&mut written, sink, &totals, unpacked)?;
        Ok((written, totals))
    })?;
    Ok(Packed {
        entries: totals.entries,
        files: totals.files,
        directories: totals.directories,
        links: totals.links,
        data: totals.data,
        stored: written.length,
        sha256: hex::encode(written.sha256()),
        left_out: totals.left_out,
        elapsed: begun.elapsed(),
    })
}

/// How many of each there were.
#[derive(Default)]
struct Totals {
    entries: u64,
    files: u64,
    directories: u64,
    links: u64,
    data: u64,
    left_out: Losses,
}

struct Packer<'scope, 'env> {
    frames: Frames<'scope>,
    index: IndexWriter,
    /// Files with several names, of which some have not been met: device and inode, the first name,
    /// and how many are left.
    linked: HashMap<(u64, u64), (Vec<u8>, u64)>,
    totals: Totals,
    progress: &'env Progress,
    cancel: &'env CancellationToken,
}

impl Packer<'_, '_> {
    fn walk(&mut self, ahead: &Ahead) -> Result<(), PackError> {
        while let Some(next) = ahead.next()? {
            if self.cancel.is_cancelled() {
                return Err(PackError::Cancelled);
            }
            self.next(next)?;
            self.progress.add_entry();
        }
        // The end of the archive is two empty blocks.
        self.frames.make_room(2 * BLOCK as u64)?;
        self.frames.write(&[0; 2 * BLOCK])
    }

    fn next(&mut self, next: Next) -> Result<(), PackError> {
        let Next {
            found,
            metadata,
            content,
        } = next;
        let found = &*found;
        let failed = |errno| PackError::read(&found.path, errno);
        if found.is_mount {
            self.totals
                .left_out
                .add("what is mounted there", &found.path);
        }
        if let Some(first) = self.met_before(found) {
            self.totals.links += 1;
            let kind = Kind::HardLink(first);
            return self.entry(found, metadata, kind).map(drop);
        }
        let kind = match found.kind() {
            FileType::RegularFile => {
                return match content {
                    Some(content) => self.small_file(found, metadata, &content),
                    None => self.file(found, metadata),
                };
            }
            FileType::Directory => {
                self.totals.directories += 1;
                Kind::Directory
            }
            FileType::Symlink => {
                self.totals.links += 1;
                Kind::Symlink(inode::target(found).map_err(failed)?)
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharacterDevice(inode::device(found)),
            FileType::BlockDevice => Kind::BlockDevice(inode::device(found)),
            FileType::Socket | FileType::Unknown => {
                self.totals.left_out.add("socket", &found.path);
                return Ok(());
            }
        };
        self.entry(found, metadata, kind).map(drop)
    }

    /// The name under which a file is in the archive already.
    fn met_before(&mut self, found: &Found) -> Option<Vec<u8>> {
        let names = found.stat.st_nlink;
        if found.kind() == FileType::Directory || names < 2 {
            return None;
        }
        let inode = (found.stat.st_dev, found.stat.st_ino);
        let Some((first, left)) = self.linked.get_mut(&inode) else {
            let first = (named(&found.path), names.saturating_sub(1));
            self.linked.insert(inode, first);
            return None;
        };
        let first = first.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.linked.remove(&inode);
        }
        Some(first)
    }

    /// A regular file that was read before.
    fn small_file(
        &mut self,
        found: &Found,
        metadata: Metadata,
        content: &SmallContent,
    ) -> Result<(), PackError> {
        let size = content.bytes.len() as u64;
        let record = self.entry(found, metadata, Kind::File(Layout::Dense(size)))?;
        self.frames.write(&content.bytes)?;
        self.progress.add_consumed(size);
        let content = Content {
            stored: size,
            size,
            digest: content.digest,
        };
        self.end_of_file(record, content)
    }

    /// A regular file and its data.
    fn file(&mut self, found: &Found, metadata: Metadata) -> Result<(), PackError> {
        let failed = |errno| PackError::read(&found.path, errno);
        let file = inode::open(found).map_err(failed)?;
        let opened = fstat(&file).map_err(failed)?;
        if !inode::is_unchanged(&found.stat, &opened) {
            return Err(PackError::changed(&found.path));
        }
        let size = u64::try_from(opened.st_size).unwrap_or_default();
        let (layout, extents) = match inode::extents(&file, &opened).map_err(failed)? {
            Some(extents) => (
                Layout::Sparse {
                    size,
                    extents: extents.clone(),
                },
                extents,
            ),
            None => (
                Layout::Dense(size),
                vec![Extent {
                    offset: 0,
                    length: size,
                }],
            ),
        };
        let record = self.entry(found, metadata, Kind::File(layout))?;
        let mut hasher = blake3::Hasher::new();
        let mut stored = 0;
        for extent in &extents {
            self.data(found, &file, *extent, &mut hasher)?;
            stored += extent.length;
        }
        if !inode::is_unchanged(&opened, &fstat(&file).map_err(failed)?) {
            return Err(PackError::changed(&found.path));
        }
        let content = Content {
            stored,
            size,
            digest: hasher.finalize().into(),
        };
        self.end_of_file(record, content)
    }

    /// Completes the last block of a file's data, and notes it.
    fn end_of_file(&mut self, record: Record, content: Content) -> Result<(), PackError> {
        let stored = content.stored;
        let padding = stored.next_multiple_of(BLOCK as u64) - stored;
        // Less than a block.
        let padding = usize::try_from(padding).unwrap_or_default();
        self.frames.write(&[0; BLOCK][..padding])?;
        self.totals.files += 1;
        self.totals.data += stored;
        self.index.add(&Record {
            content: Some(content),
            ..record
        })
    }

    /// The data of one extent.
    fn data(
        &mut self,
        found: &Found,
        file: &OwnedFd,
        extent: Extent,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), PackError> {
        let (mut offset, end) = (extent.offset, extent.offset + extent.length);
        expect(file, offset, end.min(offset.saturating_add(AHEAD)));
        while offset < end {
            if self.cancel.is_cancelled() {
                return Err(PackError::Cancelled);
            }
            let wanted = (end - offset).min(READ);
            let ahead = offset.saturating_add(AHEAD);
            expect(file, ahead, end.min(ahead.saturating_add(wanted)));
            let bytes = self.frames.read(wanted, |buffer| {
                loop {
                    match pread(file, &mut *buffer, offset) {
                        Err(Errno::INTR) => {}
                        other => break other,
                    }
                }
            });
            let bytes = bytes.map_err(|errno| PackError::read(&found.path, errno))?;
            if bytes.is_empty() {
                return Err(PackError::changed(&found.path));
            }
            hasher.update(bytes);
            let count = bytes.len() as u64;
            offset += count;
            self.progress.add_consumed(count);
            self.frames.cut_full()?;
        }
        Ok(())
    }

    /// The headers of an entry. Its record is in the index already, unless it is a file.
    fn entry(
        &mut self,
        found: &Found,
        metadata: Metadata,
        kind: Kind,
    ) -> Result<Record, PackError> {
        let mut path = named(&found.path);
        if kind == Kind::Directory && !found.path.is_empty() {
            path.push(b'/');
        }
        let entry = Entry {
            path,
            kind,
            metadata,
            names: OwnerNames::default(),
            lost: Vec::new(),
        };
        let encoded = header::encode(&entry).map_err(|_| PackError::Refused {
            path: printable(&found.path),
            why: "no tar archive has room for its device numbers; leave the node out",
        })?;
        let headers = (encoded.headers.len() + encoded.map.len()) as u64;
        self.frames.make_room(headers + stored(&entry.kind))?;
        let record = Record {
            kind: index::kind(&entry),
            offset: self.frames.position(),
            path: entry.path,
            content: None,
        };
        self.frames.write(&encoded.headers)?;
        self.frames.write(&encoded.map)?;
        self.totals.entries += 1;
        if !matches!(entry.kind, Kind::File(_)) {
            self.index.add(&record)?;
        }
        Ok(record)
    }
}

/// A name as `tar -C DIR .` writes it: GNU tar would otherwise be done with `./`, its times too, when
/// the first name comes that does not begin with that.
fn named(path: &[u8]) -> Vec<u8> {
    [b"./", path].concat()
}

/// Bytes that are read at once, so that cancelling is noticed.
const READ: u64 = 1 << 20;

/// Bytes that are on their way from the disk while those before are hashed: by itself the kernel reads
/// ahead so little that disk and processors take turns.
const AHEAD: u64 = 8 << 20;

/// Lets the kernel read a part of a file that will be asked for soon.
fn expect(file: &OwnedFd, from: u64, to: u64) {
    let mut at = from;
    while let Some(length) = to.checked_sub(at).and_then(NonZeroU64::new) {
        let length = length.min(ADVICE);
        // Advice that a file system does not take changes nothing.
        let _ = fadvise(file, at, Some(length), Advice::WillNeed);
        at += length.get();
    }
}

/// Of a longer advice the kernel may take no more than this, the readahead of a disk as it is delivered.
const ADVICE: NonZeroU64 = NonZeroU64::new(128 << 10).expect("not zero");

/// Bytes of data in the archive, the padding included.
fn stored(kind: &Kind) -> u64 {
    let data = match kind {
        Kind::File(Layout::Dense(size)) => *size,
        Kind::File(Layout::Sparse { extents, .. }) => {
            extents.iter().map(|extent| extent.length).sum()
        }
        _ => 0,
    };
    data.next_multiple_of(BLOCK as u64)
}
