//! URLs of archives, what they name and which store serves them.

use std::fmt;

use url::Url;

use super::StoreError;

/// What kind of store a URL is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A server that speaks S3.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// Any web server: one object, with a signature in its URL perhaps.
    Https,
    /// A directory that the administrator names.
    File,
}

impl Scheme {
    const ALL: [Self; 5] = [Self::S3, Self::Gs, Self::Az, Self::Https, Self::File];

    /// How its URLs begin.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::S3 => "s3://",
            Self::Gs => "gs://",
            Self::Az => "az://",
            Self::Https => "https://",
            Self::File => "file://",
        }
    }

    /// That of a URL.
    pub fn of(url: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|scheme| url.starts_with(scheme.prefix()))
    }

    /// Whether a BackupStore has to say with what credentials its objects are read.
    pub fn needs_credentials(self) -> bool {
        match self {
            Self::S3 | Self::Gs | Self::Az => true,
            Self::Https | Self::File => false,
        }
    }

    fn takes_bucket(self, bucket: &str) -> bool {
        match self {
            // It may become a part of a host's name, which has to stay the store's.
            Self::S3 | Self::Gs | Self::Az => {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte);
                !bucket.is_empty() && bucket.bytes().all(is_plain)
            }
            // A user's name in it would be a secret that is shown.
            Self::Https => {
                !bucket.contains(['@', '\\', '?', '#', '%'])
                    && Url::parse(&format!("https://{bucket}/"))
                        .is_ok_and(|url| url.path() == "/" && url.has_host())
            }
            Self::File => bucket.is_empty(),
        }
    }

    fn takes_key(self, key: &str) -> bool {
        match self {
            Self::S3 | Self::File => true,
            // object_store puts these into a signed URL as they are, where they mean something else.
            Self::Gs => !key.contains(['?', '#', '%']),
            // object_store signs names as they stand in the URL, and Azure as they are.
            Self::Az => key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)),
            Self::Https => !key.contains(['#', '\\']),
        }
    }
}

/// What stands behind the question mark of a URL: who has it can read the object, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Query(String);

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Query(..)")
    }
}

/// The URL of one object. The key is taken as written: nothing in it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectUrl {
    /// In what kind of store.
    pub scheme: Scheme,
    /// The bucket or container; of a web server its host and port; of a file nothing.
    pub bucket: String,
    /// The key, without a leading slash.
    pub key: String,
    /// The signature that came with it.
    query: Option<Query>,
}

impl ObjectUrl {
    /// Reads `SCHEME://BUCKET/KEY`, where a web server's may have a query.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let malformed = || StoreError::Url { url: shown(url) };
        let scheme = Scheme::of(url).ok_or_else(malformed)?;
        let rest = &url[scheme.prefix().len()..];
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) if scheme == Scheme::Https => (rest, Some(query)),
            _ => (rest, None),
        };
        let (bucket, key) = rest.split_once('/').ok_or_else(malformed)?;
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..") && !segment.contains(char::is_control)
        };
        let query_is_one = query.is_none_or(|query| {
            let is_odd = |it: char| it == '#' || it.is_control() || it.is_whitespace();
            !query.contains(is_odd)
        });
        if !scheme.takes_bucket(bucket)
            || !scheme.takes_key(key)
            || !key.split('/').all(is_segment)
            || !query_is_one
        {
            return Err(malformed());
        }
        Ok(Self {
            scheme,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            query: query.map(|query| Query(query.to_owned())),
        })
    }

    /// All of it, the secret part too.
    pub(super) fn whole(&self) -> String {
        match &self.query {
            Some(Query(query)) => format!("{self}?{query}"),
            None => self.to_string(),
        }
    }
}

/// All objects whose keys begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixUrl {
    /// In what kind of store.
    pub scheme: Scheme,
    /// The bucket.
    pub bucket: String,
    /// How the keys begin: empty for the whole bucket, or ends in a slash.
    pub prefix: String,
}

impl PrefixUrl {
    /// An object under it, unless its key is one that no URL can have.
    pub fn object(&self, key: &str) -> Option<ObjectUrl> {
        let url = format!("{}{}/{key}", self.scheme.prefix(), self.bucket);
        ObjectUrl::parse(&url).ok().filter(|url| url.key == key)
    }
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
    /// Reads `SCHEME://BUCKET/KEY`, `SCHEME://BUCKET/PREFIX/` or `SCHEME://BUCKET/`.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let is_web = Scheme::of(url) == Some(Scheme::Https);
        let path = match url.split_once('?') {
            Some((path, _)) if is_web => path,
            _ => url,
        };
        let Some(path) = path.strip_suffix('/') else {
            return ObjectUrl::parse(url).map(Self::Object);
        };
        if is_web {
            return Err(StoreError::NoListing { url: shown(url) });
        }
        let whole = Scheme::of(path).and_then(|scheme| {
            let bucket = path.strip_prefix(scheme.prefix())?;
            let is_whole = !bucket.contains('/') && scheme.takes_bucket(bucket);
            is_whole.then(|| PrefixUrl {
                scheme,
                bucket: bucket.to_owned(),
                prefix: String::new(),
            })
        });
        if let Some(whole) = whole {
            return Ok(Self::Prefix(whole));
        }
        let object = ObjectUrl::parse(path)?;
        Ok(Self::Prefix(PrefixUrl {
            scheme: object.scheme,
            bucket: object.bucket,
            prefix: object.key + "/",
        }))
    }

    /// In what kind of store.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Object(object) => object.scheme,
            Self::Prefix(prefix) => prefix.scheme,
        }
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
        write!(f, "{}{}/{}", self.scheme.prefix(), self.bucket, self.prefix)
    }
}

