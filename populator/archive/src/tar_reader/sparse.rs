//! Maps of sparse files, in the forms that GNU tar has written them.

use super::TarReader;
use super::header::{BLOCK, Block};
use super::pax::Pax;
use crate::entry::{Extent, Layout};
use crate::error::{RestoreError, printable};
use crate::stream::Stream;

/// The most extents that one file may have: 4 MiB of them are held in memory.
pub(super) const EXTENTS_MAX: usize = 1 << 18;

/// Why a map is not followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It makes no sense.
    Wrong(&'static str),
    /// It has more than [`EXTENTS_MAX`] extents.
    TooLong,
}

impl Fault {
    fn of(self, name: &[u8]) -> RestoreError {
        match self {
            Self::Wrong(why) => {
                let name = printable(name);
                RestoreError::corrupt(format!("the sparse file {name}: {why}"))
            }
            Self::TooLong => {
                let why = format!(
                    "the sparse file is in more than {EXTENTS_MAX} pieces; archive it without \
                     --sparse, zeros take little room when they are compressed"
                );
                RestoreError::refused(name, why)
            }
        }
    }
}

/// Whether `path` stands for the sparse file `name`, which is what GNU tar writes for programs that do
/// not know sparse files: `DIRECTORY/GNUSparseFile.PID/FILE`, of which a long one is cut at 100 bytes,
/// perhaps within the directory. libarchive gives the path itself, and where it is long (seen with
/// 3.6.2) leaves directories out of the other.
pub(super) fn is_stand_in(path: &[u8], name: &[u8]) -> bool {
    const MARK: &[u8] = b"GNUSparseFile.";
    let slash = name.iter().rposition(|byte| *byte == b'/');
    let directory = slash.map_or(&b""[..], |slash| &name[..=slash]);
    let mut parts = path.split(|byte| *byte == b'/');
    parts.any(|part| part.starts_with(MARK)) || [directory, MARK].concat().starts_with(path)
}

/// Offsets and lengths in turn, as PAX records have them.
fn extents_of_pairs(pairs: &[u64]) -> Result<Vec<Extent>, Fault> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::Wrong("its map has an odd number of figures"));
    }
    Ok(pairs
        .iter()
        .map(|[offset, length]| Extent {
            offset: *offset,
            length: *length,
        })
        .collect())
}

/// The extents if they are in order, within the file, and have as much data as is stored.
fn checked(mut extents: Vec<Extent>, size: u64, stored: u64) -> Result<Vec<Extent>, Fault> {
    if size > i64::MAX as u64 {
        return Err(Fault::Wrong("its real size is beyond any file"));
    }
    let (mut end, mut total) = (0, 0);
    for extent in &extents {
        if extent.offset < end {
            return Err(Fault::Wrong("its extents overlap or are out of order"));
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .ok_or(Fault::Wrong("its map is out of range"))?;
        // Without overlaps the sum is at most the end.
        total += extent.length;
    }
    if end > size {
        return Err(Fault::Wrong("its map goes beyond its size"));
    }
    if total != stored {
        return Err(Fault::Wrong("its map and its data differ in length"));
    }
    // GNU tar marks the end of a file with an empty extent.
    extents.retain(|extent| extent.length > 0);
    Ok(extents)
}

/// Reads the map of PAX sparse 1.0: the count, then offsets and lengths, each in a line of its own.
#[derive(Default)]
struct MapParser {
    count: Option<usize>,
    extents: Vec<Extent>,
    /// The offset whose length comes next.
    offset: Option<u64>,
    /// The figure being read, once it has a digit.
    value: Option<u64>,
}

impl MapParser {
    /// Whether all figures have been read. What is left of the last block is padding.
    fn is_complete(&self) -> bool {
        self.count == Some(self.extents.len())
    }

    fn block(&mut self, block: &[u8; BLOCK]) -> Result<(), Fault> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            match byte {
                b'0'..=b'9' => {
                    let value = self.value.unwrap_or(0).checked_mul(10);
                    let value = value.and_then(|value| value.checked_add(u64::from(byte - b'0')));
                    let out_of_range = Fault::Wrong("a figure in its map is out of range");
                    self.value = Some(value.ok_or(out_of_range)?);
                }
                b'\n' => {
                    let empty = Fault::Wrong("a line of its map is empty");
                    let value = self.value.take().ok_or(empty)?;
                    self.figure(value)?;
                }
                _ => return Err(Fault::Wrong("its map is malformed")),
            }
        }
        Ok(())
    }

    fn figure(&mut self, value: u64) -> Result<(), Fault> {
        if self.count.is_none() {
            let count = usize::try_from(value).ok();
            let count = count.filter(|count| *count <= EXTENTS_MAX);
            self.count = Some(count.ok_or(Fault::TooLong)?);
            return Ok(());
        }
        match self.offset.take() {
            None => self.offset = Some(value),
            Some(offset) => self.extents.push(Extent {
                offset,
                length: value,
            }),
        }
        Ok(())
    }
}

