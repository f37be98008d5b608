//! BLAKE3 of a file's data, which can be interrupted and go on later.
//!
//! BLAKE3 is a tree (section 2.1 of its paper): parts whose length is a power of two are nodes of it, and
//! two neighbours of the same size make the next larger one. So all that has to be kept of what was hashed
//! is a node for each bit in the number of parts.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use serde::{Deserialize, Serialize};

/// Bytes in a part, as many as a large file is written in at once.
const PART: u64 = 1 << 20;

/// A digest of what has come so far.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    done: Parts,
    /// Of the part behind those, and how much there is of it.
    part: Hasher,
    length: u64,
}

/// Whole parts, with data behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parts {
    count: u64,
    /// The nodes of those, the largest first.
    nodes: Vec<ChainingValue>,
}

impl Default for Digest {
    fn default() -> Self {
        Self::after(Parts::default())
    }
}

impl Digest {
    /// Goes on behind these.
    pub(crate) fn after(done: Parts) -> Self {
        let mut part = Hasher::new();
        part.set_input_offset(done.count * PART);
        Self {
            done,
            part,
            length: 0,
        }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.room() == 0 {
                *self = Self::after(self.with_part());
            }
            let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.part.update(now);
            self.length += now.len() as u64;
            bytes = rest;
        }
    }

    /// Bytes until [`Digest::parts`] are known next.
    pub(crate) fn next_parts(&self) -> u64 {
        match self.room() {
            0 => PART,
            room => room,
        }
    }

    fn room(&self) -> u64 {
        PART - self.length
    }

    /// What to go on from, if data follow; known at the end of a part.
    pub(crate) fn parts(&self) -> Option<Parts> {
        match self.length {
            0 => Some(self.done.clone()),
            PART => Some(self.with_part()),
            _ => None,
        }
    }

    /// The parts so far and the current one, which is whole and not the last.
    fn with_part(&self) -> Parts {
        let mut done = self.done.clone();
        let mut node = self.part.finalize_non_root();
        done.count += 1;
        for _ in 0..done.count.trailing_zeros() {
            if let Some(left) = done.nodes.pop() {
                node = merge_subtrees_non_root(&left, &node, Mode::Hash);
            }
        }
        done.nodes.push(node);
        done
    }

    /// BLAKE3 of everything.
    pub(crate) fn finalize(&self) -> [u8; 32] {
        let Some((root, others)) = self.done.nodes.split_first() else {
            return self.part.finalize().into();
        };
        let mut node = self.part.finalize_non_root();
        for left in others.iter().rev() {
            node = merge_subtrees_non_root(left, &node, Mode::Hash);
        }
        merge_subtrees_root(root, &node, Mode::Hash).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_blake3_however_it_is_interrupted() {
        let data: Vec<u8> = (0_u32..3 << 20).flat_map(u32::to_le_bytes).collect();
        let part = usize::try_from(PART).unwrap();
        for length in [0, 1, 1023, 1024, 1025, part - 1, part, part + 1]
            .into_iter()
            .chain((2..12).flat_map(|parts| [parts * part - 7, parts * part, parts * part + 7]))
        {
            let whole = &data[..length];
            let expected: [u8; 32] = blake3::hash(whole).into();
            let (mut steady, mut interrupted) = (Digest::default(), Digest::default());
            let mut kept = 0;
            for bytes in whole.chunks(77_777) {
                steady.update(bytes);
            }
            for bytes in whole.chunks(part / 4) {
                interrupted.update(bytes);
                let parts = interrupted.parts();
                if let Some(parts) = parts.filter(|_| kept + part < length) {
                    kept += part;
                    let text = serde_json::to_string(&parts).unwrap();
                    interrupted = Digest::after(serde_json::from_str(&text).unwrap());
                }
            }
            assert_eq!(steady.finalize(), expected, "{length}");
            assert_eq!(interrupted.finalize(), expected, "{length}");
            assert_eq!(kept, (length.max(1) - 1) / part * part);
        }
    }
}
