//! Which parts of a snapshot hold data, and which differ from another snapshot of the volume.
//!
//! No byte is read: it is the pool's file system that knows. Images that share a block have it at
//! the same physical address, and a snapshot is never written, so a part is *unchanged* exactly
//! if both have it at one address or both have nothing there. Where the file system does not say
//! where a part lies, it counts as changed. Whether a block is marked as shared says nothing: the
//! volume itself shares changed blocks with later snapshots.
//!
//! What a snapshot holds is what makes it differ from an empty one, so there is one comparison.

use std::fs::File;
use std::io;

use tonic::Code;

use super::Coded;
use super::snapshot;
use super::validate::LookupError;
use crate::kernel::extents::{self, Extent};
use crate::kernel::{Attempt as _, Failed};
use crate::pool::{Busy, Lock, Pool};
use crate::volume::{SnapshotId, VolumeId};

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub start: u64,
    /// Where it ends: the first byte that is not in it.
    pub end: u64,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Question {
    /// What to compare with; `None` for nothing, so that all data count.
    pub base: Option<SnapshotId>,
    /// The snapshot whose parts are wanted.
    pub target: SnapshotId,
    /// From which byte on.
    pub start: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// One of the snapshots is being deleted.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// There is no such snapshot, or no telling.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// They show different volumes.
    #[error("the base shows {base} and the target {target}; compare snapshots of one volume")]
    Strangers {
        /// What the base shows.
        base: VolumeId,
        /// What the target shows.
        target: VolumeId,
    },
    /// Nothing is there to tell of.
    #[error("starting_offset {start} is beyond the end of the snapshot, which has {size} bytes")]
    Beyond {
        /// Where it was to begin.
        start: u64,
        /// Where the snapshot ends.
        size: u64,
    },
    /// The kernel refused a call.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Coded for MetadataError {
    fn code(&self) -> Code {
        match self {
            Self::Busy(_) => Code::Aborted,
            Self::Lookup(error) => error.code(),
            Self::Strangers { .. } => Code::InvalidArgument,
            Self::Beyond { .. } => Code::OutOfRange,
            Self::Failed(failed) => failed.code(),
        }
    }
}

/// An answer that is given piece by piece. Until it is dropped the snapshots stay.
#[derive(Debug)]
pub struct Answer {
    base: Option<Image>,
    target: Image,
    /// Up to where everything was told.
    told: u64,
}

/// A snapshot's image, open.
#[derive(Debug)]
struct Image {
    file: File,
    name: SnapshotId,
    size: u64,
    _lock: Lock,
}

/// Opens what the answer is read from.
pub fn ask(pool: &Pool, question: &Question) -> Result<Answer, MetadataError> {
    let (target, shown) = open(pool, &question.target)?;
    let base = match &question.base {
        None => None,
        Some(id) => {
            let (base, volume) = open(pool, id)?;
            if volume != shown {
                return Err(MetadataError::Strangers {
                    base: volume,
                    target: shown,
                });
            }
            Some(base)
        }
    };
    if question.start > target.size {
        return Err(MetadataError::Beyond {
            start: question.start,
            size: target.size,
        });
    }
    Ok(Answer {
        base,
        target,
        told: question.start,
    })
}

fn open(pool: &Pool, id: &SnapshotId) -> Result<(Image, VolumeId), MetadataError> {
    let lock = pool.locks.read(id)?;
    let record = snapshot::look_up(pool, id)?;
    let path = pool.layout.snapshot_image(id);
    let file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
    let image = Image {
        file,
        name: id.clone(),
        size: record.size_bytes,
        _lock: lock,
    };
    Ok((image, record.volume))
}

impl Answer {
    /// The size of the snapshot in bytes.
    pub fn size(&self) -> u64 {
        self.target.size
    }

    /// The next ranges, so many at most; none when all are told.
    pub fn next(&mut self, most: usize) -> Result<Vec<Range>, MetadataError> {
        let size = self.target.size;
        let base = self
            .base
            .as_ref()
            .into_iter()
            .flat_map(|base| base.pieces(self.told));
        let target = self.target.pieces(self.told);
        let differences = Differences::new(base, target, self.told, size);
        let ranges = differences
            .take(most)
            .collect::<io::Result<Vec<_>>>()
            .attempt(|| format!("read the extents of {}", self.target.name))?;
        self.told = match ranges.last() {
            Some(last) if ranges.len() == most => last.end,
            _ => size,
        };
        Ok(ranges)
    }
}

