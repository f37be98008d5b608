//! What no restore can be faster than: one of its stages alone, or its files made from memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use crate::interruption;

/// So many does the engine use on two cores.
const THREADS: usize = 2;

const MIB: usize = 1 << 20;

/// What direct writes are aligned to, everywhere.
const ALIGNMENT: usize = 4096;

/// Decodes the frames of a zstd file to nowhere, each by one of two threads.
pub fn decode(archive: &[u8]) -> Result<()> {
    let mut frames = Vec::new();
    let mut rest = archive;
    while !rest.is_empty() {
        let length = zstd::zstd_safe::find_frame_compressed_size(rest)
            .map_err(|code| anyhow::anyhow!("{}", zstd::zstd_safe::get_error_name(code)))?;
        let (frame, others) = rest.split_at(length);
        // The others are skippable frames (RFC 8878, section 3.1.2).
        if frame.starts_with(&0xfd2f_b528_u32.to_le_bytes()) {
            frames.push(frame);
        }
        rest = others;
    }
    shared_out(&frames, |frame| {
        Ok(zstd::stream::copy_decode(*frame, io::sink())?)
    })
}

/// Writes a file of that many mebibytes as `dd oflag=direct bs=1M` does, into space that is its own.
pub fn write(folder: &Path, mebibytes: u64) -> Result<()> {
    let path = folder.join("data");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::DIRECT;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, mebibytes << 20)?;
    let mut buffer = vec![0; MIB + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    // Not zeros, which a disk might know better than to write.
    for (byte, value) in buffer.iter_mut().zip((0..=250_u8).cycle()) {
        *byte = value;
    }
    let block = &buffer[start..start + MIB];
    for number in 0..mebibytes {
        interruption::check()?;
        let written = rustix::io::pwrite(&file, block, number << 20)?;
        ensure!(written == MIB, "a short write to {}", path.display());
    }
    Ok(())
}

/// A tree with the contents of its files.
pub struct Tree {
    folders: Vec<Folder>,
}

/// A folder beneath the root of the tree, and the files in it.
struct Folder {
    path: PathBuf,
    stat: Stat,
    files: Vec<(Vec<u8>, Stat, Vec<u8>)>,
}

impl Tree {
    /// Reads all of it.
    pub fn read(root: &Path) -> Result<Self> {
        let mut folders = Vec::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let here = root.join(&path);
            let stat = rustix::fs::lstat(&here)?;
            let mut files = Vec::new();
            for entry in fs::read_dir(&here)? {
                let entry = entry?;
                let name = entry.file_name();
                if entry.file_type()?.is_dir() {
                    pending.push(path.join(&name));
                } else {
                    let stat = rustix::fs::lstat(entry.path())?;
                    files.push((name.as_bytes().to_vec(), stat, fs::read(entry.path())?));
                }
            }
            folders.push(Folder { path, stat, files });
        }
        Ok(Self { folders })
    }

    /// Makes it in an empty folder with owners, modes and times, by two threads, each with a folder
    /// of its own at any time.
    pub fn create(&self, root: &Path) -> Result<()> {
        // A folder comes before those in it.
        for folder in self.folders.iter().skip(1) {
            fs::create_dir(root.join(&folder.path))?;
        }
        shared_out(&self.folders, |folder| folder.fill(root))?;
        for folder in self.folders.iter().rev() {
            dress(open_folder(root, &folder.path)?.as_fd(), &folder.stat)?;
        }
        Ok(())
    }
}

impl Folder {
    fn fill(&self, root: &Path) -> Result<()> {
        let folder = open_folder(root, &self.path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        for (name, stat, content) in &self.files {
            let mode = Mode::from_raw_mode(0o600);
            let file = rustix::fs::openat(&folder, name.as_slice(), flags, mode)?;
            let mut rest = content.as_slice();
            while !rest.is_empty() {
                rest = &rest[rustix::io::write(&file, rest)?..];
            }
            dress(file.as_fd(), stat)?;
        }
        Ok(())
    }
}

fn open_folder(root: &Path, path: &Path) -> Result<OwnedFd> {
    let folder = root.join(path);
    let file = File::open(&folder).with_context(|| folder.display().to_string())?;
    Ok(file.into())
}

/// Owner, mode and times.
fn dress(file: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let owner = Uid::from_raw(stat.st_uid);
    rustix::fs::fchown(file, Some(owner), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec)?,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(file, &times)?;
    Ok(())
}

/// Each piece of work by one of the threads, in order.
fn shared_out<T: Sync>(work: &[T], done: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(piece) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            done(piece)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
