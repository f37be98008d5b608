//! The first stage: an object fetched in ranges, several in flight, handed on in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::budget::{Budget, Share};
use crate::decode::{Means, Point};
use crate::error::RestoreError;
use crate::progress::Progress;
use crate::source::{Retry, Source, SourceError, SourceErrorKind};
use crate::stream::Stream;
use concurrency::{Arrival, Concurrency};
use span::Span;

mod concurrency;
mod span;

/// Ranges that are neither in flight nor used up: one in the channel, one before it, one being read.
const WAITING: u64 = 3;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// Ranges in flight at the beginning, and at least.
    pub parallel: usize,
    /// Ranges in flight at most, where the reader waits for the store and the budget has memory to
    /// spare.
    pub most: usize,
    /// Bytes in each.
    pub range: u64,
    /// How often one range is asked for before a failing store fails the restore.
    pub attempts: u32,
    /// The pause after the first failed attempt; it doubles up to [`Fetching::PAUSE_MAX`].
    pub pause: Duration,
}

impl Default for Fetching {
    /// 2 to 32 ranges of 1 MiB, and about a quarter of a minute of patience with each.
    fn default() -> Self {
        Self {
            parallel: 2,
            most: 32,
            range: 1 << 20,
            attempts: 8,
            pause: Duration::from_millis(200),
        }
    }
}

impl Fetching {
    /// The longest pause between two attempts.
    pub const PAUSE_MAX: Duration = Duration::from_secs(5);

    /// Bytes of memory this takes, those apart that are taken where there are some to spare.
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

/// A range, and the memory that was to spare for it.
#[derive(Default)]
struct Held {
    bytes: Bytes,
    _share: Option<Share>,
}

enum Piece {
    /// A range, and where it begins.
    Data(Held, Boundary),
    /// All bytes have been sent; this is their SHA-256.
    End([u8; 32]),
    Failed(RestoreError),
}

/// The fetched object as a [`Stream`]. Dropping it ends the fetching.
pub(crate) struct Fetched {
    pieces: mpsc::Receiver<Piece>,
    /// Whether the reader waits for the next piece.
    waiting: Arc<AtomicBool>,
    current: Held,
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
    means: &Means,
) -> Fetched {
    let (sender, pieces) = mpsc::channel(1);
    let waiting = Arc::new(AtomicBool::new(false));
    let begin = from.clone();
    let ahead = Ahead {
        left: from.offset..source.length(),
        // Streams take the memory of two ranges, and who looks at the begin only would throw it away.
        gives_streams: fetching.parallel > 1 && source.stream(0..0).is_some(),
        source,
        span: None,
        concurrency: Concurrency::new(fetching.parallel, fetching.most, Instant::now()),
        fetching: Arc::new(fetching),
        budget: Arc::clone(&means.budget),
        progress: Arc::clone(&progress),
        in_flight: VecDeque::new(),
        waiting: Arc::clone(&waiting),
    };
    let cancel = means.cancel.clone();
    let task = means.runtime.spawn(async move {
        let last = tokio::select! {
            // First, so that the reader learns that it was cancelled and not only that no more comes.
            biased;
            () = cancel.cancelled() => Piece::Failed(RestoreError::Cancelled),
            last = forward(ahead, begin, &sender) => last,
        };
        // Nobody listens any more when the restore has failed elsewhere.
        let _ = sender.send(last).await;
    });
    Fetched {
        pieces,
        waiting,
        current: Held::default(),
        position: from.offset,
        boundary: from,
        digest: None,
        progress,
        _task: AbortOnDropHandle::new(task),
    }
}

/// What is asked for, and what is left: a span where one request at a time will do, else ranges in flight.
struct Ahead {
    source: Arc<dyn Source>,
    gives_streams: bool,
    left: Range<u64>,
    fetching: Arc<Fetching>,
    concurrency: Concurrency,
    budget: Arc<Budget>,
    progress: Arc<Progress>,
    span: Option<Span>,
    in_flight: VecDeque<InFlight>,
    waiting: Arc<AtomicBool>,
}

struct InFlight {
    range: AbortOnDropHandle<Result<Answer, SourceError>>,
    /// None of those that every restore has memory for.
    share: Option<Share>,
}

/// A range, and how often it was asked for.
pub(crate) struct Answer {
    pub(crate) bytes: Bytes,
    attempts: u32,
}

impl Ahead {
    /// The next piece in order.
    async fn next(&mut self) -> Option<Result<Held, RestoreError>> {
        let (answer, share, was_there) = loop {
            if let Some(span) = &mut self.span {
                if self.concurrency.is_more_than_least() {
                    span.close();
                }
                let was_there = span.is_ready();
                if let Some(answer) = span.next().await {
                    self.left.start += answer.as_ref().map_or(0, |it| it.bytes.len() as u64);
                    break (answer, None, was_there);
                }
                if !span.closed && self.left.start < span.end {
                    return Some(Err(died("the task that reads a stream")));
                }
                self.span = None;
            } else if self.wants_span() && self.in_flight.is_empty() {
                let start = self.left.start;
                let range = start..self.left.end.min(start.saturating_add(span::LENGTH));
                let (fetching, progress) = (&self.fetching, &self.progress);
                self.span = Some(Span::start(&self.source, range, fetching, progress));
            } else {
                if !self.wants_span() {
                    self.ask();
                }
                let InFlight { range, share } = self.in_flight.pop_front()?;
                let was_there = range.is_finished();
                match range.await {
                    Ok(answer) => break (answer, share, was_there),
                    Err(_) => return Some(Err(died("a fetching task"))),
                }
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error.into())),
        };
        let arrival = if answer.attempts > 1 {
            Arrival::Strained
        } else if !was_there && self.waiting.load(Ordering::Relaxed) {
            Arrival::Awaited
        } else {
            Arrival::InTime
        };
        self.concurrency.after(arrival, Instant::now());
        Some(Ok(Held {
            bytes: answer.bytes,
            _share: share,
        }))
    }