impl Image {
    /// What the snapshot has from an offset on. Beyond its end it has nothing.
    fn pieces(&self, start: u64) -> impl Iterator<Item = io::Result<Piece>> {
        let size = self.size;
        let end_or_error = move |extent: &io::Result<Extent>| match extent {
            Ok(extent) => extent.logical < size,
            Err(_) => true,
        };
        extents::of(&self.file, start)
            .take_while(end_or_error)
            .filter_map(move |extent| extent.map(|it| Piece::of(it, size)).transpose())
    }
}

/// A part of an image in which there is something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    range: Range,
    place: Place,
}

/// Where a piece lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At this address.
    At(u64),
    /// The file system does not say.
    Unknown,
}

impl Piece {
    /// `None` for what reads as zeros, like a hole.
    fn of(extent: Extent, size: u64) -> Option<Self> {
        let place = if extent.is_placed() {
            Place::At(extent.physical)
        } else {
            Place::Unknown
        };
        let range = Range {
            start: extent.logical,
            end: extent.end().min(size),
        };
        (!extent.is_unwritten()).then_some(Self { range, place })
    }

    /// Where the byte at this offset lies, which is in this piece.
    fn place(&self, offset: u64) -> Place {
        match self.place {
            Place::At(address) => Place::At(address.wrapping_add(offset - self.range.start)),
            Place::Unknown => Place::Unknown,
        }
    }
}

/// What an image has at an offset, and how far that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Here {
    place: Option<Place>,
    end: u64,
}

/// The pieces of one image, passed through in order.
struct Walk<I> {
    pieces: I,
    current: Option<Piece>,
}

impl<I: Iterator<Item = io::Result<Piece>>> Walk<I> {
    /// What is at an offset. Offsets never go back.
    fn at(&mut self, offset: u64) -> io::Result<Here> {
        while self.current.is_none_or(|it| it.range.end <= offset) {
            self.current = self.pieces.next().transpose()?;
            if self.current.is_none() {
                break;
            }
        }
        Ok(match self.current {
            None => Here {
                place: None,
                end: u64::MAX,
            },
            Some(piece) if piece.range.start > offset => Here {
                place: None,
                end: piece.range.start,
            },
            Some(piece) => Here {
                place: Some(piece.place(offset)),
                end: piece.range.end,
            },
        })
    }
}

/// The ranges in which two images differ, in order, none touching the next.
struct Differences<B, T> {
    base: Walk<B>,
    target: Walk<T>,
    offset: u64,
    size: u64,
}

impl<B, T> Differences<B, T>
where
    B: Iterator<Item = io::Result<Piece>>,
    T: Iterator<Item = io::Result<Piece>>,
{
    fn new(base: B, target: T, start: u64, size: u64) -> Self {
        let current = None;
        Self {
            base: Walk {
                pieces: base,
                current,
            },
            target: Walk {
                pieces: target,
                current,
            },
            offset: start,
            size,
        }
    }

    /// The next stretch in which nothing begins or ends, and whether the images differ there.
    fn stretch(&mut self) -> io::Result<(Range, bool)> {
        let start = self.offset;
        let (base, target) = (self.base.at(start)?, self.target.at(start)?);
        let same = match (base.place, target.place) {
            (None, None) => true,
            (Some(Place::At(base)), Some(Place::At(target))) => base == target,
            _ => false,
        };
        let end = base.end.min(target.end).min(self.size);
        self.offset = end;
        Ok((Range { start, end }, !same))
    }
}

impl<B, T> Iterator for Differences<B, T>
where
    B: Iterator<Item = io::Result<Piece>>,
    T: Iterator<Item = io::Result<Piece>>,
{
    type Item = io::Result<Range>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut found: Option<Range> = None;
        while self.offset < self.size {
            match self.stretch() {
                Err(error) => {
                    self.offset = self.size;
                    return Some(Err(error));
                }
                Ok((stretch, true)) => {
                    let start = found.map_or(stretch.start, |found| found.start);
                    found = Some(Range { start, ..stretch });
                }
                Ok((_, false)) if found.is_some() => break,
                Ok((_, false)) => {}
            }
        }
        found.map(Ok)
    }
}

#[cfg(test)]
mod tests;
