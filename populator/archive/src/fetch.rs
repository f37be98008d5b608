//! The first stage: an object fetched in ranges, several in flight, handed on in order.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::decode::Point;
use crate::error::RestoreError;
use crate::progress::Progress;
use crate::source::{Retry, Source, SourceError, SourceErrorKind};
use crate::stream::Stream;

/// Ranges that are neither in flight nor used up: one in the channel, one before it, one being read.
const WAITING: u64 = 3;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// Ranges in flight at a time.
    pub parallel: usize,
    /// Bytes in each.
    pub range: u64,
    /// How often one range is asked for before a failing store fails the restore.
    pub attempts: u32,
    /// The pause after the first failed attempt; it doubles up to [`Fetching::PAUSE_MAX`].
    pub pause: Duration,
}

impl Default for Fetching {
    /// 5 ranges of 1 MiB, and about a quarter of a minute of patience with each.
    fn default() -> Self {
        Self {
            parallel: 5,
            range: 1 << 20,
            attempts: 8,
            pause: Duration::from_millis(200),
        }
    }
}

impl Fetching {
    /// The longest pause between two attempts.
    pub const PAUSE_MAX: Duration = Duration::from_secs(5);

    /// Bytes of memory this takes.
    pub(crate) fn memory(&self) -> u64 {
        (self.parallel as u64 + WAITING) * self.range
    }

    /// The same with less memory: fewer ranges first, then smaller ones.
    pub(crate) fn within(mut self, memory: u64) -> Self {
        self.parallel = self.parallel.max(1);
        self.range = self.range.max(Self::RANGE_MIN);
        while self.memory() > memory && self.parallel > 1 {
            self.parallel -= 1;
        }
        while self.memory() > memory && self.range > Self::RANGE_MIN {
            self.range = (self.range / 2).max(Self::RANGE_MIN);
        }
        self
    }

    /// Below this, requests cost more than what they bring. The first range also has to hold what
    /// `Seen::detect` looks at at least.
    const RANGE_MIN: u64 = 64 << 10;
}

/// A place between two ranges, where fetching can go on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Boundary {
    /// Bytes of the object before it.
    pub(crate) offset: u64,
    /// Of those.
    #[serde(with = "hash_state")]
    hash: Sha256,
}

/// A hash that goes on later, as the hexadecimal digits of its state.
mod hash_state {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use sha2::Sha256;
    use sha2::digest::common::hazmat::{SerializableState, SerializedState};