impl<S: Stream> TarReader<S> {
    /// How a regular file lies in the archive, by its PAX keys.
    pub(super) fn layout(&mut self, pax: &Pax, stored: u64) -> Result<Layout, RestoreError> {
        if !pax.sparse.is_sparse() {
            return Ok(Layout::Dense(stored));
        }
        let Some(size) = pax.sparse.size else {
            return Err(self.faulty(Fault::Wrong("its real size is missing")));
        };
        let extents = match (pax.sparse.major, pax.sparse.minor) {
            (None | Some(0), _) => {
                extents_of_pairs(&pax.sparse.map).map_err(|fault| self.faulty(fault))?
            }
            (Some(1), None | Some(0)) => self.extents_in_data()?,
            (Some(major), minor) => {
                let version = format!("{major}.{}", minor.unwrap_or(0));
                let why = format!("sparse files of version {version} are not known");
                return Err(RestoreError::refused(&self.current, why));
            }
        };
        self.sparse_layout(extents, size)
    }

    /// The map at the start of the data (PAX sparse 1.0): numbers in lines, padded to a block.
    fn extents_in_data(&mut self) -> Result<Vec<Extent>, RestoreError> {
        let mut parser = MapParser::default();
        while !parser.is_complete() {
            if self.remaining < BLOCK as u64 {
                return Err(self.faulty(Fault::Wrong("its map is not complete")));
            }
            let block = self.block()?;
            self.remaining -= BLOCK as u64;
            parser
                .block(block.bytes())
                .map_err(|fault| self.faulty(fault))?;
        }
        Ok(parser.extents)
    }

    /// The map in the header and in the blocks after it (old GNU sparse).
    pub(super) fn gnu_sparse(&mut self, block: &Block, pax: &Pax) -> Result<Layout, RestoreError> {
        if pax.sparse.is_sparse() {
            return Err(self.faulty(Fault::Wrong("it is sparse in two ways at once")));
        }
        let Some((mut extents, size, mut more)) = block.sparse()? else {
            let why = "its sparse format is not known; archive it with GNU tar";
            return Err(RestoreError::refused(&self.current, why));
        };
        while more {
            if extents.len() > EXTENTS_MAX {
                return Err(self.faulty(Fault::TooLong));
            }
            let block = self.block()?;
            more = block.sparse_continued(&mut extents)?;
        }
        self.sparse_layout(extents, size)
    }

    /// The layout, once the map is known and only data remain.
    fn sparse_layout(&self, extents: Vec<Extent>, size: u64) -> Result<Layout, RestoreError> {
        let extents = checked(extents, size, self.remaining).map_err(|fault| self.faulty(fault))?;
        Ok(Layout::Sparse { size, extents })
    }

    fn faulty(&self, fault: Fault) -> RestoreError {
        fault.of(&self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn stand_ins_are_told_from_names() {
        let long = format!("./{}/{}/file", "d".repeat(60), "e".repeat(60));
        let cut = |length| &long.as_bytes()[..length];
        for (path, name) in [
            (&b"./GNUSparseFile.7/file"[..], &b"./file"[..]),
            (b"GNUSparseFile.7/file", b"file"),
            // As much of a stand-in as 100 bytes have room for.
            (cut(100), long.as_bytes()),
            (cut(long.len() - 5), long.as_bytes()),
            (cut(long.len() - 4), long.as_bytes()),
            (&[cut(long.len() - 4), b"GNUSpar"].concat(), long.as_bytes()),
        ] {
            assert!(is_stand_in(path, name), "{}", printable(path));
        }
        for name in [&b"file"[..], b"./d/file", long.as_bytes()] {
            assert!(!is_stand_in(long.as_bytes(), name), "{}", printable(name));
        }
    }

    #[test]
    fn maps_that_contradict_themselves_are_errors() {
        let good = vec![extent(0, 5), extent(5, 5), extent(20, 0)];
        assert_eq!(checked(good, 20, 10), Ok(vec![extent(0, 5), extent(5, 5)]));
        assert!(checked(vec![extent(0, 5), extent(4, 5)], 20, 10).is_err());
        assert!(checked(vec![extent(8, 5), extent(0, 5)], 20, 10).is_err());
        assert!(checked(vec![extent(0, 5)], 4, 5).is_err());
        assert!(checked(vec![extent(0, 5)], 5, 4).is_err());
        assert!(checked(vec![extent(u64::MAX, 5)], 5, 5).is_err());
        assert!(checked(vec![], u64::MAX, 0).is_err());
        assert!(extents_of_pairs(&[1, 2, 3]).is_err());
    }

    #[test]
    fn a_map_may_cross_blocks() {
        let mut text = b"100\n".to_vec();
        for index in 0..100_u64 {
            text.extend_from_slice(format!("{}\n{}\n", index * 1_000_000, 10).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK), 0);
        let mut parser = MapParser::default();
        let (blocks, _) = text.as_chunks::<BLOCK>();
        for block in blocks {
            assert!(!parser.is_complete());
            parser.block(block).unwrap();
        }
        assert!(parser.is_complete());
        assert_eq!(parser.extents[99], extent(99_000_000, 10));
        let mut endless = [b'9'; BLOCK];
        endless[7] = b'\n';
        assert!(MapParser::default().block(&endless).is_err());
        let mut many = [b'\n'; BLOCK];
        many[..6].copy_from_slice(b"262145");
        assert_eq!(MapParser::default().block(&many), Err(Fault::TooLong));
    }
}
