//! BackupStore: where archives lie, and with what credentials they are read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Where archives lie: a bucket, a container, a web server or a directory, or a part of one.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "backup.example.com",
    version = "v1",
    kind = "BackupStore",
    plural = "backupstores",
    shortname = "bs",
    category = "backups",
    namespaced,
    status = "BackupStoreStatus",
    derive = "PartialEq",
    doc = "Where the archives of this namespace lie and with what credentials they are read. A VolumeBackup without storeRef uses the BackupStore whose url is the longest prefix of its own.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the credentials were found and, where they were tried, accepted"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(
        name = "Region",
        type_ = "string",
        json_path = ".spec.region",
        priority = 1
    ),
    printcolumn(
        name = "Secret",
        type_ = "string",
        json_path = ".spec.credentialsSecretRef.name",
        priority = 1
    ),
    printcolumn(
        name = "Account",
        type_ = "string",
        json_path = ".spec.account",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    validation = Rule::new("self.spec.url.startsWith('az://') == has(self.spec.account)")
        .message("account names the storage account of a store whose url is az://CONTAINER, which needs it; no other has one"),
    validation = Rule::new("!self.spec.url.matches('^(https|file)://') || (!has(self.spec.endpoint) && !has(self.spec.credentialsSecretRef))")
        .message("what https:// and file:// name is read without credentials, where it lies: leave endpoint and credentialsSecretRef out"),
    validation = Rule::new("has(self.spec.credentialsSecretRef) || self.spec.url.matches('^(https|file)://') || (!has(self.spec.endpoint) && !has(self.spec.caBundle))")
        .message("without credentialsSecretRef, the controller's own credentials would be used, which go to the cloud's own servers only: name a Secret, or leave endpoint and caBundle out")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreSpec {
    /// What it serves: `s3://BUCKET`, `gs://BUCKET`, `az://CONTAINER`, `https://HOST` or `file://`, each
    /// perhaps with `/PREFIX`. Matches whole path segments.
    #[x_kube(validation = Rule::new(r"self.matches('^((s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]|az://[a-z0-9$][a-z0-9-]{1,61}[a-z0-9]|file://)(/.*)?|https://[^/@?#%\\\\ ]+(/[^?#]*)?)$')")
        .message("url must be s3://BUCKET, gs://BUCKET, az://CONTAINER, https://HOST or file://, perhaps with /PREFIX"))]
    #[schemars(length(max = 2048))]
    pub url: String,

    /// The server, for example `https://minio.example.com:9000`. Default: the cloud's own, for `s3://`
    /// Amazon S3 in `region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/]+/?$')")
        .message("endpoint must be http://HOST[:PORT] or https://HOST[:PORT]"))]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,

    /// The storage account of `az://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]{3,24}$')")
        .message("account must be the name of a storage account: 3 to 24 lower-case letters and digits"))]
    #[schemars(length(max = 24))]
    pub account: Option<String>,

    /// The region that requests of S3 are signed for.
    #[serde(default = "default_region")]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]{1,64}$')")
        .message("region must be a name, for example eu-central-1"))]
    #[schemars(length(max = 64))]
    pub region: String,

    /// Whether the bucket goes into the path (`https://server/bucket/key`) or into the host name
    /// (`https://bucket.server/key`). Most servers other than Amazon's want the path. Of `az://` the same
    /// is said of the account, where `endpoint` is given.
    #[serde(default = "default_path_style")]
    pub path_style: bool,

    /// Certificates in PEM by which the server is trusted, in place of the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.contains('-----BEGIN CERTIFICATE-----')")
        .message("caBundle must be certificates in PEM, which begin with -----BEGIN CERTIFICATE-----"))]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,

    /// The most that each node reads from the store, in bytes a second, as a quantity, for example `100Mi`.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
        .message("bandwidthPerNode must be a quantity above 0, for example 100Mi"))]
    #[schemars(length(max = 32))]
    pub bandwidth_per_node: Option<String>,

    /// The Secret of this namespace with the keys, for `s3://` `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY` and, for temporary credentials, `AWS_SESSION_TOKEN`; for `gs://`
    /// `GOOGLE_SERVICE_ACCOUNT_KEY`, a service account's key file; for `az://` `AZURE_STORAGE_KEY`. Without
    /// it, what the controller itself is at the cloud, where the administrator lends that to this
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_path_style() -> bool {
    true
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the controller found out about the store.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: the Secret has the keys, or none is needed, and the server accepted them when they were
    /// last used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
