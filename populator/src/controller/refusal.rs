//! Why a restore cannot begin yet, in words that say what to do.

use jiff::Timestamp;

use super::node_secrets::NodeSecretError;
use crate::store::StoreError;
use crate::units;

/// Why a restore cannot begin yet. Each is looked at again when what it names changes, so that the
/// restore goes on by itself.
#[derive(thiserror::Error, strum::EnumDiscriminants, Debug, Clone, PartialEq, Eq)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum Refusal {
    /// `dataSourceRef.namespace` is another one, and that is not enabled.
    #[error(
        "dataSourceRef names a VolumeBackup of namespace {namespace}, and the populator is not allowed to read those of other namespaces; make the PVC again with a VolumeBackup of its own namespace, or have the administrator start the controller with --cross-namespace"
    )]
    CrossNamespaceOff {
        /// The VolumeBackup's namespace.
        namespace: String,
    },
    /// Nobody could ever allow it.
    #[error(
        "dataSourceRef names a VolumeBackup of namespace {namespace}, and the cluster has no ReferenceGrants by which that could be allowed; have the administrator install the CRD referencegrants.gateway.networking.k8s.io (v1beta1), or make the PVC again with a VolumeBackup of its own namespace"
    )]
    NoGrants {
        /// The VolumeBackup's namespace.
        namespace: String,
    },
    /// Nobody has allowed it.
    #[error(
        "no ReferenceGrant in namespace {namespace} allows the PVCs of namespace {from} to name the VolumeBackup {backup}; have who owns namespace {namespace} create one, from PersistentVolumeClaim of namespace {from} to VolumeBackup of group backup.example.com, the restore then goes on by itself"
    )]
    NotGranted {
        /// The VolumeBackup.
        backup: String,
        /// Its namespace.
        namespace: String,
        /// The PVC's.
        from: String,
    },
    /// A file in a volume that has none.
    #[error(
        "the PVC has volumeMode Block, and imageFile of the VolumeBackup {backup} is a file in a volume of volumeMode Filesystem; take it out, the restore then goes on by itself, or make the PVC again with volumeMode Filesystem"
    )]
    FileOnDevice {
        /// The VolumeBackup.
        backup: String,
    },
    /// What is chosen of files, for a device.
    #[error(
        "the PVC has volumeMode Block, and {field} of the VolumeBackup {backup} is about files, which the image of a disk does not have; take it out, the restore then goes on by itself, or make the PVC again with volumeMode Filesystem for an archive of files"
    )]
    AboutFiles {
        /// The VolumeBackup.
        backup: String,
        /// What it has.
        field: &'static str,
    },
    /// `selector` is set.
    #[error(
        "the PVC has a selector, which chooses among volumes that exist, and a restore makes a new one; make it again without selector"
    )]
    Selector,
    /// `volumeAttributesClassName` is set.
    #[error(
        "the PVC names a VolumeAttributesClass, which is not supported for restores; make it again without volumeAttributesClassName"
    )]
    AttributesClass,
    /// The annotation is no number.
    #[error(
        "the PVC's annotation backup.example.com/priority is {value:?}, which is no whole number; write one, or take it out"
    )]
    Priority {
        /// What it is.
        value: String,
    },
    /// No usable size.
    #[error(
        "the PVC asks for no size that could be made; make it again with resources.requests.storage above 0"
    )]
    Size,
    /// No class.
    #[error(
        "the PVC has no StorageClass; make it again with storageClassName, or set a default StorageClass"
    )]
    NoClass,
    /// The class is missing.
    #[error(
        "the StorageClass {class} does not exist; create it, the restore then goes on by itself"
    )]
    ClassNotFound {
        /// Its name.
        class: String,
    },
    /// The class's provisioner is none of CSI.
    #[error(
        "the StorageClass {class} has the provisioner {provisioner}, which is no CSI driver; use a StorageClass of a CSI driver"
    )]
    NotCsi {
        /// The class.
        class: String,
        /// Its provisioner.
        provisioner: String,
    },
    /// The driver wants what only kubelet can give.
    #[error(
        "the CSI driver {driver} wants {wish}, which only kubelet can do for it; use a StorageClass of another driver"
    )]
    DriverWishes {
        /// The driver.
        driver: String,
        /// What it wants.
        wish: &'static str,
    },
    /// The class names Secrets after PVCs.
    #[error(
        "the StorageClass {class} names a Secret after the PVC ({parameter}), and its volumes are made for a PVC of the populator's first; use a StorageClass that names the Secret itself"
    )]
    ClassTemplates {
        /// The class.
        class: String,
        /// The parameter.
        parameter: String,
    },
    /// The class wants Secrets handed to the driver.
    #[error(
        "the StorageClass {class} hands Secrets to its CSI driver ({parameter}), which is not supported for restores; use a StorageClass without them"
    )]
    ClassSecrets {
        /// The class.
        class: String,
        /// The parameter.
        parameter: String,
    },
    /// The class has allowed topologies and wants no scheduler.
    #[error(
        "the StorageClass {class} has allowedTopologies and binds Immediate, which is not supported for restores; use volumeBindingMode WaitForFirstConsumer"
    )]
    ClassTopologies {
        /// The class.
        class: String,
    },
    /// The VolumeBackup is missing.
    #[error(
        "the VolumeBackup {backup} does not exist in namespace {namespace}; create it, the restore then goes on by itself"
    )]
    BackupNotFound {
        /// Its name.
        backup: String,
        /// Its namespace.
        namespace: String,
    },
    /// What it says of the restore makes no sense.
    #[error(
        "the VolumeBackup {backup} cannot be used: {why}; correct it, the restore then goes on by itself"
    )]
    BackupInvalid {
        /// Its name.
        backup: String,
        /// What is wrong with it.
        why: String,
    },
    /// No store serves the URL.
    #[error(
        "no BackupStore in namespace {namespace} serves {url}; create one whose url is a prefix of it, the restore then goes on by itself"
    )]
    StoreNotMatched {
        /// The URL.
        url: String,
        /// The namespace.
        namespace: String,
    },
    /// The store named is missing.
    #[error(
        "the BackupStore {store} does not exist in namespace {namespace}; create it or correct storeRef of the VolumeBackup"
    )]
    StoreNotFound {
        /// Its name.
        store: String,
        /// The namespace.
        namespace: String,
    },
    /// The store named does not serve the URL.
    #[error(
        "the BackupStore {store} serves {prefix}, which is no prefix of {url}; correct storeRef or backupURL of the VolumeBackup, or url of the BackupStore"
    )]
    StoreElsewhere {
        /// Its name.
        store: String,
        /// Its URL.
        prefix: String,
        /// The archive's URL.
        url: String,
    },
    /// The Secret is missing.
    #[error(
        "the Secret {secret} of the BackupStore {store} does not exist in namespace {namespace}; create it with the keys {keys}"
    )]
    SecretNotFound {
        /// Its name.
        secret: String,
        /// The BackupStore.
        store: String,
        /// The namespace.
        namespace: String,
        /// What it must have.
        keys: &'static str,
    },
    /// No Secret is named, and nothing is lent.
    #[error(
        "the BackupStore {store} names no Secret, and the controller's own credentials are not for the namespace {namespace}; name one by credentialsSecretRef, or have the administrator list the namespace by --ambient-namespace of the populator's controller"
    )]
    AmbientDenied {
        /// The BackupStore.
        store: String,
        /// The namespace.
        namespace: String,
    },
    /// What is lent would go elsewhere.
    #[error(
        "the BackupStore {store} names no Secret, and the controller's own credentials go to the cloud's own servers only; take endpoint and caBundle out of it, or name a Secret by credentialsSecretRef"
    )]
    AmbientElsewhere {
        /// The BackupStore.
        store: String,
    },
    /// A key is missing.
    #[error("the Secret {secret} of the BackupStore {store} has no usable key {key}; add it")]
    SecretIncomplete {
        /// The Secret.
        secret: String,
        /// The BackupStore.
        store: String,
        /// The key.
        key: &'static str,
    },
    /// The API server does not hand the Secret out.
    #[error(
        "the populator may not read the Secret {secret} of the BackupStore {store} ({why}); have the administrator give its ServiceAccount get on Secrets"
    )]
    SecretUnreadable {
        /// The Secret.
        secret: String,
        /// The BackupStore.
        store: String,
        /// What the API server said.
        why: String,
    },
    /// What the driver wants on the node cannot be handed to it.
    #[error(transparent)]
    NodeSecret(#[from] NodeSecretError),
    /// The node's agent cannot do what is asked for.
    #[error(
        "the populator's agent on the node {node} is older than the controller, and cannot {what}; have the administrator update the agents"
    )]
    AgentOutdated {
        /// The node.
        node: String,
        /// What it is to do.
        what: &'static str,
    },
    /// The object cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Only something newer than was asked for is there.
    #[error(
        "{what} is of {time}, after restorePoint {restore_point}; name an older archive, or set restorePoint to {time} or later if this one is wanted"
    )]
    TooNew {
        /// The oldest that there is.
        what: String,
        /// When it was written, or the time in its name.
        time: Timestamp,
        /// What was asked for.
        restore_point: Timestamp,
    },
    /// There was nothing at that time.
    #[error(
        "{url} did not exist at restorePoint {restore_point}, since it was deleted at {deleted}; set restorePoint to a time before that, or to one at which it existed again"
    )]
    DeletedThen {
        /// The object.
        url: String,
        /// When.
        deleted: Timestamp,
        /// What was asked for.
        restore_point: Timestamp,
    },
    /// There is nothing that could be restored.
    #[error(
        "no archive lies under {url} ({others} objects there are empty or have names that do not end as those of archives do, as .tar, .tar.gz, .tar.zst or .img); upload one, the restore then goes on by itself, or correct backupURL"
    )]
    NoArchive {
        /// The prefix.
        url: String,
        /// What else lies there.
        others: u64,
    },
    /// Others are looking through listings.
    #[error(
        "what lies under {url} is looked through when other listings of this namespace are done; it is tried again"
    )]
    ListingBusy {
        /// What is to be listed.
        url: String,
    },
    /// It cannot fit.
    #[error("the archive alone has {}, more than the {} that the PVC asks for; make the PVC again with more", units::bytes(*size), units::bytes(*required))]
    DoesNotFit {
        /// Bytes of the archive as stored.
        size: u64,
        /// Bytes that the PVC asks for.
        required: u64,
    },
    /// The node's agent does not serve the driver.
    #[error(
        "on node {node} no populator agent is alive that serves the CSI driver {driver}; see that the pods of the populator's agent and of the driver run there, the restore then goes on by itself"
    )]
    NoAgentOnNode {
        /// The node.
        node: String,
        /// The driver.
        driver: String,
    },
    /// No node's agent serves the driver.
    #[error(
        "on no node a populator agent is alive that serves the CSI driver {driver}; see that the pods of the populator's agent and of the driver run, the restore then goes on by itself"
    )]
    NoAgent {
        /// The driver.
        driver: String,
    },
    /// No node has room.
    #[error("no node has {} free for the CSI driver {driver}; delete volumes or add space, the restore then goes on by itself", units::bytes(*required))]
    NoRoom {
        /// The driver.
        driver: String,
        /// Bytes that the PVC asks for.
        required: u64,
    },
}

