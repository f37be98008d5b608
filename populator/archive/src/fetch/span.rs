//! A long range, read as it comes and cut into pieces: one request for many of them, where nothing is
//! gained by several at a time.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Answer, Fetching, Patience, few};
use crate::progress::Progress;
use crate::source::{Retry, Source, SourceError, SourceErrorKind};

/// Bytes that are asked for at once. A store takes about as long for a request as for a MiB; what asks
/// for much more meets the time that clients give a whole answer, and servers were seen to read on to the
/// end of an answer that is given up halfway.
pub(super) const LENGTH: u64 = 16 << 20;

/// How long a piece may wait for the reader before a broken answer is no wonder: clients and stores give
/// up what nobody reads.
const STALL: Duration = Duration::from_secs(1);

/// Parts of an answer in a row that may be empty.
const EMPTY_MAX: usize = 64;

/// A span being read.
pub(super) struct Span {
    pieces: mpsc::Receiver<Result<Answer, SourceError>>,
    /// Where it ends.
    pub(super) end: u64,
    pub(super) closed: bool,
    _task: AbortOnDropHandle<()>,
}

impl Span {
    /// Begins to read a range of a source that gives streams.
    pub(super) fn start(
        source: &Arc<dyn Source>,
        range: Range<u64>,
        fetching: &Arc<Fetching>,
        progress: &Arc<Progress>,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        let reader = Reader {
            source: Arc::clone(source),
            fetching: Arc::clone(fetching),
            progress: Arc::clone(progress),
            sender,
        };
        Self {
            pieces,
            end: range.end,
            closed: false,
            _task: AbortOnDropHandle::new(tokio::spawn(reader.run(range))),
        }
    }

    /// Ends it with the pieces that are there.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.pieces.close();
    }

    /// Whether the next piece is there.
    pub(super) fn is_ready(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Answer, SourceError>> {
        self.pieces.recv().await
    }
}

struct Reader {
    source: Arc<dyn Source>,
    fetching: Arc<Fetching>,
    progress: Arc<Progress>,
    sender: mpsc::Sender<Result<Answer, SourceError>>,
}

impl Reader {
    /// The task: asks for what is missing as long as the failures are transient and the patience lasts,
    /// which begins anew with every piece.
    async fn run(self, range: Range<u64>) {
        let mut patience = Patience::new(&self.fetching);
        let mut piece = BytesMut::new();
        let mut left = range;
        while !left.is_empty() {
            let mut stalled = false;
            let done = self.read(&mut left, &mut piece, &mut patience, &mut stalled);
            let Err(error) = done.await else {
                return;
            };
            if stalled && error.kind.retry() == Retry::Transient {
                continue;
            }
            if let Err(error) = patience.again(error, left.start).await {
                // Nobody waits any more when the restore has failed elsewhere.
                let _ = self.sender.send(Err(error)).await;
                return;
            }
        }
    }

    /// Reads what is left until an answer ends, or until nobody wants more.
    async fn read<'a>(
        &'a self,
        left: &mut Range<u64>,
        piece: &mut BytesMut,
        patience: &mut Patience<'a>,
        stalled: &mut bool,
    ) -> Result<(), SourceError> {
        let asked = left.clone();
        let Some(mut body) = self.source.stream(asked.clone()) else {
            let what = "a source that gave streams gives none";
            return Err(SourceError::new(SourceErrorKind::Other, what));
        };
        let mut empty = 0;
        while let Some(bytes) = body.next().await {
            let mut bytes: Bytes = bytes?;
            empty = if bytes.is_empty() { empty + 1 } else { 0 };
            if empty > EMPTY_MAX {
                break;
            }
            self.progress.add_fetched(bytes.len() as u64);
            if bytes.len() as u64 > left.end - left.start {
                let what = "the answer is longer than the range asked for";
                return Err(SourceError::new(SourceErrorKind::Other, what));
            }
            while !bytes.is_empty() {
                let step = usize::try_from(self.fetching.range).unwrap_or(usize::MAX);
                let part = bytes.split_to(bytes.len().min(step - piece.len()));
                if piece.is_empty() {
                    let wanted = (left.end - left.start).min(self.fetching.range);
                    piece.reserve(usize::try_from(wanted).unwrap_or(step));
                }
                piece.extend_from_slice(&part);
                left.start += part.len() as u64;
                if piece.len() == step || left.is_empty() {
                    let answer = Answer {
                        bytes: std::mem::take(piece).freeze(),
                        attempts: patience.attempts,
                    };
                    *patience = Patience::new(&self.fetching);
                    let ready = Instant::now();
                    if self.sender.send(Ok(answer)).await.is_err() {
                        return Ok(());
                    }
                    *stalled = ready.elapsed() >= STALL;
                }
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(few(left.start - asked.start, &asked))
    }
}
