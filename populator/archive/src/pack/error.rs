//! Why a tree was not packed.

use rustix::io::Errno;

use crate::error::printable;
use crate::source::{Retry, SourceError};

/// Why a tree was not packed. No object is made then.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something in the tree cannot be read.
    #[error("{path} cannot be read: {source}; pack a snapshot, or as root")]
    Unreadable {
        /// From the root of the tree, fit for printing.
        path: String,
        /// What the file system said.
        source: Errno,
    },
    /// A file was written to while it was read, so that a backup would hold neither state.
    #[error("{path} was changed while it was read; pack a snapshot, or stop what writes to it")]
    Changed {
        /// From the root of the tree, fit for printing.
        path: String,
    },
    /// No archive has room for it.
    #[error("{path} cannot be packed: {why}")]
    Refused {
        /// From the root of the tree, fit for printing.
        path: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// The store did not take it.
    #[error(
        "the store does not take the archive ({0}); check the address, the credentials and its space"
    )]
    Store(SourceError),
    /// The node has no room for the index or could not start a thread.
    #[error("the node is short of resources: {what}; free some and try again")]
    NodeError {
        /// What failed.
        what: String,
    },
    /// The caller gave it up.
    #[error("the packing was cancelled")]
    Cancelled,
}

impl PackError {
    pub(super) fn read(path: &[u8], source: Errno) -> Self {
        Self::Unreadable {
            path: printable(path),
            source,
        }
    }

    pub(super) fn changed(path: &[u8]) -> Self {
        Self::Changed {
            path: printable(path),
        }
    }

    pub(super) fn node(what: impl Into<String>) -> Self {
        Self::NodeError { what: what.into() }
    }

    /// Whether the same may succeed later without anybody's help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(error) => error.kind.retry(),
            Self::Changed { .. } | Self::NodeError { .. } | Self::Cancelled => Retry::Transient,
            Self::Unreadable { .. } | Self::Refused { .. } => Retry::Permanent,
        }
    }

    /// One CamelCase word, for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "Unreadable",
            Self::Changed { .. } => "ChangedWhilePacked",
            Self::Refused { .. } => "EntryRefused",
            Self::Store(_) => "StoreFailed",
            Self::NodeError { .. } => "NodeError",
            Self::Cancelled => "Cancelled",
        }
    }
}
