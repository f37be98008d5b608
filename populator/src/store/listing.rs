//! What a server answers to ListObjectsV2 and ListObjectVersions (Amazon S3 API Reference; the XML API of Google
//! Cloud Storage has the first too) and to List Blobs (Azure Blob Storage), read from XML.

use std::num::NonZeroUsize;

use jiff::Timestamp;
use quick_xml::de::Deserializer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Objects in one answer, which no server exceeds.
const ENTRIES: usize = 1000;

/// Parts of XML that are kept while another list is read: more than so many objects have.
const BUFFERED: NonZeroUsize = NonZeroUsize::new(64 << 10).unwrap();

/// A part of a listing, and how to ask for the next one.
pub(super) struct Page<E, N> {
    pub(super) entries: Vec<E>,
    pub(super) next: Option<N>,
}

/// What was answered is no listing.
pub(super) struct Unreadable;

/// A page, read from an answer.
pub(super) type Read<E, N> = Result<Page<E, N>, Unreadable>;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Bytes as stored.
    pub size: u64,
    /// When it was last written.
    pub last_modified: Timestamp,
}

/// One of the versions of an object, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The object's key.
    pub key: String,
    /// The version; `null` for what was written while the bucket kept no versions.
    pub id: String,
    /// When it was written, or deleted.
    pub last_modified: Timestamp,
    /// Whether from then on there was no object.
    pub is_deletion: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    contents: Vec<Entry>,
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
}