/// Without the query.
impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", self.scheme.prefix(), self.bucket, self.key)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

/// What may be shown of a URL that somebody wrote, which may be no URL at all: neither a query nor the name
/// of a user.
pub fn shown(url: &str) -> String {
    match Scheme::of(url) {
        Some(Scheme::S3 | Scheme::Gs | Scheme::Az | Scheme::File) => url.to_owned(),
        Some(Scheme::Https) | None => {
            let plain = url.split(['?', '#']).next().unwrap_or_default();
            match plain.split_once("://") {
                Some((scheme, rest)) => {
                    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                    format!("{scheme}://{place}")
                }
                None => plain.to_owned(),
            }
        }
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
        for (right, scheme, bucket, key) in [
            ("s3://b/k?x#y", Scheme::S3, "b", "k?x#y"),
            ("gs://b/a b/\u{fc}.tar", Scheme::Gs, "b", "a b/\u{fc}.tar"),
            ("az://c/a/k.tar", Scheme::Az, "c", "a/k.tar"),
            ("https://h:8443/a/k.tar", Scheme::Https, "h:8443", "a/k.tar"),
            ("https://[::1]:1/k%20k", Scheme::Https, "[::1]:1", "k%20k"),
            ("file:///a b/k.tar", Scheme::File, "", "a b/k.tar"),
        ] {
            let url = ObjectUrl::parse(right).unwrap();
            assert_eq!((url.scheme, &*url.bucket, &*url.key), (scheme, bucket, key));
            assert_eq!(url.to_string(), right);
            assert_eq!(url.whole(), right);
        }
        for wrong in [
            "s3://b",
            "s3:///k",
            "s3://evil.example.com?x/k",
            "gs://b@evil.example.com/k",
            "http://b/k",
            "s3://b/",
            "s3://b/k/",
            "s3://b//k",
            "s3://b/../k",
            "s3://b/a\nb",
            "gs://b/a%20b",
            "gs://b/a?b",
            "az://c/a b",
            "az://c/a%20b",
            "https://h",
            "https:///k",
            "https://u:p@h/k",
            "https://h\\x/k",
            "https://h/a#b",
            "https://h/k?a b",
            "https://h/../k",
            "file://host/k",
            "file:///../k",
            "file:///a//k",
            "file://k",
        ] {
            assert!(ObjectUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_opens_an_object_is_never_shown() {
        let url = "https://h/a/k.tar?X-Amz-Signature=c0ffee/";
        let Location::Object(object) = Location::parse(url).unwrap() else {
            panic!("a prefix");
        };
        assert_eq!(object.whole(), url);
        for shown in [object.to_string(), format!("{object:?}"), shown(url)] {
            assert!(!shown.contains("c0ffee"), "{shown}");
        }
        for wrong in [
            "https://h/a/?c0ffee",
            "https://h/a?c0ffee#x",
            "https://c0ffee@h/a",
            "https://h?c0ffee",
            "HTTPS://u:c0ffee@h/a?c0ffee",
            "ftp://c0ffee@h/a",
            "h/a?c0ffee",
        ] {
            let error = Location::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("c0ffee"), "{error}");
        }
    }

    #[test]
    fn a_slash_at_the_end_means_a_prefix() {
        let Location::Prefix(prefix) = Location::parse("s3://b/team/db/").unwrap() else {
            panic!("one object");
        };
        assert_eq!((&*prefix.bucket, &*prefix.prefix), ("b", "team/db/"));
        assert_eq!(prefix.to_string(), "s3://b/team/db/");
        for whole in ["s3://b/", "gs://b/", "az://b/", "file:///"] {
            let location = Location::parse(whole).unwrap();
            assert!(matches!(&location, Location::Prefix(all) if all.prefix.is_empty()));
            assert_eq!(location.to_string(), whole);
        }
        let files = Location::parse("file:///db/").unwrap();
        assert!(matches!(&files, Location::Prefix(all) if all.prefix == "db/"));
        let object = Location::parse("s3://b/team/db").unwrap();
        assert!(matches!(object, Location::Object(_)));
        for wrong in [
            "s3://b",
            "s3:///",
            "s3://b//",
            "s3://b/a//",
            "s3://b/../",
            "file://",
            "file://x/",
            "/",
        ] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
        let web = Location::parse("https://h/a/").unwrap_err();
        assert_eq!(web.reason(), "ListingUnsupported");
    }

    #[test]
    fn what_a_listing_shows_is_a_url_or_passed_over() {
        let under = |prefix: &str, key: &str| match Location::parse(prefix).unwrap() {
            Location::Prefix(prefix) => prefix.object(key).map(|url| url.to_string()),
            Location::Object(_) => panic!("one object"),
        };
        assert_eq!(under("gs://b/d/", "d/k").as_deref(), Some("gs://b/d/k"));
        assert_eq!(under("file:///", "d/k").as_deref(), Some("file:///d/k"));
        assert_eq!(under("s3://b/d/", "d//k"), None);
        assert_eq!(under("az://b/d/", "d/a b"), None);
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
