//! Maps of sparse files, in the forms that GNU tar has written them.

use super::header::BLOCK;
use crate::entry::Extent;

/// The most extents of one file that are held in memory (16 MiB of them).
pub(super) const EXTENTS_MAX: usize = 1 << 20;

/// Offsets and lengths in turn, as PAX records have them.
pub(super) fn extents_of_pairs(pairs: &[u64]) -> Result<Vec<Extent>, &'static str> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("its map has an odd number of figures");
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
pub(super) fn checked(
    mut extents: Vec<Extent>,
    size: u64,
    stored: u64,
) -> Result<Vec<Extent>, &'static str> {
    if size > i64::MAX as u64 {
        return Err("its real size is beyond any file");
    }
    let (mut end, mut total) = (0, 0);
    for extent in &extents {
        if extent.offset < end {
            return Err("its extents overlap or are out of order");
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .ok_or("its map is out of range")?;
        // Without overlaps the sum is at most the end.
        total += extent.length;
    }
    if end > size {
        return Err("its map goes beyond its size");
    }
    if total != stored {
        return Err("its map and its data differ in length");
    }
    // GNU tar marks the end of a file with an empty extent.
    extents.retain(|extent| extent.length > 0);
    Ok(extents)
}

/// Reads the map of PAX sparse 1.0: the count, then offsets and lengths, each in a line of its own.
#[derive(Default)]
pub(super) struct MapParser {
    count: Option<usize>,
    pairs: Vec<u64>,
    /// The figure being read, once it has a digit.
    value: Option<u64>,
}

impl MapParser {
    /// Whether all figures have been read. What is left of the last block is padding.
    pub(super) fn is_complete(&self) -> bool {
        self.count
            .is_some_and(|count| self.pairs.len() == 2 * count)
    }

    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<(), &'static str> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            match byte {
                b'0'..=b'9' => {
                    let value = self.value.unwrap_or(0).checked_mul(10);
                    let value = value.and_then(|value| value.checked_add(u64::from(byte - b'0')));
                    self.value = Some(value.ok_or("a figure in its map is out of range")?);
                }
                b'\n' => {
                    let value = self.value.take().ok_or("a line of its map is empty")?;
                    self.figure(value)?;
                }
                _ => return Err("its map is malformed"),
            }
        }
        Ok(())
    }

    fn figure(&mut self, value: u64) -> Result<(), &'static str> {
        if self.count.is_some() {
            self.pairs.push(value);
            return Ok(());
        }
        let count = usize::try_from(value)
            .ok()
            .filter(|count| *count <= EXTENTS_MAX);
        self.count = Some(count.ok_or("its map is too long")?);
        Ok(())
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        extents_of_pairs(&self.pairs).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
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
        assert_eq!(parser.extents()[99], extent(99_000_000, 10));
        let mut endless = [b'9'; BLOCK];
        endless[7] = b'\n';
        assert!(MapParser::default().block(&endless).is_err());
    }
}
