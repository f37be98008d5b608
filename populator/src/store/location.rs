//! `s3://` URLs and which store serves them.

use std::fmt;

use super::StoreError;

/// The URL of one object. The key is taken as written: nothing in it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectUrl {
    /// The bucket.
    pub bucket: String,
    /// The key, without a leading slash.
    pub key: String,
}

impl ObjectUrl {
    /// Reads `s3://BUCKET/KEY`.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let malformed = || StoreError::Url {
            url: url.to_owned(),
        };
        let (bucket, key) = url
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(malformed)?;
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control)
        };
        if bucket.is_empty() || !key.split('/').all(is_segment) {
            return Err(malformed());
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }
}

impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// Whether a store with the URL `prefix` serves `url`: equal in whole path segments, so that
/// `s3://b/team` serves `s3://b/team/x` and not `s3://b/teammate/x`.
fn serves(prefix: &str, url: &str) -> bool {
    url.strip_prefix(prefix.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The store whose URL is the longest prefix of `url`; among equals the first by name, so that the
/// choice does not depend on the order in which stores are listed.
pub fn longest_prefix<'a, T>(
    stores: impl IntoIterator<Item = &'a T>,
    url: &str,
    url_of: impl Fn(&T) -> &str,
    name_of: impl Fn(&T) -> &str,
) -> Option<&'a T> {
    stores
        .into_iter()
        .filter(|store| serves(url_of(store), url))
        .max_by(|a, b| {
            let length = |store: &T| url_of(store).trim_end_matches('/').len();
            length(a)
                .cmp(&length(b))
                .then_with(|| name_of(b).cmp(name_of(a)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = ObjectUrl::parse("s3://my-bucket/a b/c%20d.tar.gz").unwrap();
        assert_eq!(url.bucket, "my-bucket");
        assert_eq!(url.key, "a b/c%20d.tar.gz");
        assert_eq!(url.to_string(), "s3://my-bucket/a b/c%20d.tar.gz");
        for wrong in [
            "s3://b",
            "s3:///k",
            "http://b/k",
            "s3://b/",
            "s3://b/k/",
            "s3://b//k",
            "s3://b/../k",
            "s3://b/a\nb",
        ] {
            assert!(ObjectUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_serves() {
        let stores = [
            ("z", "s3://b"),
            ("a", "s3://b/"),
            ("t", "s3://b/team"),
            ("s", "s3://b/team/sub/"),
            ("o", "s3://bb"),
        ];
        let pick = |url| {
            longest_prefix(stores.iter(), url, |store| store.1, |store| store.0)
                .map(|store| store.0)
        };
        assert_eq!(pick("s3://b/x.tar"), Some("a"));
        assert_eq!(pick("s3://b/teammate/x.tar"), Some("a"));
        assert_eq!(pick("s3://b/team/x.tar"), Some("t"));
        assert_eq!(pick("s3://b/team/sub/x.tar"), Some("s"));
        assert_eq!(pick("s3://b/team/subs.tar"), Some("t"));
        assert_eq!(pick("s3://bb/x.tar"), Some("o"));
        assert_eq!(pick("s3://bbb/x.tar"), None);
    }
}
