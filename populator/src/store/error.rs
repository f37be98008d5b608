//! Why an object in a store cannot be read.

use super::Denied;

/// Why an object in a store cannot be read. Each message says what happened and what to do; none
/// repeats what a server wrote beyond its error code, since the server is the tenant's choice and
/// could be made to be anything that the controller can reach.
#[derive(thiserror::Error, strum::EnumDiscriminants, Debug, Clone, PartialEq, Eq)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum StoreError {
    /// The URL is not one of an object.
    #[error(
        "{url:?} does not name an archive; write s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, https://HOST/PATH or file:///PATH, without empty parts, . or .., and for az and gs without characters that URLs encode"
    )]
    Url {
        /// As written.
        url: String,
    },
    /// Many objects are named where none can be listed.
    #[error(
        "{url} ends in a slash, and what lies on a web server cannot be listed; name one archive, without a slash at the end"
    )]
    NoListing {
        /// The URL.
        url: String,
    },
    /// No directory is named.
    #[error(
        "{url} is a file, and files are not read here; put the archive into a store, or have the administrator give a directory by --file-root to the populator's controller and agents"
    )]
    FilesDisabled {
        /// The URL.
        url: String,
    },
    /// A link, or rights.
    #[error(
        "the file {url} may not be read: it is closed to the populator, or a symbolic link leads there; name the file itself, and give everybody the right to read it"
    )]
    FileDenied {
        /// The URL.
        url: String,
    },
    /// A directory, or a device.
    #[error(
        "{url} is no regular file; name an archive, or end the URL in a slash for the newest under it"
    )]
    NotAFile {
        /// The URL.
        url: String,
    },
    /// The controller runs as nobody, or what says as whom does not answer.
    #[error(
        "the controller has no credentials of its own that open {url}; have the administrator look at its log and at what its ServiceAccount is at the cloud, or name a Secret by credentialsSecretRef of the BackupStore"
    )]
    AmbientMissing {
        /// The object.
        url: String,
    },
    /// The endpoint is not one.
    #[error(
        "the BackupStore's endpoint {endpoint:?} is not a server's URL; write http://HOST:PORT or https://HOST:PORT"
    )]
    Endpoint {
        /// As written.
        endpoint: String,
    },
    /// The certificates are none.
    #[error(
        "caBundle of the BackupStore holds no certificate that can be read; write certificates in PEM, as in a file ca.crt"
    )]
    CaBundle,
    /// The endpoint leads to where no store may be.
    #[error(
        "the server {server} has an address at which the populator does not look for stores ({denied}); use another endpoint, or have the administrator allow it by --allow-store-network to the populator's controller and agent"
    )]
    AddressDenied {
        /// Scheme, host and port.
        server: String,
        /// What is wrong with it.
        denied: Denied,
    },
    /// A URL cannot be signed.
    #[error(
        "no URL can be signed for {url}: {why}; check region and credentials of the BackupStore"
    )]
    Signing {
        /// The object.
        url: String,
        /// What the signer said.
        why: String,
    },
    /// The name of the server does not resolve, or nobody answers there.
    #[error("the server {server} cannot be reached ({why}); it is tried again until it answers")]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// In which way.
        why: &'static str,
    },
    /// TLS failed.
    #[error(
        "no secure connection to {server}: its certificate is not trusted or TLS failed; use a certificate of a public authority, or name the authority by caBundle of the BackupStore"
    )]
    Tls {
        /// Scheme, host and port.
        server: String,
    },
    /// The server is there and cannot serve now.
    #[error("the server {server} cannot serve now ({code}); it is tried again until it can")]
    Unavailable {
        /// Scheme, host and port.
        server: String,
        /// Status and error code.
        code: String,
    },
    /// The bucket is missing.
    #[error(
        "the bucket {bucket} does not exist on {server}; create it, or correct backupURL or the BackupStore's endpoint"
    )]
    NoBucket {
        /// Its name.
        bucket: String,
        /// Scheme, host and port.
        server: String,
    },
    /// The object is missing.
    #[error("the object {url} does not exist on {server}; upload it or correct backupURL")]
    NoObject {
        /// The object.
        url: String,
        /// Scheme, host and port.
        server: String,
    },
    /// The access key is not known, or the secret key is another's.
    #[error(
        "the server {server} does not accept the credentials ({code}); correct the keys in the BackupStore's Secret, or, of a store without one, what the controller runs as"
    )]
    Credentials {
        /// Scheme, host and port.
        server: String,
        /// Status and error code.
        code: String,
    },
    /// The credentials are good and not allowed to read the object.
    #[error("the credentials may not read {url} ({code}); give them {permission}")]
    Denied {
        /// The object.
        url: String,
        /// Status and error code.
        code: String,
        /// What they lack.
        permission: &'static str,
    },
    /// The web server does not hand it out.
    #[error(
        "the server {server} does not give out {url} ({code}): a signed URL has expired, or does not open it; write a new one into backupURL of the VolumeBackup"
    )]
    UrlDenied {
        /// The object, without what signed it.
        url: String,
        /// Scheme, host and port.
        server: String,
        /// Status and error code.
        code: String,
    },
    /// The web server names another address.
    #[error(
        "the server {server} sends those who ask for {url} to another address, which is not gone to; write the address where the archive lies into backupURL of the VolumeBackup"
    )]
    Redirected {
        /// The object.
        url: String,
        /// Scheme, host and port.
        server: String,
    },
    /// The credentials are good and not allowed to list.
    #[error("the credentials may not list {url} ({code}); give them {permission} on the bucket")]
    ListingDenied {
        /// What was to be listed.
        url: String,
        /// Status and error code.
        code: String,
        /// What they lack.
        permission: &'static str,
    },
    /// So many objects are not looked through.
    #[error("more than {most} objects lie under {url}; name a longer prefix or the archive itself")]
    TooMany {
        /// What was listed.
        url: String,
        /// Where that ends.
        most: usize,
    },
    /// The region is another one.
    #[error(
        "the server {server} wants another region or address for the bucket {bucket} ({code}); correct the BackupStore's region or endpoint"
    )]
    Region {
        /// Its name.
        bucket: String,
        /// Scheme, host and port.
        server: String,
        /// Status and error code.
        code: String,
    },
    /// The clocks differ.
    #[error(
        "the clocks of {server} and of this cluster differ too much for signed requests; set them right"
    )]
    Clock {
        /// Scheme, host and port.
        server: String,
    },
    /// The server cannot send parts.
    #[error(
        "the server {server} does not send parts of objects (HTTP Range), without which archives are not read; use another server"
    )]
    NoRanges {
        /// Scheme, host and port.
        server: String,
    },
    /// The object has no strong ETag.
    #[error(
        "the server {server} gives no strong ETag for {url}, nor a time at which it was written that is a minute past, so that nobody would notice if it were replaced midway; wait a minute, use another server or upload it otherwise"
    )]
    NoEtag {
        /// The object.
        url: String,
        /// Scheme, host and port.
        server: String,
    },
    /// The answer is not one of a store.
    #[error(
        "the server {server} answered {code}, as no store does; correct backupURL or the BackupStore's endpoint"
    )]
    Answer {
        /// Scheme, host and port.
        server: String,
        /// Status and error code.
        code: String,
    },
    /// There is nothing in it.
    #[error("the object {url} is empty; upload the archive again")]
    Empty {
        /// The object.
        url: String,
    },
}