/// Reads the answer to ListObjectsV2.
pub(super) fn objects(body: &[u8]) -> Read<Entry, (&'static str, String)> {
    let listed: ListBucketResult = parse(body)?;
    if listed.contents.len() > ENTRIES {
        return Err(Unreadable);
    }
    let token = listed.next_continuation_token;
    Ok(Page {
        entries: listed.contents,
        next: next(listed.is_truncated, token)?.map(|token| ("continuation-token", token)),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListVersionsResult {
    #[serde(default)]
    version: Vec<Listed>,
    #[serde(default)]
    delete_marker: Vec<Listed>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_version_id_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    key: String,
    version_id: String,
    last_modified: Timestamp,
}

impl Listed {
    fn version(self, is_deletion: bool) -> Version {
        Version {
            key: self.key,
            id: self.version_id,
            last_modified: self.last_modified,
            is_deletion,
        }
    }
}

/// Reads the answer to ListObjectVersions. The next page is asked for by a key and a version. The entries
/// are in the order of their keys.
pub(super) fn versions(body: &[u8]) -> Read<Version, (String, Option<String>)> {
    let listed: ListVersionsResult = parse(body)?;
    if listed.version.len() + listed.delete_marker.len() > ENTRIES {
        return Err(Unreadable);
    }
    let written = listed.version.into_iter().map(|it| it.version(false));
    let deleted = listed.delete_marker.into_iter().map(|it| it.version(true));
    let mut entries: Vec<_> = written.chain(deleted).collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let key = next(listed.is_truncated, listed.next_key_marker)?;
    Ok(Page {
        entries,
        next: key.map(|key| (key, listed.next_version_id_marker)),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnumerationResults {
    blobs: Blobs,
    next_marker: Option<String>,
}

#[derive(Deserialize)]
struct Blobs {
    #[serde(rename = "Blob", default)]
    all: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    last_modified: String,
}

/// Reads the answer to List Blobs. A folder of a hierarchical namespace is a blob without content.
pub(super) fn blobs(body: &[u8]) -> Read<Entry, (&'static str, String)> {
    let listed: EnumerationResults = parse(body)?;
    if listed.blobs.all.len() > ENTRIES {
        return Err(Unreadable);
    }
    let entry = |blob: Blob| {
        let written = jiff::fmt::rfc2822::parse(&blob.properties.last_modified);
        Ok(Entry {
            key: blob.name,
            size: blob.properties.size,
            last_modified: written.map_err(|_| Unreadable)?.timestamp(),
        })
    };
    let marker = listed.next_marker.filter(|marker| !marker.is_empty());
    Ok(Page {
        entries: listed
            .blobs
            .all
            .into_iter()
            .map(entry)
            .collect::<Result<_, _>>()?,
        next: marker.map(|marker| ("marker", marker)),
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    let mut xml = Deserializer::from_reader(body);
    xml.event_buffer_size(Some(BUFFERED));
    T::deserialize(&mut xml).map_err(|_| Unreadable)
}

/// How to ask for more, which a server must say where there is more.
fn next(is_truncated: bool, marker: Option<String>) -> Result<Option<String>, Unreadable> {
    match (is_truncated, marker.filter(|marker| !marker.is_empty())) {
        (false, _) => Ok(None),
        (true, Some(marker)) => Ok(Some(marker)),
        (true, None) => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn objects_are_read() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Name>b</Name><Prefix>p/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>
              <IsTruncated>true</IsTruncated>
              <Contents><Key>p/a &amp; b.tar</Key><LastModified>2025-01-01T10:00:00.250Z</LastModified>
                <ETag>&quot;e&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>
              <Contents><Key>p/c.tar</Key><LastModified>2025-01-02T10:00:00Z</LastModified>
                <Size>8</Size></Contents>
              <NextContinuationToken>t/=</NextContinuationToken>
            </ListBucketResult>"#;
        let page = objects(body).ok().unwrap();
        assert_eq!(page.next, Some(("continuation-token", "t/=".to_owned())));
        let (key, size) = ("p/a & b.tar".to_owned(), 7);
        let last_modified = time("2025-01-01T10:00:00.25Z");
        let first = Entry {
            key,
            size,
            last_modified,
        };
        assert_eq!((page.entries.len(), &page.entries[0]), (2, &first));
        let none = objects(b"<ListBucketResult><Name>b</Name></ListBucketResult>")
            .ok()
            .unwrap();
        assert!(none.entries.is_empty() && none.next.is_none());
    }

    #[test]
    fn versions_and_deletions_are_read_together() {
        let body = br"<ListVersionsResult><Name>b</Name><IsTruncated>true</IsTruncated>
              <NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>3</NextVersionIdMarker>
              <DeleteMarker><Key>k</Key><VersionId>2</VersionId><IsLatest>true</IsLatest>
                <LastModified>2025-01-03T00:00:00Z</LastModified></DeleteMarker>
              <Version><Key>k</Key><VersionId>1</VersionId><IsLatest>false</IsLatest>
                <LastModified>2025-01-02T00:00:00Z</LastModified><Size>7</Size></Version>
              <DeleteMarker><Key>k</Key><VersionId>null</VersionId><IsLatest>false</IsLatest>
                <LastModified>2025-01-01T00:00:00Z</LastModified></DeleteMarker>
            </ListVersionsResult>";
        let page = versions(body).ok().unwrap();
        assert_eq!(page.next, Some(("k".to_owned(), Some("3".to_owned()))));
        let seen: Vec<_> = page
            .entries
            .iter()
            .map(|it| (&*it.id, it.is_deletion))
            .collect();
        assert_eq!(seen, [("1", false), ("2", true), ("null", true)]);
    }

    #[test]
    fn blobs_are_read() {
        let body = br#"<?xml version="1.0" encoding="utf-8"?>
            <EnumerationResults ServiceEndpoint="https://a.blob.core.windows.net/" ContainerName="c">
              <Prefix>p/</Prefix><MaxResults>1000</MaxResults><Blobs>
              <Blob><Name>p/a &amp; b.tar</Name><Properties>
                <Creation-Time>Wed, 01 Jan 2025 09:00:00 GMT</Creation-Time>
                <Last-Modified>Wed, 01 Jan 2025 10:00:00 GMT</Last-Modified><Etag>0x8D</Etag>
                <Content-Length>7</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>
              <Blob><Name>p/c.tar</Name><Properties>
                <Last-Modified>Thu, 02 Jan 2025 10:00:00 GMT</Last-Modified>
                <Content-Length>8</Content-Length></Properties><OrMetadata/></Blob>
              </Blobs><NextMarker>m/=</NextMarker></EnumerationResults>"#;
        let page = blobs(body).ok().unwrap();
        assert_eq!(page.next, Some(("marker", "m/=".to_owned())));
        let first = Entry {
            key: "p/a & b.tar".to_owned(),
            size: 7,
            last_modified: time("2025-01-01T10:00:00Z"),
        };
        assert_eq!((page.entries.len(), &page.entries[0]), (2, &first));
        let none = b"<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        let none = blobs(none).ok().unwrap();
        assert!(none.entries.is_empty() && none.next.is_none());
        assert!(blobs(b"<EnumerationResults/>").is_err());
    }

    #[test]
    fn what_is_meant_to_fill_memory_is_refused() {
        let entry = "<Contents><Key>k</Key><LastModified>2025-01-02T10:00:00Z</LastModified>\
                     <Size>8</Size></Contents>";
        let body = |times, between: &str| {
            format!(
                "<ListBucketResult>{entry}{}{}</ListBucketResult>",
                between,
                entry.repeat(times)
            )
        };
        assert!(objects(body(999, "<Other/>").as_bytes()).is_ok());
        assert!(objects(body(1000, "").as_bytes()).is_err());
        assert!(objects(body(1, &"<a/>".repeat(100_000)).as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for body in [
            "rubbish",
            "<html></body>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Contents><Key>k</Key></Contents></ListBucketResult>",
        ] {
            assert!(objects(body.as_bytes()).is_err(), "{body}");
        }
    }
}
