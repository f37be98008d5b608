//! What tells the pinned object from any other in its place: its ETag, or of a web server that has none the time
//! at which it was written.

use crds::volume_backup::ResolvedArchive;
use http::header::{ETAG, IF_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::answer::{self, Refusal};
use crate::store::identity;

/// How an object is asked for, so that another is refused.
#[derive(Debug)]
pub(super) enum Pin {
    Etag(HeaderValue),
    /// To the second, which the controller found to be long past.
    Written(Timestamp, HeaderValue),
}

impl Pin {
    /// That of an archive, if it has one.
    pub(super) fn of(archive: &ResolvedArchive) -> Option<Self> {
        if let Some(etag) = &archive.etag {
            return HeaderValue::from_str(etag).ok().map(Self::Etag);
        }
        let written = archive.last_modified.as_ref()?.0;
        let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&written);
        let header = HeaderValue::try_from(date.ok()?).ok()?;
        Some(Self::Written(written, header))
    }

    /// What tells it from those before and after it.
    pub(super) fn identity(&self, version: Option<&str>) -> Option<String> {
        let (Self::Etag(value) | Self::Written(_, value)) = self;
        identity(value.to_str().ok(), version)
    }

    /// The condition of a request.
    pub(super) fn condition(&self) -> (HeaderName, HeaderValue) {
        match self {
            Self::Etag(etag) => (IF_MATCH, etag.clone()),
            Self::Written(_, date) => (IF_UNMODIFIED_SINCE, date.clone()),
        }
    }

    /// Whether an answer is of the object: a server that ignores the condition still says what it sends.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            Self::Etag(pinned) => match headers.get(ETAG) {
                Some(sent) if sent == pinned => Ok(()),
                Some(_) => Err(answer::changed("its ETag is another one")),
                None => Err(answer::other(
                    "it no longer sends an ETag, by which the archive is told from others",
                )),
            },
            Self::Written(pinned, _) => {
                let sent = headers.get(LAST_MODIFIED);
                let sent = sent
                    .and_then(|value| value.to_str().ok())
                    .and_then(|date| rfc2822::parse(date).ok());
                match sent {
                    Some(sent) if sent.timestamp() == *pinned => Ok(()),
                    Some(_) => Err(answer::changed("it was written at another time")),
                    None => Err(answer::other(
                        "it no longer says when the archive was written, by which that is told from others",
                    )),
                }
            }
        }
    }
}
