//! The API `backup.example.com/v1`: types, validation rules and the YAML generated from them.
//!
//! | module | object | who writes it |
//! |---|---|---|
//! | [`volume_backup`] | an archive that PVCs may name as their data source | users |
//! | [`backup_store`] | where archives lie, and with what credentials they are read | users |
//! | [`restore_options`] | what people choose about a restore, in the first and the last of these | users |
//! | [`cache`] | snapshots that nodes keep of restored volumes, in the same two | users; the controller tells |
//! | [`volume_restore`] | one PVC being filled, as a person sees it | the controller |
//! | [`restore_order`] | the work order for one agent, and its answer | controller and agent |
//! | [`yaml`] | all four as CustomResourceDefinitions, checked in as `crds/*.yaml` | `make crds` |
//!
//! Every status carries `observedGeneration` and standard conditions, so that
//! `kubectl wait --for=condition=Ready` works on each of them.

// kube-derive takes one `printcolumn` for each column.
#![allow(clippy::duplicated_attributes)]

pub mod backup_store;
pub mod cache;
pub mod restore_options;
pub mod restore_order;
pub mod volume_backup;
pub mod volume_restore;
pub mod yaml;

pub use backup_store::{BackupStore, BackupStoreSpec, BackupStoreStatus};
pub use restore_options::RestoreOptions;
pub use restore_order::{RestoreOrder, RestoreOrderSpec, RestoreOrderStatus};
pub use volume_backup::{VolumeBackup, VolumeBackupSpec, VolumeBackupStatus};
pub use volume_restore::{VolumeRestore, VolumeRestoreSpec, VolumeRestoreStatus};

/// The API group of all objects here.
pub const GROUP: &str = "backup.example.com";

/// The one version served and stored.
pub const VERSION: &str = "v1";

/// The condition by which every object here says that it is as it should be.
pub const READY: &str = "Ready";
