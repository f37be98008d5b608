//! Where a file's bytes lie on its file system.

use std::fs::File;
use std::path::Path;

use super::{Attempt as _, Failed, raw};

/// How many extents the kernel is asked for at a time.
const BATCH: usize = 512;

/// A run of bytes of a file that lie in one place, or are promised a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file, in bytes.
    pub logical: u64,
    /// Where it begins on the file system's device, in bytes. Means nothing unless [`Self::is_placed`].
    pub physical: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The kernel's remarks, `FIEMAP_EXTENT_*` of `linux/fiemap.h`.
    flags: u32,
}

const UNKNOWN: u32 = 0x2;
const DELALLOC: u32 = 0x4;
const ENCODED: u32 = 0x8;
const NOT_ALIGNED: u32 = 0x100;
const UNWRITTEN: u32 = 0x800;
const SHARED: u32 = 0x2000;

impl Extent {
    /// As the kernel reports it.
    pub(super) fn new(logical: u64, physical: u64, length: u64, flags: u32) -> Self {
        Self {
            logical,
            physical,
            length,
            flags,
        }
    }

    /// Where it ends in the file, in bytes.
    pub fn end(&self) -> u64 {
        self.logical + self.length
    }

    /// Whether [`Self::physical`] says where the bytes themselves lie.
    pub fn is_placed(&self) -> bool {
        self.flags & (UNKNOWN | DELALLOC | ENCODED | NOT_ALIGNED) == 0
    }

    /// Whether it has a place and was never written, so that it reads as zeros.
    pub fn is_unwritten(&self) -> bool {
        self.flags & UNWRITTEN != 0
    }

    /// Whether other files have the same blocks.
    pub fn is_shared(&self) -> bool {
        self.flags & SHARED != 0
    }
}

/// The extents of a file from `start` on, in order; the first may begin before.
pub fn of(file: &File, start: u64) -> Extents<'_> {
    Extents {
        file,
        next: start,
        batch: Vec::new().into_iter(),
        ended: false,
    }
}

/// See [`of`].
#[derive(Debug)]
pub struct Extents<'a> {
    file: &'a File,
    next: u64,
    batch: std::vec::IntoIter<Extent>,
    ended: bool,
}

impl Iterator for Extents<'_> {
    type Item = std::io::Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(extent) = self.batch.next() {
                return Some(Ok(extent));
            }
            if self.ended {
                return None;
            }
            let (batch, last) = match raw::fiemap(self.file, self.next, BATCH) {
                Ok(found) => found,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            self.ended = last || batch.is_empty();
            self.next = batch.last().map_or(self.next, Extent::end);
            self.batch = batch.into_iter();
        }
    }
}

/// How a file lies on its file system, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// How many bytes lie in blocks that no other file has.
    pub owned: u64,
    /// In how many extents it lies.
    pub extents: u64,
}

/// Goes through all extents of the file at `path`.
pub fn survey(path: &Path) -> Result<Survey, Failed> {
    let attempt = || format!("read the extents of {}", path.display());
    let file = File::open(path).attempt(attempt)?;
    let mut survey = Survey::default();
    for extent in of(&file, 0) {
        let extent = extent.attempt(attempt)?;
        survey.extents += 1;
        if !extent.is_shared() {
            survey.owned += extent.length;
        }
    }
    Ok(survey)
}

/// Whether anything was ever written to the file at `path`.
pub fn is_written(path: &Path) -> Result<bool, Failed> {
    let attempt = || format!("read the extents of {}", path.display());
    let file = File::open(path).attempt(attempt)?;
    for extent in of(&file, 0) {
        if !extent.attempt(attempt)?.is_unwritten() {
            return Ok(true);
        }
    }
    Ok(false)
}
