//! What a server's answer means: a pure reading of status, headers and body.

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use super::access::PAGES;
use super::{Scheme, StoreError};

/// One exact object, as the store describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Bytes as stored, above 0.
    pub size: u64,
    /// The strong ETag, quotes included; `None` where a web server has none, and the time at which the
    /// object was written tells it from others.
    pub etag: Option<String>,
    /// The version, where the bucket keeps versions.
    pub version: Option<String>,
    /// When it was last written, to the second.
    pub last_modified: Option<Timestamp>,
}

/// What was asked, for the messages.
pub(super) struct Question<'a> {
    pub(super) scheme: Scheme,
    /// The object, or what is listed.
    pub(super) url: String,
    pub(super) bucket: &'a str,
    pub(super) server: &'a str,
    /// What a listing needs.
    pub(super) permission: Option<&'static str>,
}

/// What a server's date must be past a time of writing, to the second, so that it means one content only
/// (RFC 9110, 8.8.2.2).
const SETTLED: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

impl Question<'_> {
    /// The question for a listing of objects.
    pub(super) fn listing(self) -> Self {
        let permission = Some(match self.scheme {
            Scheme::Gs => "storage.objects.list",
            Scheme::Az => "the right to list blobs",
            Scheme::S3 | Scheme::Https | Scheme::File => "s3:ListBucket",
        });
        Self { permission, ..self }
    }

    /// The question for a listing of versions.
    pub(super) fn versions(self) -> Self {
        Self {
            permission: Some("s3:ListBucketVersions"),
            ..self
        }
    }

    /// Reads the answer to a GET of the object's first byte.
    pub(super) fn read(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Found, StoreError> {
        match status {
            StatusCode::PARTIAL_CONTENT => self.found(headers),
            StatusCode::OK => Err(StoreError::NoRanges {
                server: self.server.to_owned(),
            }),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(StoreError::Empty {
                url: self.url.clone(),
            }),
            _ => Err(self.refused(status, error_code(body))),
        }
    }

    /// Whether the answer to a GET of a listing is one.
    pub(super) fn listed(&self, status: StatusCode, body: &[u8]) -> Result<(), StoreError> {
        match status {
            StatusCode::OK => Ok(()),
            _ => Err(self.refused(status, error_code(body))),
        }
    }

    /// More lies there than is looked through.
    pub(super) fn too_many(&self) -> StoreError {
        StoreError::TooMany {
            url: self.url.clone(),
            most: PAGES * 1000,
        }
    }

    fn found(&self, headers: &HeaderMap) -> Result<Found, StoreError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let size = text(header::CONTENT_RANGE.as_str())
            .and_then(|range| range.rsplit_once('/'))
            .and_then(|(_, size)| size.parse().ok())
            .filter(|size| *size > 0)
            .ok_or_else(|| StoreError::NoRanges {
                server: self.server.to_owned(),
            })?;
        let etag = text(header::ETAG.as_str())
            .filter(|etag| etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'));
        let time = |name: header::HeaderName| text(name.as_str()).and_then(date);
        let written = time(header::LAST_MODIFIED);
        let is_settled = || {
            let now = time(header::DATE);
            now.zip(written)
                .is_some_and(|(now, written)| now.duration_since(written) >= SETTLED)
        };
        if etag.is_none() && !(self.scheme == Scheme::Https && is_settled()) {
            return Err(StoreError::NoEtag {
                url: self.url.clone(),
                server: self.server.to_owned(),
            });
        }
        Ok(Found {
            size,
            etag: etag.map(ToOwned::to_owned),
            // "null" is what a bucket answers for objects written while it kept no versions; such
            // an object can be replaced in place, so it is no version. Others are read by their ETags.
            version: text("x-amz-version-id")
                .filter(|version| self.scheme == Scheme::S3 && !matches!(*version, "" | "null"))
                .map(ToOwned::to_owned),
            last_modified: written,
        })
    }

    fn refused(&self, status: StatusCode, code: Option<&str>) -> StoreError {
        let server = self.server.to_owned();
        let both = match code {
            Some(code) => format!("{} {code}", status.as_u16()),
            None => format!("status {}", status.as_u16()),
        };
        let url = self.url.clone();
        match status.as_u16() {
            // What a server does not do it will not do later either.
            501 => StoreError::Answer { server, code: both },
            429 | 500..=599 => StoreError::Unavailable { server, code: both },
            _ if self.scheme == Scheme::Https => web(url, server, status, both, code),
            _ => self.store_refused(status, code, both),
        }
    }

    /// Sources: Amazon S3 API Reference, "List of error codes", which other servers use too and Google's for
    /// the most part; "Blob Storage error codes" of Azure.
    fn store_refused(&self, status: StatusCode, code: Option<&str>, both: String) -> StoreError {
        let server = self.server.to_owned();
        let bucket = self.bucket.to_owned();
        let url = self.url.clone();
        match (status.as_u16(), code) {
            (_, Some("NoSuchBucket" | "ContainerNotFound")) => {
                StoreError::NoBucket { bucket, server }
            }
            (_, Some("NoSuchKey" | "NoSuchVersion" | "BlobNotFound" | "ResourceNotFound"))
            | (404, None) => StoreError::NoObject { url, server },
            (
                _,
                Some(
                    "InvalidAccessKeyId"
                    | "SignatureDoesNotMatch"
                    | "ExpiredToken"
                    | "InvalidToken"
                    | "TokenRefreshRequired"
                    | "InvalidSecurity"
                    | "NotSignedUp"
                    // versitygw, of a key that it does not know.
                    | "XAdminUserNotFound"
                    // Azure.
                    | "AuthenticationFailed"
                    | "InvalidAuthenticationInfo"
                    | "AccountIsDisabled",
                ),
            )
            | (401, _) => StoreError::Credentials { server, code: both },
            (_, Some("RequestTimeTooSkewed" | "RequestExpired")) => StoreError::Clock { server },
            (
                _,
                Some(
                    "PermanentRedirect"
                    | "TemporaryRedirect"
                    | "AuthorizationHeaderMalformed"
                    | "AuthorizationQueryParametersError"
                    | "IllegalLocationConstraintException",
                ),
            )
            | (301 | 302 | 307 | 308, _) => StoreError::Region {
                bucket,
                server,
                code: both,
            },
            (403, _) => match self.permission {
                Some(permission) => StoreError::ListingDenied {
                    url,
                    code: both,
                    permission,
                },
                None => StoreError::Denied {
                    url,
                    code: both,
                    permission: reading(self.scheme),
                },
            },
            _ => StoreError::Answer { server, code: both },
        }
    }
}