/// Why something did not come about.
#[derive(thiserror::Error, Debug)]
pub enum Trouble {
    /// The API server did not do it.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A person, or time, must cure it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// When a refusal is worth another look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When one of the watched objects changes.
    OnChange,
    /// After a while too, since what it names is not watched.
    Later,
}

impl Refusal {
    /// One word in CamelCase, for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CrossNamespaceOff { .. } => "CrossNamespaceDisabled",
            Self::NoGrants { .. } => "ReferenceGrantsMissing",
            // As the Gateway API calls it.
            Self::NotGranted { .. } => "RefNotPermitted",
            Self::Selector => "SelectorUnsupported",
            Self::AttributesClass => "VolumeAttributesClassUnsupported",
            Self::Priority { .. } => "PriorityInvalid",
            Self::Size => "SizeInvalid",
            Self::NoClass => "StorageClassMissing",
            Self::ClassNotFound { .. } => "StorageClassNotFound",
            Self::NotCsi { .. } | Self::DriverWishes { .. } => "DriverUnsupported",
            Self::ClassSecrets { .. }
            | Self::ClassTemplates { .. }
            | Self::ClassTopologies { .. } => "StorageClassUnsupported",
            Self::BackupNotFound { .. } => "VolumeBackupNotFound",
            Self::BackupInvalid { .. } | Self::AboutFiles { .. } | Self::FileOnDevice { .. } => {
                "VolumeBackupInvalid"
            }
            Self::StoreNotMatched { .. } | Self::StoreNotFound { .. } => "BackupStoreNotFound",
            Self::StoreElsewhere { .. } => "BackupStoreMismatch",
            Self::SecretNotFound { .. } => "SecretNotFound",
            Self::SecretIncomplete { .. } => "SecretIncomplete",
            Self::NodeSecret(error) => error.reason(),
            Self::AgentOutdated { .. } => "AgentOutdated",
            Self::AmbientDenied { .. } | Self::AmbientElsewhere { .. } => {
                "AmbientCredentialsDenied"
            }
            Self::SecretUnreadable { .. } => "SecretUnreadable",
            Self::Store(error) => error.reason(),
            Self::TooNew { .. } => "NewerThanRestorePoint",
            Self::DeletedThen { .. } => "DeletedAtRestorePoint",
            Self::NoArchive { .. } => "NoArchive",
            Self::ListingBusy { .. } => "StoreBusy",
            Self::DoesNotFit { .. } => "DoesNotFit",
            Self::NoAgentOnNode { .. } | Self::NoAgent { .. } => "NoAgent",
            Self::NoRoom { .. } => "NoRoom",
        }
    }

    /// When it is worth another look.
    pub fn again(&self) -> Again {
        match self {
            Self::CrossNamespaceOff { .. }
            | Self::Selector
            | Self::AttributesClass
            | Self::Size
            | Self::Priority { .. }
            | Self::NoClass
            | Self::NotCsi { .. }
            | Self::ClassSecrets { .. }
            | Self::ClassTemplates { .. }
            | Self::ClassTopologies { .. }
            | Self::BackupInvalid { .. }
            | Self::AboutFiles { .. }
            | Self::FileOnDevice { .. }
            | Self::AmbientDenied { .. }
            | Self::AmbientElsewhere { .. }
            | Self::StoreElsewhere { .. } => Again::OnChange,
            // Of these, classes, grants, backups and stores are watched, and no order of changes loses
            // one (watches/routes.rs). They are looked at again all the same: a watch whose connection
            // has died unnoticed shows nothing for minutes, and what is missing in it is asked for each
            // time.
            Self::NoGrants { .. }
            | Self::NotGranted { .. }
            | Self::ClassNotFound { .. }
            | Self::DriverWishes { .. }
            | Self::BackupNotFound { .. }
            | Self::StoreNotMatched { .. }
            | Self::StoreNotFound { .. }
            | Self::SecretNotFound { .. }
            | Self::SecretIncomplete { .. }
            | Self::SecretUnreadable { .. }
            | Self::NodeSecret(_)
            | Self::AgentOutdated { .. }
            | Self::Store(_)
            | Self::TooNew { .. }
            | Self::DeletedThen { .. }
            | Self::NoArchive { .. }
            | Self::ListingBusy { .. }
            | Self::DoesNotFit { .. }
            | Self::NoAgentOnNode { .. }
            | Self::NoAgent { .. }
            | Self::NoRoom { .. } => Again::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_to_do() {
        let refusals = [
            Refusal::AboutFiles {
                backup: "b".into(),
                field: "include",
            },
            Refusal::NoClass,
            Refusal::CrossNamespaceOff {
                namespace: "n".into(),
            },
            Refusal::NoGrants {
                namespace: "n".into(),
            },
            Refusal::NotGranted {
                backup: "b".into(),
                namespace: "n".into(),
                from: "m".into(),
            },
            Refusal::BackupInvalid {
                backup: "b".into(),
                why: "the pattern \"[\" is not a glob".into(),
            },
            Refusal::NotCsi {
                class: "c".into(),
                provisioner: "kubernetes.io/no-provisioner".into(),
            },
            Refusal::ClassTemplates {
                class: "c".into(),
                parameter: "p".into(),
            },
            Refusal::DoesNotFit {
                size: 3 << 30,
                required: 1 << 30,
            },
            Refusal::TooNew {
                what: "s3://b/k".into(),
                time: "2025-02-01T00:00:00Z".parse().unwrap(),
                restore_point: "2025-01-01T00:00:00Z".parse().unwrap(),
            },
        ];
        for refusal in refusals {
            let message = refusal.to_string();
            assert!(
                message.contains("; ") && !message.ends_with('.'),
                "{message}"
            );
        }
        let message = Refusal::DoesNotFit {
            size: 3 << 30,
            required: 1 << 30,
        }
        .to_string();
        assert!(message.contains("3 GiB") && message.contains("1 GiB"));
    }
}
