//! Files that are handed over to be made and may not be there yet.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Beyond so many it is time to settle: a path takes 8 bytes here, and so do the directories above.
const MANY: usize = 32 << 10;

/// The paths of such files. Only hashes are kept, so it may say yes too often.
#[derive(Debug, Default)]
pub(super) struct Pending {
    files: HashSet<u64>,
    /// The directories above them.
    above: HashSet<u64>,
}

impl Pending {
    /// A file is handed over.
    pub(super) fn add(&mut self, path: &[u8]) {
        let mut prefixes: Vec<_> = prefixes(path).map(hash).collect();
        self.files.extend(prefixes.pop());
        self.above.extend(prefixes);
    }

    /// Whether what is to be made or looked up at `path` may meet one of them: at the path itself, on
    /// the way there, or, if a directory may have to make room, beneath.
    pub(super) fn concerns(&self, path: &[u8], makes_room: bool) -> bool {
        if self.files.is_empty() {
            return false;
        }
        let beneath = makes_room && self.above.contains(&hash(path));
        beneath || prefixes(path).any(|prefix| self.files.contains(&hash(prefix)))
    }

    /// Whether there are too many to remember.
    pub(super) fn are_many(&self) -> bool {
        self.files.len() + self.above.len() >= MANY
    }

    /// All are made.
    pub(super) fn clear(&mut self) {
        self.files.clear();
        self.above.clear();
    }
}

/// The directories on the way to a path, from the top, and the path itself.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let ends = slashes.map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end])
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_meet_a_file_that_is_not_there_yet() {
        let mut pending = Pending::default();
        assert!(!pending.concerns(b"a/b/c", true));
        pending.add(b"a/b/c");
        for (path, makes_room, expected) in [
            (&b"a/b/c"[..], false, true),
            (b"a/b/c/d", false, true),
            (b"a/b", false, false),
            (b"a/b", true, true),
            (b"a", true, true),
            (b"a/b/d", true, false),
            (b"a/bc", true, false),
        ] {
            let found = pending.concerns(path, makes_room);
            assert_eq!(found, expected, "{}", path.escape_ascii());
        }
        pending.clear();
        assert!(!pending.concerns(b"a/b/c", true));
    }
}
