//! What an archive says about one file, in the terms of a file system.

use serde::{Deserialize, Serialize};

/// One entry of an archive; the data of a file follow in the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name as the archive spells it: nothing about it is checked yet.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) metadata: Metadata,
    pub(crate) names: OwnerNames,
    /// Kinds of metadata that the archive has and that are not restored.
    pub(crate) lost: Vec<String>,
}

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    File(Layout),
    Directory,
    /// The target is never followed, so it may be anything.
    Symlink(Vec<u8>),
    /// The target is the name of an earlier entry.
    HardLink(Vec<u8>),
    Fifo,
    CharacterDevice(Device),
    BlockDevice(Device),
}

/// How the data in the archive make up a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Layout {
    /// So many bytes from the start.
    Dense(u64),
    /// The extents in ascending order, without overlaps; holes elsewhere.
    Sparse { size: u64, extents: Vec<Extent> },
}

impl Layout {
    /// Bytes of data, holes apart.
    pub(crate) fn data(&self) -> u64 {
        match self {
            Self::Dense(size) => *size,
            Self::Sparse { extents, .. } => extents
                .iter()
                .fold(0, |sum: u64, extent| sum.saturating_add(extent.length)),
        }
    }
}

/// A run of data in a sparse file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// All that is not content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// Permissions, setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
    /// Only where the archive has it.
    pub(crate) accessed: Option<Time>,
    pub(crate) xattrs: Vec<Xattr>,
}

/// Who owned it, by name; empty where the archive has only numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerNames {
    pub(crate) user: Vec<u8>,
    pub(crate) group: Vec<u8>,
}

/// A moment, counted from 1970; `nanoseconds` is always counted upwards and below a milliard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// The attribute that holds a file's SELinux label.
pub(crate) const LABEL: &[u8] = b"security.selinux";

/// The attribute that holds a file's capabilities (capabilities(7)).
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// An extended attribute with its full name (`user.comment`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Xattr {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}
