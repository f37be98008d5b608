//! Where the bytes of an archive come from: an object of known length, read in ranges.

use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Whether doing the same thing again may end better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may: the cause lies in the network, the store or the node.
    Transient,
    /// It will not: somebody has to change the archive, the volume or the settings first.
    Permanent,
}

/// One immutable object. The implementation pins its identity (version, `ETag`), so that ranges read
/// at different times belong together.
pub trait Source: Send + Sync {
    /// Bytes in the whole object.
    fn length(&self) -> u64;

    /// What tells this object from every other that was or will be in its place (version, `ETag`);
    /// `None` where nothing does. A restore that is interrupted goes on with the same one only.
    fn identity(&self) -> Option<String>;

    /// Reads exactly `range`, which lies within the object. A shorter answer is taken for a broken
    /// connection and asked for again. Dropping the future gives the read up.
    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>>;

    /// The bytes of `range` as they come, in order, in one answer; whoever reads slowly holds the sender
    /// up. `None`, for every range, where only whole ones can be had. Nothing is asked for before the
    /// stream is polled, and dropping it gives the read up.
    fn stream(&self, range: Range<u64>) -> Option<BoxStream<'_, Result<Bytes, SourceError>>> {
        let _ = range;
        None
    }
}

/// Why a range could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What to make of it.
    pub kind: SourceErrorKind,
    /// What the store said, for people.
    pub message: String,
}

impl SourceError {
    /// An error of this kind with the store's own words.
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// The kinds of failure that a restore tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The object is no longer the pinned one (HTTP 412, another `ETag`).
    Changed,
    /// The credentials or the signature do not open it (401, 403).
    Denied,
    /// There is no such bucket or object (404).
    NotFound,
    /// The store did not answer, or asked to come back later (time-outs, 429, 5xx).
    Unavailable,
    /// Anything else the store said no to.
    Other,
}

impl SourceErrorKind {
    /// Whether the same range may be asked for again.
    pub fn retry(self) -> Retry {
        match self {
            Self::Unavailable => Retry::Transient,
            Self::Changed | Self::Denied | Self::NotFound | Self::Other => Retry::Permanent,
        }
    }
}
