//! An archive read without credentials: through a URL that was signed for one object and a while, or from a
//! file.
//!
//! The URL is a secret: whoever has it can read the archive. It stands in no log line and no error.

use std::ops::Range;
use std::time::Duration;

use archive::{Source, SourceError, SourceErrorKind};
use bytes::{Bytes, BytesMut};
use crds::restore_order::SignedAccess;
use crds::volume_backup::ResolvedArchive;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Response;
use tokio::sync::watch;

mod answer;
mod clients;
mod file;
mod intake;
mod pace;
mod pin;

use answer::{Refusal, Said};
pub use clients::Clients;
pub use file::FileSource;
pub use intake::Intake;
use pin::Pin;

use crate::store::Scheme;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect.
    pub connect: Duration,
    /// Between two pieces of an answer. There is no limit to the whole of it.
    pub stall: Duration,
    /// For the controller to put a new URL in the place of one that has expired.
    pub renewal: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            renewal: Duration::from_secs(60),
        }
    }
}

/// One pinned object behind a signed URL that is renewed now and then.
#[derive(Debug)]
pub struct SignedSource {
    intake: Intake,
    pin: Pin,
    identity: Option<String>,
    length: u64,
    /// Whether the URL is as somebody wrote it: nobody here can sign another.
    is_given: bool,
}

impl SignedSource {
    /// The object `archive`. `None` where it has no size or nothing that tells it from others.
    pub fn new(archive: &ResolvedArchive, intake: Intake) -> Option<Self> {
        let pin = Pin::of(archive)?;
        Some(Self {
            intake,
            identity: pin.identity(archive.version.as_deref()),
            pin,
            length: u64::try_from(archive.size).ok()?,
            is_given: Scheme::of(&archive.url) == Some(Scheme::Https),
        })
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, SourceError> {
        let wanted = usize::try_from(range.end - range.start).map_err(|_| {
            let what = "the range exceeds this machine's memory";
            SourceError::new(SourceErrorKind::Other, what)
        })?;
        let mut all = BytesMut::with_capacity(wanted);
        let mut chunks = std::pin::pin!(self.chunks(range));
        while let Some(chunk) = chunks.try_next().await? {
            if all.len() + chunk.len() > wanted {
                let what = "the answer is longer than the range asked for";
                return Err(SourceError::new(SourceErrorKind::Other, what));
            }
            all.extend_from_slice(&chunk);
        }
        if all.len() < wanted {
            let what = format!("the answer ended after {} of {wanted} bytes", all.len());
            return Err(SourceError::new(SourceErrorKind::Unavailable, what));
        }
        Ok(all.freeze())
    }

    /// What an answer has of this range, counted as it comes.
    fn chunks(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes, SourceError>> + Send {
        let answer = async move {
            if range.is_empty() {
                return Ok(stream::empty().left_stream());
            }
            let response = self.open(&range).await?;
            let body = stream::try_unfold(response, async |mut response| {
                let chunk = self.prompt(response.chunk()).await?;
                Ok(chunk.map(|chunk| (chunk, response)))
            });
            Ok(body.right_stream())
        };
        answer.try_flatten_stream().and_then(async |chunk| {
            self.intake.pass(chunk.len() as u64).await;
            Ok(chunk)
        })
    }

    /// What the store does next, unless it is silent for too long. How long the reader takes in between,
    /// for its disk or for its turn, does not count.
    async fn prompt<T>(
        &self,
        next: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, SourceError> {
        let stall = self.intake.clients.limits.stall;
        match tokio::time::timeout(stall, next).await {
            Ok(next) => next.map_err(answer::transport),
            Err(_) => Err(SourceError::new(
                SourceErrorKind::Unavailable,
                format!("the store has sent nothing for {stall:?}"),
            )),
        }
    }

    /// An answer of 206 that has this range, its body still to come.
    async fn open(&self, range: &Range<u64>) -> Result<Response, SourceError> {
        let mut access = self.intake.access.clone();
        loop {
            let current = access.borrow_and_update().clone();
            if current.expires.0 <= jiff::Timestamp::now() {
                self.renewed(&mut access).await?;
                continue;
            }
            match self.get(&current, range).await {
                Ok(response) => return Ok(response),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Expired) if self.is_given => return Err(useless("it has expired")),
                // Clocks differ: the store may find expired what looks good here.
                Err(Refusal::Expired) => self.renewed(&mut access).await?,
                // Signed anew meanwhile, with other credentials perhaps.
                Err(Refusal::Denied(error)) => match access.has_changed() {
                    Ok(true) => {}
                    Ok(false) | Err(_) if self.is_given => return Err(useless(&error.message)),
                    Ok(false) | Err(_) => return Err(error),
                },
            }
        }
    }

    /// Waits for another URL.
    async fn renewed(&self, access: &mut watch::Receiver<SignedAccess>) -> Result<(), SourceError> {
        match tokio::time::timeout(self.intake.clients.limits.renewal, access.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(SourceError::new(
                SourceErrorKind::Unavailable,
                "the signed URL has expired, and the controller has not renewed it",
            )),
        }
    }

    async fn get(&self, access: &SignedAccess, range: &Range<u64>) -> Result<Response, Refusal> {
        let mut headers = HeaderMap::new();
        let wanted = format!("bytes={}-{}", range.start, range.end - 1);
        let wanted = HeaderValue::try_from(wanted).map_err(|_| answer::other("range"))?;
        headers.insert(RANGE, wanted);
        let (condition, value) = self.pin.condition();
        headers.insert(condition, value);
        let client = self
            .intake
            .clients
            .of(&access.url, access.ca_bundle.as_deref());
        let request = client
            .map_err(Refusal::Final)?
            .get(&access.url)
            .headers(headers);
        let response = self.prompt(request.send()).await.map_err(Refusal::Final)?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.refused(response).await);
        }
        self.accept(&response, range)?;
        Ok(response)
    }

    async fn refused(&self, response: Response) -> Refusal {
        let status = response.status();
        // The body of a refusal is short; that of a 200 is the whole object.
        let said = if status.is_client_error() || status.is_server_error() {
            let said =
                tokio::time::timeout(self.intake.clients.limits.stall, answer::said(response));
            said.await.unwrap_or_default()
        } else {
            Said::default()
        };
        answer::refusal(status, &said)
    }

    /// Whether an answer of 206 is of the pinned object and of this range.
    fn accept(&self, response: &Response, range: &Range<u64>) -> Result<(), Refusal> {
        let headers = response.headers();
        self.pin.check(headers)?;
        let content = headers
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .and_then(answer::content_range)
            .ok_or_else(|| answer::other("the answer does not say which range it has"))?;
        if content.total.is_some_and(|total| total != self.length) {
            return Err(answer::changed("its size is another one"));
        }
        if content.first != range.start || content.last.checked_add(1) != Some(range.end) {
            return Err(answer::other(
                "the answer has another range than was asked for",
            ));
        }
        Ok(())
    }
}

/// Only somebody else has a better URL, and no other keys help.
fn useless(what: &str) -> SourceError {
    SourceError::new(
        SourceErrorKind::Other,
        format!("{what}: the signed URL does not open it, or no longer"),
    )
}

impl Source for SignedSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        Box::pin(self.read(range))
    }

    fn stream(&self, range: Range<u64>) -> Option<BoxStream<'_, Result<Bytes, SourceError>>> {
        Some(self.chunks(range).boxed())
    }
}
