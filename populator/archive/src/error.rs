//! Why a restore failed: one enum, each message a sentence that says what to do.

use std::fmt::Write as _;

use rustix::io::Errno;

use crate::outcome::{Losses, Verified};
use crate::source::{Retry, SourceError, SourceErrorKind};

/// Why a restore failed. Whatever it was, the directory then holds an unknown part of the archive and
/// must not be used.
#[derive(Debug, thiserror::Error, strum::EnumDiscriminants)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum RestoreError {
    /// The first bytes are those of no archive that is read here.
    #[error(
        "the object is not an archive that can be restored ({found}); store it as .tar, .tar.gz, \
         .tar.zst, .tar.xz, .tar.bz2 or .tar.lz4, or restore it onto a block device or into an image \
         file if it is the image of a disk"
    )]
    NotAnArchive {
        /// What the first bytes looked like.
        found: String,
    },
    /// The first bytes are not those of a disk, but of something that is not written onto one.
    #[error(
        "the object is not the image of a disk ({found}); restore a tar archive into a directory, and \
         store an image as it is or in gzip, zstd, xz, bzip2 or lz4"
    )]
    NotAnImage {
        /// What the first bytes are.
        found: String,
    },
    /// It is encrypted, and there is nothing to open it with.
    #[error("the archive is encrypted with age; give {needed}")]
    IdentityMissing {
        /// An identity or a passphrase.
        needed: &'static str,
    },
    /// It is encrypted for somebody else.
    #[error(
        "none of the identities that are given opens the archive, or it is not the passphrase; give \
         that of one of the recipients whom age encrypted it to"
    )]
    IdentityWrong,
    /// Making a key of its passphrase would take more than it may.
    #[error(
        "making the archive's key of a passphrase takes a work factor of {factor}, and {limit} is \
         allowed; raise that limit if you trust whoever encrypted it (each step doubles memory and \
         time, 18 takes 256 MiB), or encrypt it to a recipient"
    )]
    WorkFactorTooHigh {
        /// What the header says.
        factor: u8,
        /// What is allowed.
        limit: u8,
    },
    /// Nothing in it: most likely an upload that went wrong.
    #[error("the archive holds nothing ({found}); make the backup again")]
    ArchiveEmpty {
        /// No bytes, or no entries.
        found: &'static str,
    },
    /// It ends before its own end marker.
    #[error("the archive is cut off: {what}; upload it again, or make the backup again")]
    ArchiveTruncated {
        /// What was missing.
        what: String,
    },
    /// It contradicts itself or a checksum in it.
    #[error("the archive is damaged: {what}; upload it again, or make the backup again")]
    ArchiveCorrupt {
        /// What is wrong, with the entry or the offset.
        what: String,
    },
    /// The object is not the one whose checksum was given.
    #[error(
        "the archive's SHA-256 is {found} and {expected} was expected; upload the archive again, or \
         correct the checksum"
    )]
    ChecksumMismatch {
        /// In hexadecimal, as computed.
        found: String,
        /// In hexadecimal, as given.
        expected: String,
    },
    /// Nothing says that the data are right, or not enough.
    #[error(
        "the archive can be verified by {found} and {required} is required; give its SHA-256, or \
         store it compressed with a checksum (gzip, xz, bzip2, zstd --check, lz4)"
    )]
    Unverified {
        /// What there is.
        found: Verified,
        /// What was asked for.
        required: Verified,
    },
    /// Decompression wants more memory than a restore may take.
    #[error(
        "the archive needs a decompression window of {window} bytes and {limit} are allowed; \
         compress it again with a smaller one, such as of zstd --long=27 or xz -9"
    )]
    WindowTooLarge {
        /// What the header declares, in bytes.
        window: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// The volume has no room left.
    #[error("the volume is too small: {what}: {source}; ask for a larger volume")]
    DoesNotFit {
        /// What was being written.
        what: String,
        /// What the file system said.
        source: Errno,
    },
    /// The object was replaced while it was read.
    #[error(
        "the archive was replaced in the store during the restore ({0}); create the volume again to \
         restore the new one"
    )]
    ArchiveChanged(SourceError),
    /// The store refuses to hand it out.
    #[error(
        "the store denies access to the archive ({0}); correct the credentials, the policy or the URL"
    )]
    ArchiveDenied(SourceError),
    /// The store does not have it.
    #[error("the archive is not in the store ({0}); correct the address or upload it")]
    ArchiveMissing(SourceError),
    /// The store did not answer, also after several attempts.
    #[error("the store does not answer ({0}); it is tried again when it does")]
    StoreUnavailable(SourceError),
    /// The store said something unexpected.
    #[error("the store refused to read the archive ({0}); check its address and settings")]
    StoreRefused(SourceError),
    /// An entry that cannot or must not be restored.
    #[error("the archive's entry {entry} cannot be restored: {why}")]
    EntryRefused {
        /// Its name, fit for printing.
        entry: String,
        /// Why, and what to do.
        why: String,
    },
    /// It has more of something than it may have.
    #[error(
        "the archive has more than {limit} {what}; raise that limit if you trust whoever packed it"
    )]
    LimitExceeded {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// None of its entries was asked for.
    #[error(
        "none of the archive's {entries} entries is chosen; correct the patterns, the directory or \
         the number of parts to be taken off the names"
    )]
    NothingSelected {
        /// How many there are.
        entries: u64,
    },
    /// Something was lost, and nothing may be.
    #[error(
        "not all of the archive can be restored: {lost}; use a file system that takes it, or allow \
         losses"
    )]
    MetadataLost {
        /// What, by kind, with the first names.
        lost: Losses,
    },
    /// Restores go into empty volumes, unless something else is asked for.
    #[error("the volume is not empty: it holds {name}; restore into an empty volume")]
    VolumeNotEmpty {
        /// The first thing found, fit for printing.
        name: String,
    },
    /// The volume failed.
    #[error("the volume failed: {what}: {source}; look at the node's kernel log")]
    VolumeError {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: Errno,
    },
    /// The node could not start a thread or lost one.
    #[error("the node is short of resources: {what}; it is tried again")]
    NodeError {
        /// What failed.
        what: String,
    },
    /// The caller gave it up.
    #[error("the restore was cancelled")]
    Cancelled,
}