    /// Whether nothing is waited for.
    fn is_all_there(&self) -> bool {
        match &self.span {
            Some(span) => span.is_ready(),
            None => self.in_flight.iter().all(|it| it.range.is_finished()),
        }
    }

    /// Whether the next request is to be for a span, once what is in flight has come.
    fn wants_span(&self) -> bool {
        self.gives_streams && !self.left.is_empty() && !self.concurrency.is_more_than_least()
    }

    /// So much of what is left, or all of it.
    fn take(&mut self, bytes: u64) -> Range<u64> {
        let start = self.left.start;
        self.left.start = self.left.end.min(start.saturating_add(bytes));
        start..self.left.start
    }

    /// Asks for as many ranges as there may be now, in tasks of their own, so that bodies are read on
    /// while the decoder is busy and nobody polls here.
    fn ask(&mut self) {
        while self.in_flight.len() < self.concurrency.allowed() && !self.left.is_empty() {
            let shared = |it: &&InFlight| it.share.is_some();
            let own = self.in_flight.len() - self.in_flight.iter().filter(shared).count();
            let share = if own < self.fetching.parallel {
                None
            } else if let Some(share) = self.budget.spare(self.fetching.range) {
                Some(share)
            } else {
                return;
            };
            let range = self.take(self.fetching.range);
            let (source, fetching) = (Arc::clone(&self.source), Arc::clone(&self.fetching));
            let progress = Arc::clone(&self.progress);
            let range = AbortOnDropHandle::new(tokio::spawn(async move {
                fetch(&*source, range, &fetching, &progress).await
            }));
            self.in_flight.push_back(InFlight { range, share });
        }
    }
}

