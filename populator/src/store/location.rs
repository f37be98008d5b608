//! `s3://` URLs, what they name and which store serves them.

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

/// All objects whose keys begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixUrl {
    /// The bucket.
    pub bucket: String,
    /// How the keys begin: empty for the whole bucket, or ends in a slash.
    pub prefix: String,
}

/// What a `backupURL` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// One object.
    Object(ObjectUrl),
    /// Objects among which the time decides.
    Prefix(PrefixUrl),
}

impl Location {
    /// Reads `s3://BUCKET/KEY`, `s3://BUCKET/PREFIX/` or `s3://BUCKET/`.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let Some(path) = url.strip_suffix('/') else {
            return ObjectUrl::parse(url).map(Self::Object);
        };
        let prefix = match path.strip_prefix("s3://") {
            Some(bucket) if !bucket.is_empty() && !bucket.contains('/') => PrefixUrl {
                bucket: bucket.to_owned(),
                prefix: String::new(),
            },
            _ => {
                let ObjectUrl { bucket, key } = ObjectUrl::parse(path)?;
                PrefixUrl {
                    bucket,
                    prefix: key + "/",
                }
            }
        };
        Ok(Self::Prefix(prefix))
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        match self {
            Self::Object(object) => &object.bucket,
            Self::Prefix(prefix) => &prefix.bucket,
        }
    }
}

impl fmt::Display for PrefixUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
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
    fn a_slash_at_the_end_means_a_prefix() {
        let Location::Prefix(prefix) = Location::parse("s3://b/team/db/").unwrap() else {
            panic!("one object");
        };
        assert_eq!((&*prefix.bucket, &*prefix.prefix), ("b", "team/db/"));
        assert_eq!(prefix.to_string(), "s3://b/team/db/");
        let whole = Location::parse("s3://b/").unwrap();
        assert_eq!(whole.bucket(), "b");
        assert!(matches!(whole, Location::Prefix(all) if all.to_string() == "s3://b/"));
        let object = Location::parse("s3://b/team/db").unwrap();
        assert!(matches!(object, Location::Object(_)));
        for wrong in [
            "s3://b",
            "s3:///",
            "s3://b//",
            "s3://b/a//",
            "s3://b/../",
            "/",
        ] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
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