impl RestoreError {
    /// Whether the same restore may succeed later without anybody's help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::StoreUnavailable(_)
            | Self::VolumeError { .. }
            | Self::NodeError { .. }
            | Self::Cancelled => Retry::Transient,
            Self::NotAnArchive { .. }
            | Self::NotAnImage { .. }
            | Self::IdentityMissing { .. }
            | Self::IdentityWrong
            | Self::WorkFactorTooHigh { .. }
            | Self::ArchiveEmpty { .. }
            | Self::ArchiveTruncated { .. }
            | Self::ArchiveCorrupt { .. }
            | Self::ChecksumMismatch { .. }
            | Self::Unverified { .. }
            | Self::WindowTooLarge { .. }
            | Self::DoesNotFit { .. }
            | Self::ArchiveChanged(_)
            | Self::ArchiveDenied(_)
            | Self::ArchiveMissing(_)
            | Self::StoreRefused(_)
            | Self::EntryRefused { .. }
            | Self::LimitExceeded { .. }
            | Self::NothingSelected { .. }
            | Self::MetadataLost { .. }
            | Self::VolumeNotEmpty { .. } => Retry::Permanent,
        }
    }

    /// One CamelCase word, for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAnArchive { .. } => "NotAnArchive",
            Self::NotAnImage { .. } => "NotAnImage",
            Self::IdentityMissing { .. } => "IdentityMissing",
            Self::IdentityWrong => "IdentityWrong",
            Self::WorkFactorTooHigh { .. } => "WorkFactorTooHigh",
            Self::ArchiveEmpty { .. } => "ArchiveEmpty",
            Self::ArchiveTruncated { .. } => "ArchiveTruncated",
            Self::ArchiveCorrupt { .. } => "ArchiveCorrupt",
            Self::ChecksumMismatch { .. } => "ChecksumMismatch",
            Self::Unverified { .. } => "Unverified",
            Self::WindowTooLarge { .. } => "WindowTooLarge",
            Self::DoesNotFit { .. } => "DoesNotFit",
            Self::ArchiveChanged(_) => "ArchiveChanged",
            Self::ArchiveDenied(_) => "ArchiveDenied",
            Self::ArchiveMissing(_) => "ArchiveMissing",
            Self::StoreUnavailable(_) => "StoreUnavailable",
            Self::StoreRefused(_) => "StoreRefused",
            Self::EntryRefused { .. } => "EntryRefused",
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::NothingSelected { .. } => "NothingSelected",
            Self::MetadataLost { .. } => "MetadataLost",
            Self::VolumeNotEmpty { .. } => "VolumeNotEmpty",
            Self::VolumeError { .. } => "VolumeError",
            Self::NodeError { .. } => "NodeError",
            Self::Cancelled => "Cancelled",
        }
    }

    pub(crate) fn truncated(what: impl Into<String>) -> Self {
        Self::ArchiveTruncated { what: what.into() }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::ArchiveCorrupt { what: what.into() }
    }

    pub(crate) fn refused(entry: &[u8], why: impl Into<String>) -> Self {
        Self::EntryRefused {
            entry: printable(entry),
            why: why.into(),
        }
    }

    /// What the file system said to `doing` something with the entry of that name.
    pub(crate) fn volume(doing: &str, entry: &[u8], errno: Errno) -> Self {
        let what = format!("{doing} {}", printable(entry));
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::DoesNotFit {
                what,
                source: errno,
            },
            Errno::NAMETOOLONG => Self::refused(entry, "a part of its name exceeds 255 bytes"),
            Errno::LOOP => Self::refused(
                entry,
                "its path leads through a symbolic link, which could point out of the volume",
            ),
            Errno::NOTEMPTY => Self::refused(
                entry,
                "it would take the place of a directory that is not empty",
            ),
            Errno::MLINK => Self::refused(entry, "the file has as many links as it can have"),
            Errno::XDEV => Self::refused(entry, "its path leads into another file system"),
            Errno::NOTDIR => Self::refused(
                entry,
                "its path leads through something that is not a directory",
            ),
            Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::ILSEQ => {
                let why = format!(
                    "{doing} it is not possible on the volume's file system ({errno}); use another \
                     one, or leave it out of the archive"
                );
                Self::refused(entry, why)
            }
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::NodeError {
                what: format!("{what}: {errno}"),
            },
            _ => Self::VolumeError {
                what,
                source: errno,
            },
        }
    }
}