/// Sends all data in order and returns what comes after them.
async fn forward(mut ahead: Ahead, from: Boundary, sender: &mpsc::Sender<Piece>) -> Piece {
    let mut boundary = from;
    while let Some(range) = ahead.next().await {
        let held = match range {
            Ok(held) => held,
            Err(error) => return Piece::Failed(error),
        };
        let begin = boundary.clone();
        boundary.offset += held.bytes.len() as u64;
        boundary.hash.update(&held.bytes);
        let is_full = sender.capacity() == 0;
        if sender.send(Piece::Data(held, begin)).await.is_err() {
            break;
        }
        // While this one waited for the reader, all others came.
        if is_full && ahead.is_all_there() {
            ahead.concurrency.after(Arrival::Early, Instant::now());
        }
    }
    Piece::End(boundary.hash.finalize().into())
}

/// One range, asked for again as long as the failures are transient and the patience lasts.
pub(crate) async fn fetch(
    source: &dyn Source,
    range: Range<u64>,
    fetching: &Fetching,
    progress: &Progress,
) -> Result<Answer, SourceError> {
    let mut patience = Patience::new(fetching);
    loop {
        let error = match source.read_at(range.clone()).await {
            Ok(bytes) => {
                progress.add_fetched(bytes.len() as u64);
                if bytes.len() as u64 == range.end - range.start {
                    let attempts = patience.attempts;
                    return Ok(Answer { bytes, attempts });
                }
                few(bytes.len() as u64, &range)
            }
            Err(error) => error,
        };
        patience.again(error, range.start).await?;
    }
}

/// How often something was asked for, and how long it takes until it is again.
struct Patience<'a> {
    fetching: &'a Fetching,
    attempts: u32,
    pause: Duration,
}

impl<'a> Patience<'a> {
    fn new(fetching: &'a Fetching) -> Self {
        Self {
            fetching,
            attempts: 1,
            pause: fetching.pause,
        }
    }

    /// Waits before the next attempt, unless this error is the last.
    async fn again(&mut self, error: SourceError, start: u64) -> Result<(), SourceError> {
        let attempts = self.attempts;
        match error.kind.retry() {
            Retry::Transient if attempts < self.fetching.attempts => {}
            Retry::Transient | Retry::Permanent => return Err(error),
        }
        tracing::debug!(%error, attempts, start, "a range is fetched again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Fetching::PAUSE_MAX);
        self.attempts += 1;
        Ok(())
    }
}

/// An answer that ended early.
fn few(bytes: u64, wanted: &Range<u64>) -> SourceError {
    let (start, wanted) = (wanted.start, wanted.end - wanted.start);
    let said = format!("{bytes} bytes of {wanted} at {start}");
    SourceError::new(SourceErrorKind::Unavailable, said)
}

fn died(what: &str) -> RestoreError {
    RestoreError::NodeError {
        what: format!("{what} died"),
    }
}

impl Fetched {
    /// Waits for the next piece, and lets that be known.
    fn next(&mut self) -> Option<Piece> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Some(piece);
        }
        self.waiting.store(true, Ordering::Relaxed);
        let piece = self.pieces.blocking_recv();
        self.waiting.store(false, Ordering::Relaxed);
        piece
    }

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
        while self.current.bytes.is_empty() && self.digest.is_none() {
            // Before it may have to wait: the memory of what was read.
            self.current = Held::default();
            match self.next() {
                Some(Piece::Data(bytes, begin)) => (self.current, self.boundary) = (bytes, begin),
                Some(Piece::End(digest)) => self.digest = Some(digest),
                Some(Piece::Failed(error)) => return Err(error),
                // It panicked, or the runtime was shut down under us; nobody gave the restore up.
                None => return Err(died("the fetching task")),
            }
        }
        Ok(&self.current.bytes)
    }

    fn consume(&mut self, count: usize) {
        self.current.bytes.advance(count);
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
        let many = Fetching {
            parallel: 5,
            ..Fetching::default()
        };
        let all = many.clone().within(64 << 20);
        assert_eq!((all.parallel, all.range), (5, 1 << 20));
        let fewer = many.within(5 << 20);
        assert_eq!((fewer.parallel, fewer.range), (2, 1 << 20));
        let smaller = Fetching::default().within(1 << 20);
        assert_eq!((smaller.parallel, smaller.range), (1, 256 << 10));
    }
}
