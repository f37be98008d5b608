//! What a store's answers mean.

use archive::{SourceError, SourceErrorKind};
use http::StatusCode;
use reqwest::Response;

use crate::store::{Denied, cause};

/// The longest body of a refusal that is looked at, in bytes.
const LOOK: usize = 8 << 10;

/// Why a range was not got.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The URL is too old; a new one may do.
    Expired,
    /// The URL does not open the object; a new one may.
    Denied(SourceError),
    /// No URL will do better.
    Final(SourceError),
}

/// The error document of S3, which Google's and Azure's are like: `<Error><Code>…</Code><Message>…</Message>…`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// One word, such as `NoSuchKey`.
    pub(super) code: Option<String>,
    /// Whether it speaks of a request that has expired.
    pub(super) expired: bool,
}

pub(super) fn other(what: &str) -> Refusal {
    Refusal::Final(SourceError::new(SourceErrorKind::Other, what))
}

pub(super) fn changed(what: &str) -> Refusal {
    Refusal::Final(SourceError::new(SourceErrorKind::Changed, what))
}

/// A failure below HTTP: in all cases the store may answer the next time.
pub(super) fn transport(error: reqwest::Error) -> SourceError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut below = std::error::Error::source(&error);
    while let Some(next) = below {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        below = next.source();
    }
    let kind = if error.is_builder() {
        SourceErrorKind::Other
    } else if cause::<Denied>(&error).is_some() {
        SourceErrorKind::Denied
    } else {
        SourceErrorKind::Unavailable
    };
    SourceError::new(kind, text)
}

/// Reads the beginning of a refusal's body.
pub(super) async fn said(mut response: Response) -> Said {
    let mut body = Vec::new();
    while body.len() < LOOK {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    body.truncate(LOOK);
    understand(&String::from_utf8_lossy(&body))
}

fn understand(body: &str) -> Said {
    let element = |name: &str| {
        let rest = body.split_once(&format!("<{name}>"))?.1;
        rest.split_once(&format!("</{name}>")).map(|found| found.0)
    };
    let word = |code: &&str| {
        (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let code = element("Code").filter(word).map(ToOwned::to_owned);
    let expired = matches!(
        code.as_deref(),
        Some("ExpiredToken" | "TokenRefreshRequired")
    ) || (code.as_deref() == Some("AccessDenied")
        && element("Message").is_some_and(|message| message.contains("expired")))
        // Azure.
        || (code.as_deref() == Some("AuthenticationFailed") && body.contains("time frame"));
    Said { code, expired }
}

/// What a status other than 206 means.
pub(super) fn refusal(status: StatusCode, said: &Said) -> Refusal {
    let text = match &said.code {
        Some(code) => format!("{} {code}", status.as_u16()),
        None => status.to_string(),
    };
    let kind = match status.as_u16() {
        400 | 403 if said.expired => return Refusal::Expired,
        401 | 403 => {
            return Refusal::Denied(SourceError::new(SourceErrorKind::Denied, text));
        }
        404 => SourceErrorKind::NotFound,
        // 416: the object has become shorter than it was when it was pinned.
        412 | 416 => SourceErrorKind::Changed,
        501 | 505 => SourceErrorKind::Other,
        408 | 425 | 429 | 500..600 => SourceErrorKind::Unavailable,
        200 => return other("it answers a request for a range with the whole object"),
        300..400 => {
            return other(&format!(
                "it redirects to another address ({text}), which a signed URL cannot follow"
            ));
        }
        _ => SourceErrorKind::Other,
    };
    Refusal::Final(SourceError::new(kind, text))
}

/// `Content-Range` of a 206 (RFC 9110, 14.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The object's size, where the server knows it.
    pub(super) total: Option<u64>,
}

pub(super) fn content_range(header: &str) -> Option<ContentRange> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(ContentRange {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
        total: match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let table = [
            (404, SourceErrorKind::NotFound),
            (412, SourceErrorKind::Changed),
            (416, SourceErrorKind::Changed),
            (408, SourceErrorKind::Unavailable),
            (429, SourceErrorKind::Unavailable),
            (500, SourceErrorKind::Unavailable),
            (503, SourceErrorKind::Unavailable),
            (501, SourceErrorKind::Other),
            (200, SourceErrorKind::Other),
            (301, SourceErrorKind::Other),
            (307, SourceErrorKind::Other),
            (400, SourceErrorKind::Other),
        ];
        for (code, kind) in table {
            let status = StatusCode::from_u16(code).unwrap();
            match refusal(status, &Said::default()) {
                Refusal::Final(error) => assert_eq!(error.kind, kind, "{code}"),
                refusal => panic!("{code}: {refusal:?}"),
            }
        }
        let denied = refusal(StatusCode::FORBIDDEN, &Said::default());
        assert!(matches!(denied, Refusal::Denied(_)));
    }

    #[test]
    fn error_documents() {
        let expired = understand(
            "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>\
             <Message>Request has expired</Message></Error>",
        );
        assert!(expired.expired);
        let status = StatusCode::FORBIDDEN;
        assert!(matches!(refusal(status, &expired), Refusal::Expired));
        let azure = understand(
            "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Signature not valid in \
             the specified time frame</AuthenticationErrorDetail></Error>",
        );
        assert!(azure.expired);
        let missing = understand("<Error><Code>NoSuchKey</Code><Key>secret</Key></Error>");
        let Refusal::Final(error) = refusal(StatusCode::NOT_FOUND, &missing) else {
            panic!();
        };
        assert_eq!(error.message, "404 NoSuchKey");
        for rubbish in [
            "",
            "<Code>",
            "<Code></Code>",
            "<Code>a b</Code>",
            "</Code><Code>",
        ] {
            assert_eq!(understand(rubbish), Said::default(), "{rubbish}");
        }
    }

    #[test]
    fn content_ranges() {
        let range = content_range("bytes 10-19/100").unwrap();
        assert_eq!((range.first, range.last, range.total), (10, 19, Some(100)));
        assert_eq!(content_range("bytes 0-0/*").unwrap().total, None);
        for wrong in [
            "",
            "bytes",
            "bytes 1/2",
            "bytes */100",
            "octets 0-1/2",
            "bytes 0-1/x",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
