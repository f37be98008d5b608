//! VolumeBackup: an archive in object storage that a PVC's `dataSourceRef` may name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, CachedSnapshot};
use crate::restore_options::RestoreOptions;

/// What a user writes: which archive, how old it may be, and how it is restored.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "backup.example.com",
    version = "v1",
    kind = "VolumeBackup",
    plural = "volumebackups",
    shortname = "vb",
    category = "backups",
    namespaced,
    status = "VolumeBackupStatus",
    derive = "PartialEq",
    doc = "An archive in object storage from which PersistentVolumeClaims can be filled: a PVC whose dataSourceRef names a VolumeBackup comes up with the archive's files in it.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the archive was found and can be read"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Restore-Point",
        type_ = "string",
        json_path = ".spec.restorePoint",
        description = "Nothing newer than this is restored where the store keeps versions"
    ),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.resolved.humanSize",
        description = "Size of the archive as stored"
    ),
    printcolumn(
        name = "Archive",
        type_ = "string",
        json_path = ".status.resolved.url",
        description = "The object that was last found, without what signed its URL"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    validation = Rule::new("!has(self.spec.requireVerified) || self.spec.requireVerified != 'Sha256' || has(self.spec.checksum)")
        .message("requireVerified Sha256 needs checksum.sha256, which is what the data are verified by"),
    validation = Rule::new("!has(self.spec.imageFile) || !((has(self.spec.include) && size(self.spec.include) > 0) || (has(self.spec.exclude) && size(self.spec.exclude) > 0) || has(self.spec.stripComponents) || has(self.spec.subPath) || has(self.spec.metadataPolicy) || (has(self.spec.ownership) && !has(self.spec.ownership.all)))")
        .message("imageFile is for the image of a disk, in which no files are chosen: leave out include, exclude, stripComponents, subPath and metadataPolicy, and of ownership all but all")
)]
#[serde(rename_all = "camelCase")]
pub struct VolumeBackupSpec {
    /// The archive: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `az://CONTAINER/KEY`, or `https://HOST/PATH` as
    /// any web server gives it out, with a signature in its query perhaps; or `file:///PATH` in the
    /// administrator's directory. One object. Its format (tar, alone or compressed by gzip, zstd, xz,
    /// bzip2 or lz4) is told by its first bytes, not by its name.
    ///
    /// Or, with a slash at the end, as `s3://BUCKET/PREFIX/`: the newest archive under it at
    /// `restorePoint`, except of a web server. A time in its name, as `20250101T100000Z` or `2025-01-01`, says of when an
    /// archive is, in UTC unless it names a zone, a day without a time being its end; without one,
    /// it is of when it was written. Archives are the objects whose names end as those of archives
    /// do: `.tar`, `.tar.gz`, `.tgz`, `.img.zst` and so on.
    #[serde(rename = "backupURL")]
    #[x_kube(
        validation = Rule::new(r"self.matches('^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.*|gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^?#%]*|az://[a-z0-9$][a-z0-9-]{1,61}[a-z0-9]/[^ %?#]*|https://[^/@?#%\\\\ ]+/[^?# ]*[^/?# ]([?][^# ]*)?|file:///.*)$')")
            .message("backupURL must be s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, https://HOST/PATH or file:///PATH, for example s3://my-bucket/database.tar.gz; or, except of https, with a slash at the end for the newest archive under it at restorePoint"),
    )]
    #[schemars(length(max = 8192))]
    pub backup_url: String,

    /// The point in time to restore (RFC 3339). Where a bucket of S3 keeps versions, it is the version
    /// that was current then; elsewhere, the object is used as it stands, and the
    /// condition `PointInTime` says so. Nothing newer is ever taken instead: none that old is an
    /// error.
    pub restore_point: Time,

    /// The BackupStore of this namespace to read from. Default: the one whose `url` is the longest
    /// prefix of `backupURL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_ref: Option<StoreRef>,

    /// How it is restored.
    #[serde(flatten)]
    pub options: RestoreOptions,

    /// Whether nodes keep snapshots of volumes that were restored from it, from which the next PVCs are
    /// made without reading the archive. Default: none are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// A BackupStore in the same namespace.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct StoreRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What was last seen of the archive.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeBackupStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: the archive was found and can be read. `PointInTime`: True where the object is
    /// known not to be newer than `restorePoint`, Unknown where one object is named and the bucket
    /// keeps no versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The object as last seen. A restore pins its own, in its VolumeRestore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<ResolvedArchive>,

    /// What nodes keep of it, as `cache` allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cached: Vec<CachedSnapshot>,
}

/// One exact object in a store.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedArchive {
    /// As `s3://BUCKET/KEY`: the archive's own URL, without what signed it.
    pub url: String,
    /// The object's version, where the bucket keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The object's ETag as the store gave it, quotes included; every read is made with
    /// `If-Match` on it (RFC 9110, 13.1.1). A web server may have none: then `lastModified` and
    /// `If-Unmodified-Since` (13.1.4) stand for it. Of a file, what its inode says.
    #[serde(rename = "etag", default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Bytes as stored (compressed).
    pub size: i64,
    /// The same for people, for example `1.2 GiB`.
    pub human_size: String,
    /// When the store last saw it written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<Time>,
}