    pub(super) fn serialize<S: Serializer>(hash: &Sha256, to: S) -> Result<S::Ok, S::Error> {
        hex::serde::serialize(SerializableState::serialize(hash), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Sha256, D::Error> {
        let bytes = hex::decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        let state = SerializedState::<Sha256>::try_from(bytes.as_slice());
        let hash = state
            .ok()
            .and_then(|it| SerializableState::deserialize(&it).ok());
        hash.ok_or_else(|| D::Error::custom("this is no state of SHA-256"))
    }
}

enum Piece {
    /// A range, and where it begins.
    Data(Bytes, Boundary),
    /// All bytes have been sent; this is their SHA-256.
    End([u8; 32]),
    Failed(RestoreError),
}

/// The fetched object as a [`Stream`]. Dropping it ends the fetching.
pub(crate) struct Fetched {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    position: u64,
    /// Where the current piece begins.
    boundary: Boundary,
    digest: Option<[u8; 32]>,
    progress: Arc<Progress>,
    _task: AbortOnDropHandle<()>,
}

/// Begins to fetch `source` on `runtime`, to its end.
pub(crate) fn start(
    source: Arc<dyn Source>,
    from: Boundary,
    fetching: Fetching,
    progress: Arc<Progress>,
    cancel: CancellationToken,
    runtime: &Handle,
) -> Fetched {
    let (sender, pieces) = mpsc::channel(1);
    let counted = Arc::clone(&progress);
    let begin = from.clone();
    let task = runtime.spawn(async move {
        let last = tokio::select! {
            // First, so that the reader learns that it was cancelled and not only that no more comes.
            biased;
            () = cancel.cancelled() => Piece::Failed(RestoreError::Cancelled),
            last = forward(source, begin, fetching, counted, &sender) => last,
        };
        // Nobody listens any more when the restore has failed elsewhere.
        let _ = sender.send(last).await;
    });
    Fetched {
        pieces,
        current: Bytes::new(),
        position: from.offset,
        boundary: from,
        digest: None,
        progress,
        _task: AbortOnDropHandle::new(task),
    }
}

/// Sends all data in order and returns what comes after them.
async fn forward(
    source: Arc<dyn Source>,
    from: Boundary,
    fetching: Fetching,
    progress: Arc<Progress>,
    sender: &mpsc::Sender<Piece>,
) -> Piece {
    let parallel = fetching.parallel;
    let fetching = Arc::new(fetching);
    // Tasks of their own, so that bodies are read on while the decoder is busy and nobody polls here.
    let mut ranges = stream::iter(ranges(from.offset..source.length(), fetching.range))
        .map(|range| {
            let (source, fetching) = (Arc::clone(&source), Arc::clone(&fetching));
            let progress = Arc::clone(&progress);
            AbortOnDropHandle::new(tokio::spawn(async move {
                fetch(&*source, range, &fetching, &progress).await
            }))
        })
        .buffered(parallel);
    let mut boundary = from;
    while let Some(range) = ranges.next().await {
        let bytes = match range {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return Piece::Failed(error.into()),
            Err(join) => {
                return Piece::Failed(RestoreError::NodeError {
                    what: join.to_string(),
                });
            }
        };
        let begin = boundary.clone();
        boundary.offset += bytes.len() as u64;
        boundary.hash.update(&bytes);
        if sender.send(Piece::Data(bytes, begin)).await.is_err() {
            break;
        }
    }
    Piece::End(boundary.hash.finalize().into())
}

/// A range in pieces of `step`, the last one perhaps shorter.
fn ranges(all: Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> {
    let count = all.end.saturating_sub(all.start).div_ceil(step);
    (0..count).map(move |index| {
        let start = all.start + index * step;
        start..all.end.min(start.saturating_add(step))
    })
}

/// One range, asked for again as long as the failures are transient and the patience lasts.
pub(crate) async fn fetch(
    source: &dyn Source,
    range: Range<u64>,
    fetching: &Fetching,
    progress: &Progress,
) -> Result<Bytes, SourceError> {
    let wanted = range.end - range.start;
    let mut pause = fetching.pause;
    let mut attempt = 1;
    loop {
        let error = match source.read_at(range.clone()).await {
            Ok(bytes) => {
                progress.add_fetched(bytes.len() as u64);
                if bytes.len() as u64 == wanted {
                    return Ok(bytes);
                }
                let said = format!("{} bytes of {wanted} at {}", bytes.len(), range.start);
                SourceError::new(SourceErrorKind::Unavailable, said)
            }
            Err(error) => error,
        };
        match error.kind.retry() {
            Retry::Transient if attempt < fetching.attempts => {}
            Retry::Transient | Retry::Permanent => return Err(error),
        }
        tracing::debug!(%error, attempt, start = range.start, "a range is fetched again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Fetching::PAUSE_MAX);
        attempt += 1;
    }
}

impl Fetched {
    /// The SHA-256 of the stored object; known once the stream has been read to its end.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    /// The last place at or before the position where fetching can go on.
    pub(crate) fn boundary(&self) -> &Boundary {
        &self.boundary
    }
}

impl Stream for Fetched {
    fn fill(&mut self) -> Result<&[u8], RestoreError> {
        while self.current.is_empty() && self.digest.is_none() {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes, begin)) => (self.current, self.boundary) = (bytes, begin),
                Some(Piece::End(digest)) => self.digest = Some(digest),
                Some(Piece::Failed(error)) => return Err(error),
                // It panicked, or the runtime was shut down under us; nobody gave the restore up.
                None => {
                    return Err(RestoreError::NodeError {
                        what: "the fetching task died".into(),
                    });
                }
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        // Not `advance`: an emptied piece must give its memory back at once.
        self.current = self.current.slice(count..);
        self.position += count as u64;
        self.progress.add_consumed(count as u64);
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn point(&self) -> Option<Arc<Point>> {
        let stored = Point::stored(self.position, self.boundary.clone());
        Some(Arc::new(stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_object_once() {
        assert_eq!(ranges(0..10, 4).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        assert_eq!(ranges(3..11, 4).collect::<Vec<_>>(), [3..7, 7..11]);
        assert_eq!(ranges(0..0, 4).count(), 0);
        assert_eq!(ranges(9..9, 4).count(), 0);
    }

    #[test]
    fn a_hash_goes_on_where_it_was() {
        let mut boundary = Boundary::default();
        boundary.hash.update(b"some by");
        let written = serde_json::to_string(&boundary).unwrap();
        let mut read: Boundary = serde_json::from_str(&written).unwrap();
        read.hash.update(b"tes");
        assert_eq!(read.hash.finalize(), Sha256::digest(b"some bytes"));
        for wrong in [
            written.replace("\"hash\":\"", "\"hash\":\"00"),
            written.replace("\"hash\":\"", "\"hash\":\"x"),
            written.replace("offset", "place"),
        ] {
            assert!(serde_json::from_str::<Boundary>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_small_budget_means_fewer_and_then_smaller_ranges() {
        let all = Fetching::default().within(64 << 20);
        assert_eq!((all.parallel, all.range), (5, 1 << 20));
        let fewer = Fetching::default().within(5 << 20);
        assert_eq!((fewer.parallel, fewer.range), (2, 1 << 20));
        let smaller = Fetching::default().within(1 << 20);
        assert_eq!((smaller.parallel, smaller.range), (1, 256 << 10));
    }
}