impl From<SourceError> for RestoreError {
    fn from(error: SourceError) -> Self {
        match error.kind {
            SourceErrorKind::Changed => Self::ArchiveChanged(error),
            SourceErrorKind::Denied => Self::ArchiveDenied(error),
            SourceErrorKind::NotFound => Self::ArchiveMissing(error),
            SourceErrorKind::Unavailable => Self::StoreUnavailable(error),
            SourceErrorKind::Other => Self::StoreRefused(error),
        }
    }
}

/// The longest name shown in a message, in bytes of the name.
const SHOWN: usize = 256;

/// A name as an archive spells it, in quotes: readable characters as they are, all others as `\xNN`,
/// so that no archive can write control sequences into a terminal or a log.
pub(crate) fn printable(name: &[u8]) -> String {
    let (shown, rest) = name.split_at(name.len().min(SHOWN));
    let mut text = String::from("\"");
    for chunk in shown.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                // Alphabets, not the invisible characters that turn a line of text around.
                _ if character.is_control() || is_invisible(character) => {
                    let mut buffer = [0; 4];
                    escape(&mut text, character.encode_utf8(&mut buffer).as_bytes());
                }
                _ => text.push(character),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text.push_str(if rest.is_empty() { "\"" } else { "…\"" });
    text
}

fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        assert_eq!(printable(b"a b/\xc3\xa9"), "\"a b/é\"");
        assert_eq!(printable(b"\x1b[2J\n\"\\"), r#""\x1b[2J\x0a\"\\""#);
        assert_eq!(printable(b"\xff\x80"), r#""\xff\x80""#);
        assert_eq!(printable("\u{202e}gpj".as_bytes()), r#""\xe2\x80\xaegpj""#);
        assert!(printable(&[b'x'; 9999]).len() < 300);
    }

    #[test]
    fn a_full_volume_is_told_from_a_failing_one() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            assert_eq!(
                RestoreError::volume("writing", b"f", errno).reason(),
                "DoesNotFit"
            );
        }
        let strange = RestoreError::volume("creating", b"f", Errno::PERM);
        assert_eq!(
            (strange.reason(), strange.retry()),
            ("EntryRefused", Retry::Permanent)
        );
        let short = RestoreError::volume("creating", b"f", Errno::MFILE);
        assert_eq!(
            (short.reason(), short.retry()),
            ("NodeError", Retry::Transient)
        );
        let broken = RestoreError::volume("writing", b"f", Errno::IO);
        assert_eq!(
            (broken.reason(), broken.retry()),
            ("VolumeError", Retry::Transient)
        );
    }
}