impl StoreError {
    /// One word in CamelCase, for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Url { .. } => "URLInvalid",
            Self::NoListing { .. } => "ListingUnsupported",
            Self::FilesDisabled { .. } => "FilesDisabled",
            Self::NotAFile { .. } => "NotAFile",
            Self::AmbientMissing { .. } => "AmbientCredentialsMissing",
            Self::Endpoint { .. } => "EndpointInvalid",
            Self::CaBundle => "CABundleInvalid",
            Self::AddressDenied { .. } => "EndpointDenied",
            Self::Signing { .. } => "SigningFailed",
            Self::Unreachable { .. } => "StoreUnreachable",
            Self::Tls { .. } => "StoreNotTrusted",
            Self::Unavailable { .. } => "StoreUnavailable",
            Self::NoBucket { .. } => "BucketNotFound",
            Self::NoObject { .. } => "ObjectNotFound",
            Self::Credentials { .. } => "CredentialsRefused",
            Self::Denied { .. }
            | Self::ListingDenied { .. }
            | Self::UrlDenied { .. }
            | Self::FileDenied { .. } => "AccessDenied",
            Self::Redirected { .. } => "Redirected",
            Self::TooMany { .. } => "TooManyObjects",
            Self::Region { .. } => "RegionWrong",
            Self::Clock { .. } => "ClocksDiffer",
            Self::NoRanges { .. } => "RangesUnsupported",
            Self::NoEtag { .. } => "ETagMissing",
            Self::Answer { .. } => "StoreAnswerInvalid",
            Self::Empty { .. } => "ArchiveEmpty",
        }
    }

    /// What it says about the store itself: `Some(true)` that the credentials were accepted,
    /// `Some(false)` that the store is at fault, `None` nothing.
    pub fn store_accepted(&self) -> Option<bool> {
        match self {
            Self::NoBucket { .. }
            | Self::NoObject { .. }
            | Self::TooMany { .. }
            | Self::NoEtag { .. }
            | Self::Empty { .. } => Some(true),
            Self::Endpoint { .. }
            | Self::CaBundle
            | Self::AddressDenied { .. }
            | Self::Signing { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. }
            | Self::Unavailable { .. }
            | Self::Credentials { .. }
            | Self::Region { .. }
            | Self::Clock { .. }
            | Self::NoRanges { .. }
            | Self::FilesDisabled { .. }
            | Self::AmbientMissing { .. }
            | Self::Answer { .. } => Some(false),
            // A key that may read other objects of the store is a good key.
            Self::Url { .. }
            | Self::NoListing { .. }
            | Self::FileDenied { .. }
            | Self::NotAFile { .. }
            | Self::Denied { .. }
            | Self::ListingDenied { .. }
            | Self::UrlDenied { .. }
            | Self::Redirected { .. } => None,
        }
    }
}
