//! The SnapshotMetadata service: which blocks of a snapshot hold data, or differ from another.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use csi::v1::snapshot_metadata_server::SnapshotMetadata;
use csi::v1::{
    BlockMetadata, BlockMetadataType, GetMetadataAllocatedRequest, GetMetadataAllocatedResponse,
    GetMetadataDeltaRequest, GetMetadataDeltaResponse,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, async_trait};
use tracing::Instrument as _;

use super::{Services, request, signed};
use crate::operations::metadata::{self, Answer, Question, Range};

/// How many ranges a message has if the caller does not say.
const USUAL: usize = 1024;

/// How many it has at most: clients take messages of 4 MiB, and a range is some 20 bytes.
const MOST: usize = 65_536;

/// How long a caller may leave a message lying. The snapshots cannot be deleted meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl SnapshotMetadata for Services {
    async fn get_metadata_allocated(
        &self,
        request: Request<GetMetadataAllocatedRequest>,
    ) -> Result<Response<Answers<GetMetadataAllocatedResponse>>, Status> {
        let request = request.into_inner();
        let id = request.snapshot_id.clone();
        self.answer("GetMetadataAllocated", &id, async {
            let (start, most) = limits(request.starting_offset, request.max_results)?;
            let question = Question {
                base: None,
                target: request::id("snapshot_id", &request.snapshot_id)?,
                start,
            };
            let message = |volume_capacity_bytes, block_metadata| GetMetadataAllocatedResponse {
                block_metadata_type: BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            };
            self.tell(question, most, message).await
        })
        .await
    }

    async fn get_metadata_delta(
        &self,
        request: Request<GetMetadataDeltaRequest>,
    ) -> Result<Response<Answers<GetMetadataDeltaResponse>>, Status> {
        let request = request.into_inner();
        let id = request.target_snapshot_id.clone();
        self.answer("GetMetadataDelta", &id, async {
            let (start, most) = limits(request.starting_offset, request.max_results)?;
            // What is missing is found before anything is looked up.
            request::text("target_snapshot_id", &request.target_snapshot_id)?;
            let question = Question {
                base: Some(request::id("base_snapshot_id", &request.base_snapshot_id)?),
                target: request::id("target_snapshot_id", &request.target_snapshot_id)?,
                start,
            };
            let message = |volume_capacity_bytes, block_metadata| GetMetadataDeltaResponse {
                block_metadata_type: BlockMetadataType::VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            };
            self.tell(question, most, message).await
        })
        .await
    }
}

impl Services {
    /// Streams the answer. At least one message comes, so that the caller learns the size.
    async fn tell<T: Send + 'static>(
        &self,
        question: Question,
        most: usize,
        message: impl Fn(i64, Vec<BlockMetadata>) -> T + Send + Sync + 'static,
    ) -> Result<Answers<T>, Status> {
        let answer = self.run(move |pool| metadata::ask(pool, &question)).await?;
        let (sender, receiver) = mpsc::channel(1);
        let services = self.clone();
        let telling = async move {
            let _under_way = services.calls.token();
            match services.send_all(answer, most, message, &sender).await {
                Ok(()) => {}
                Err(Cut::Failed(status)) => drop(send(&sender, Err(status)).await),
                Err(Cut::Gone) => tracing::debug!("the caller is gone"),
                Err(Cut::Stalled) => tracing::warn!("nobody took a message within {PATIENCE:?}"),
            }
        };
        tokio::spawn(telling.instrument(tracing::Span::current()));
        let ended = false;
        Ok(Box::pin(Told { receiver, ended }))
    }

    async fn send_all<T>(
        &self,
        mut answer: Answer,
        most: usize,
        message: impl Fn(i64, Vec<BlockMetadata>) -> T,
        sender: &mpsc::Sender<Said<T>>,
    ) -> Result<(), Cut> {
        let size = signed(answer.size());
        let batch = most.max(USUAL);
        let mut first = true;
        loop {
            let (ranges, rest) = self.batch(answer, batch).await.map_err(Cut::Failed)?;
            if first && ranges.is_empty() {
                send(sender, Ok(Some(message(size, Vec::new())))).await?;
            }
            for ranges in ranges.chunks(most) {
                let blocks = ranges.iter().copied().map(block).collect();
                send(sender, Ok(Some(message(size, blocks)))).await?;
            }
            if ranges.len() < batch {
                return send(sender, Ok(None)).await;
            }
            (answer, first) = (rest, false);
        }
    }

    /// The next ranges, read where it may block.
    async fn batch(&self, mut answer: Answer, most: usize) -> Result<(Vec<Range>, Answer), Status> {
        self.run(move |_| answer.next(most).map(|ranges| (ranges, answer)))
            .await
    }
}

/// A message, or the word that it was the last.
type Said<T> = Result<Option<T>, Status>;

/// Why an answer ended early.
enum Cut {
    Failed(Status),
    Gone,
    Stalled,
}

async fn send<T>(sender: &mpsc::Sender<Said<T>>, said: Said<T>) -> Result<(), Cut> {
    match tokio::time::timeout(PATIENCE, sender.send(said)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Cut::Gone),
        Err(_) => Err(Cut::Stalled),
    }
}

/// The messages as they come. An answer that is cut off ends with an error: taken for the whole,
/// it would cost its reader the blocks that are missing.
struct Told<T> {
    receiver: mpsc::Receiver<Said<T>>,
    ended: bool,
}

impl<T> Stream for Told<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let said = ready!(self.receiver.poll_recv(context));
        let next = match said {
            Some(Ok(Some(message))) => return Poll::Ready(Some(Ok(message))),
            Some(Ok(None)) => None,
            Some(Err(status)) => Some(Err(status)),
            None => Some(Err(Status::aborted(
                "the answer was cut off; call again with the offset after the last range",
            ))),
        };
        self.ended = true;
        Poll::Ready(next)
    }
}

/// Where to begin, and how many ranges to put into a message.
fn limits(starting_offset: i64, max_results: i32) -> Result<(u64, usize), Status> {
    let start = u64::try_from(starting_offset)
        .map_err(|_| request::invalid("starting_offset is negative; use 0 for the beginning"))?;
    let most = usize::try_from(max_results)
        .map_err(|_| request::invalid("max_results is negative; use 0 for no wish"))?;
    let most = if most == 0 { USUAL } else { most.min(MOST) };
    Ok((start, most))
}

fn block(range: Range) -> BlockMetadata {
    BlockMetadata {
        byte_offset: signed(range.start),
        size_bytes: signed(range.end - range.start),
    }
}
