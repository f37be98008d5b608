//! What a restore that succeeded has to say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::printable;
use crate::format::Format;

/// How far bytes are known to be those that were stored, from nothing to all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verified {
    /// Some of them, or all, had no checksum.
    None,
    /// The format's own checksums covered all of them.
    Stream,
    /// The digests of an index of our own covered every file that was restored, besides that.
    PerFile,
    /// The stored object has the SHA-256 that the caller expected.
    Sha256,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Stream => "Stream",
            Self::PerFile => "PerFile",
            Self::Sha256 => "Sha256",
        })
    }
}

/// A completed restore: everything is in place and durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the object was.
    pub format: Format,
    /// Entries in the archive, of every kind.
    pub entries: u64,
    /// Regular files made (an entry that replaced an earlier one counts again).
    pub files: u64,
    /// Directories that the archive named.
    pub directories: u64,
    /// Symbolic and hard links made.
    pub links: u64,
    /// Entries that were not chosen, or whose files were there before and were to stay.
    pub left_out: u64,
    /// Bytes of file data written, holes apart.
    pub bytes_written: u64,
    /// Bytes received from the store, repeated ranges included.
    pub bytes_fetched: u64,
    /// Bytes that an attempt before, which was interrupted, had fetched and that were fetched again;
    /// those that it fetched after its last sign of life are not known.
    pub fetched_again: u64,
    /// From which byte of the object on this attempt fetched it, where one before was interrupted.
    pub resumed_at: Option<u64>,
    /// How far the data are known to be right.
    pub verified: Verified,
    /// SHA-256 of the stored object, in hexadecimal.
    pub sha256: String,
    /// What the archive has and the volume has not.
    pub lost: Losses,
    /// What was left out of entries because the caller did not want it, by kind: no loss.
    pub omitted: Losses,
    /// From the call to the end of the last write.
    pub elapsed: Duration,
    /// What of it was spent at the end, until everything was durable.
    pub syncing: Duration,
}

/// What was not restored, by kind. Nothing is left out silently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses(BTreeMap<String, Loss>);

/// The losses of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// How many entries it happened to.
    pub count: u64,
    /// The names of the first of them, fit for printing.
    pub examples: Vec<String>,
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, loss)) in self.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            let (count, examples) = (loss.count, loss.examples.join(", "));
            write!(f, "{between}{kind} of {count} ({examples})")?;
        }
        Ok(())
    }
}

/// Kinds that are told apart; a hostile archive can think of any number.
const KINDS: usize = 64;
/// Names kept for each.
const EXAMPLES: usize = 3;

impl Losses {
    /// Whether all that the archive has was restored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kinds in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Loss)> {
        self.0.iter().map(|(kind, loss)| (kind.as_str(), loss))
    }

    /// The loss of this kind, if any.
    pub fn get(&self, kind: &str) -> Option<&Loss> {
        self.0.get(kind)
    }

    /// Adds what another thread lost.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, loss) in other.0 {
            let own = self.of(&kind);
            own.count += loss.count;
            let room = EXAMPLES.saturating_sub(own.examples.len());
            own.examples.extend(loss.examples.into_iter().take(room));
        }
    }

    fn of(&mut self, kind: &str) -> &mut Loss {
        let known = self.0.contains_key(kind) || self.0.len() < KINDS;
        let kind = if known { kind } else { "other" };
        self.0.entry(kind.to_owned()).or_default()
    }

    pub(crate) fn add(&mut self, kind: &str, entry: &[u8]) {
        let loss = self.of(kind);
        loss.count += 1;
        if loss.examples.len() < EXAMPLES {
            loss.examples.push(printable(entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_and_bounded() {
        let mut losses = Losses::default();
        for index in 0..1000 {
            losses.add("POSIX ACL", format!("f{index}").as_bytes());
            losses.add(&format!("kind {index}"), b"x");
        }
        let acl = losses.get("POSIX ACL").unwrap();
        assert_eq!((acl.count, acl.examples.len()), (1000, EXAMPLES));
        assert!(
            losses
                .to_string()
                .starts_with("POSIX ACL of 1000 (\"f0\", \"f1\", \"f2\"); ")
        );
        assert_eq!(losses.iter().count(), KINDS + 1);
        assert_eq!(losses.iter().map(|(_, loss)| loss.count).sum::<u64>(), 2000);
    }
}