/// What reading an object needs.
fn reading(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Gs => "storage.objects.get on it",
        Scheme::Az => "the right to read blobs, as the role Storage Blob Data Reader has it",
        Scheme::S3 | Scheme::Https | Scheme::File => {
            "s3:GetObject on it, and s3:ListBucket so that a missing object is told from a forbidden one"
        }
    }
}

/// What a web server means, which may be a store to which a signed URL leads.
fn web(
    url: String,
    server: String,
    status: StatusCode,
    both: String,
    code: Option<&str>,
) -> StoreError {
    match status.as_u16() {
        301 | 302 | 303 | 307 | 308 => StoreError::Redirected { url, server },
        404 | 410 => StoreError::NoObject { url, server },
        // Stores tell by 400 what is wrong with a signature.
        401 | 403 => StoreError::UrlDenied {
            url,
            server,
            code: both,
        },
        400 if code.is_some() => StoreError::UrlDenied {
            url,
            server,
            code: both,
        },
        _ => StoreError::Answer { server, code: both },
    }
}

fn date(text: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(date.timestamp())
}

/// The `<Code>` of an S3 error document, where it is one plain word.
fn error_code(body: &[u8]) -> Option<&str> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = !code.is_empty()
        && code.len() <= 64
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(scheme: Scheme) -> Question<'static> {
        Question {
            scheme,
            url: "s3://b/k".to_owned(),
            bucket: "b",
            server: "http://s",
            permission: None,
        }
    }

    fn read(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Found, StoreError> {
        read_of(Scheme::S3, status, headers, body)
    }

    fn read_of(
        scheme: Scheme,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Found, StoreError> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse::<http::HeaderValue>().unwrap(),
                )
            })
            .collect();
        question(scheme).read(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body.as_bytes(),
        )
    }

    #[test]
    fn an_object_is_found() {
        let found = read(
            206,
            &[
                ("content-range", "bytes 0-0/4096"),
                ("etag", "\"abc\""),
                ("x-amz-version-id", "v1"),
                ("last-modified", "Wed, 01 Jan 2025 10:00:00 GMT"),
            ],
            "x",
        )
        .unwrap();
        assert_eq!(found.size, 4096);
        assert_eq!(found.etag.as_deref(), Some("\"abc\""));
        assert_eq!(found.version.as_deref(), Some("v1"));
        assert_eq!(
            found.last_modified,
            Some("2025-01-01T10:00:00Z".parse().unwrap())
        );
    }

    #[test]
    fn a_null_version_is_none() {
        let found = read(
            206,
            &[
                ("content-range", "bytes 0-0/1"),
                ("etag", "\"abc\""),
                ("x-amz-version-id", "null"),
            ],
            "",
        );
        assert_eq!(found.unwrap().version, None);
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let xml = |code: &str| {
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>")
        };
        for (status, body, reason) in [
            (404, xml("NoSuchBucket"), "BucketNotFound"),
            (404, xml("NoSuchKey"), "ObjectNotFound"),
            (404, String::new(), "ObjectNotFound"),
            (403, xml("InvalidAccessKeyId"), "CredentialsRefused"),
            (404, xml("InvalidAccessKeyId"), "CredentialsRefused"),
            (404, xml("XAdminUserNotFound"), "CredentialsRefused"),
            (403, xml("SignatureDoesNotMatch"), "CredentialsRefused"),
            (400, xml("ExpiredToken"), "CredentialsRefused"),
            (403, xml("AccessDenied"), "AccessDenied"),
            (403, String::new(), "AccessDenied"),
            (403, xml("RequestTimeTooSkewed"), "ClocksDiffer"),
            (301, xml("PermanentRedirect"), "RegionWrong"),
            (400, xml("AuthorizationHeaderMalformed"), "RegionWrong"),
            (503, xml("SlowDown"), "StoreUnavailable"),
            (502, "<html>".to_owned(), "StoreUnavailable"),
            (501, xml("NotImplemented"), "StoreAnswerInvalid"),
            (418, "secret text".to_owned(), "StoreAnswerInvalid"),
            (200, String::new(), "RangesUnsupported"),
            (416, xml("InvalidRange"), "ArchiveEmpty"),
        ] {
            let error = read(status, &[], &body).unwrap_err();
            assert_eq!(error.reason(), reason, "{status} {body}");
            assert!(!error.to_string().contains("secret text"));
            assert!(error.to_string().contains("; "), "{error}: what to do?");
        }
    }

    #[test]
    fn what_a_listing_needs_is_told() {
        let question = question(Scheme::S3).listing();
        assert_eq!(question.listed(StatusCode::OK, b""), Ok(()));
        let denied = question.listed(StatusCode::FORBIDDEN, b"<Code>AccessDenied</Code>");
        let said = denied.unwrap_err().to_string();
        assert!(said.contains("give them s3:ListBucket"), "{said}");
    }

    #[test]
    fn a_weak_or_missing_etag_is_refused() {
        for headers in [
            &[("content-range", "bytes 0-0/9")][..],
            &[("content-range", "bytes 0-0/9"), ("etag", "W/\"abc\"")],
            &[("content-range", "bytes 0-0/9"), ("etag", "\"\"")],
        ] {
            assert_eq!(read(206, headers, "").unwrap_err().reason(), "ETagMissing");
        }
    }

    #[test]
    fn a_web_server_may_tell_by_a_time_that_is_past() {
        let written = ("last-modified", "Wed, 01 Jan 2025 10:00:00 GMT");
        let found = |scheme, now: &'static str| {
            let headers = [("content-range", "bytes 0-0/9"), written, ("date", now)];
            read_of(scheme, 206, &headers, "")
        };
        let later = "Wed, 01 Jan 2025 10:01:00 GMT";
        let dated = found(Scheme::Https, later).unwrap();
        assert_eq!(dated.etag, None);
        assert_eq!(
            dated.last_modified,
            Some("2025-01-01T10:00:00Z".parse().unwrap())
        );
        for (scheme, now) in [
            (Scheme::Https, "Wed, 01 Jan 2025 10:00:59 GMT"),
            (Scheme::Https, "some day"),
            (Scheme::S3, later),
            (Scheme::Az, later),
        ] {
            assert_eq!(found(scheme, now).unwrap_err().reason(), "ETagMissing");
        }
    }

    #[test]
    fn each_kind_of_store_has_its_words() {
        let xml = |code: &str| format!("<Error><Code>{code}</Code></Error>");
        for (scheme, status, code, reason, word) in [
            (
                Scheme::Gs,
                403,
                "AccessDenied",
                "AccessDenied",
                "storage.objects.get",
            ),
            (
                Scheme::Gs,
                404,
                "NoSuchBucket",
                "BucketNotFound",
                "create it",
            ),
            (Scheme::Az, 404, "BlobNotFound", "ObjectNotFound", "upload"),
            (
                Scheme::Az,
                404,
                "ContainerNotFound",
                "BucketNotFound",
                "create it",
            ),
            (
                Scheme::Az,
                403,
                "AuthenticationFailed",
                "CredentialsRefused",
                "Secret",
            ),
            (
                Scheme::Az,
                403,
                "AuthorizationFailure",
                "AccessDenied",
                "Blob Data Reader",
            ),
            (
                Scheme::Https,
                403,
                "AccessDenied",
                "AccessDenied",
                "has expired",
            ),
            (
                Scheme::Https,
                400,
                "ExpiredToken",
                "AccessDenied",
                "has expired",
            ),
            (Scheme::Https, 401, "", "AccessDenied", "has expired"),
            (Scheme::Https, 404, "", "ObjectNotFound", "upload"),
            (Scheme::Https, 302, "", "Redirected", "another address"),
            (Scheme::Https, 400, "", "StoreAnswerInvalid", "backupURL"),
            (Scheme::Https, 503, "", "StoreUnavailable", "tried again"),
        ] {
            let error = read_of(scheme, status, &[], &xml(code)).unwrap_err();
            let said = error.to_string();
            assert_eq!(error.reason(), reason, "{scheme:?} {status} {code}: {said}");
            assert!(said.contains(word), "{said}");
        }
    }

    #[test]
    fn only_plain_codes_are_repeated() {
        assert_eq!(error_code(b"<Code>NoSuchKey</Code>"), Some("NoSuchKey"));
        assert_eq!(error_code(b"<Code>root:x:0:0</Code>"), None);
        assert_eq!(error_code(b"<Code></Code>"), None);
        assert_eq!(error_code(b"nothing"), None);
    }
}
