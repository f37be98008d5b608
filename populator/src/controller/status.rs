//! What is seen of VolumeBackups and BackupStores, in their status.

use crds::{BackupStore, BackupStoreStatus, READY, VolumeBackup, VolumeBackupStatus};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::api;
use super::conditions::{self, Verdict};
use super::context::{Context, Key};
use super::memory::Remembered;
use super::refusal::{Again, Refusal, Trouble};
use super::resolution::{self, Pinned, PointInTime};
use crate::failpoint;
use crate::store::Credentials;

const POINT_IN_TIME: &str = "PointInTime";

/// Looks at the archive of a VolumeBackup, and again later where that may help.
pub async fn look_at_backup(context: &Context, namespace: &str, name: &str) {
    let memory = format!("backup/{namespace}/{name}");
    if context.stores.backup(namespace, name).is_none() {
        context.memory.forget(&memory);
        return;
    }
    match resolution::resolve(context, namespace, name).await {
        Err(Trouble::Refused(refusal)) if refusal.again() == Again::OnChange => {
            context.memory.forget(&memory);
        }
        Err(_) => {
            let key = Key::Backup {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let pause = context.memory.update(&memory, Remembered::next_look);
            context.queue.add_after(key, pause);
        }
        Ok(_) => context.memory.forget(&memory),
    }
}

/// Looks whether a BackupStore's Secret has the keys, and again later where it has not.
pub async fn look_at_store(context: &Context, namespace: &str, name: &str) {
    let memory = format!("store/{namespace}/{name}");
    let Some(store) = context
        .stores
        .stores_of(namespace)
        .into_iter()
        .find(|store| store.name_any() == name)
    else {
        context.memory.forget(&memory);
        return;
    };
    match resolution::credentials(context, &store).await {
        Ok(credentials) => {
            context.memory.forget(&memory);
            write_store(context, &store, &untried(&credentials)).await;
        }
        Err(refusal) => {
            let key = Key::Store {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let pause = context.memory.update(&memory, Remembered::next_look);
            context.queue.add_after(key, pause);
            tell_store(context, &store, Some(&refusal)).await;
        }
    }
}

/// Writes what a use of the store showed, as far as it says anything of the store.
pub async fn tell_store(context: &Context, store: &BackupStore, outcome: Option<&Refusal>) {
    if let Some(verdict) = store_verdict(outcome) {
        write_store(context, store, &verdict).await;
    }
}

/// Writes what was seen of the archive.
pub async fn tell_backup(
    context: &Context,
    backup: &VolumeBackup,
    outcome: &Result<Pinned, Refusal>,
) {
    let before = VolumeBackupStatus {
        // Others write that.
        cached: Vec::new(),
        ..backup.status.clone().unwrap_or_default()
    };
    let status = backup_status(
        &before,
        outcome.as_ref(),
        backup.metadata.generation,
        Timestamp::now(),
    );
    let (Some(namespace), Some(uid)) = (backup.namespace(), backup.uid()) else {
        return;
    };
    if status == before {
        return;
    }
    let name = backup.name_any();
    failpoint::reached("controller.write-backup-status.before");
    let written = context
        .apply_status::<VolumeBackup, _>(&namespace, &name, &uid, &status)
        .await;
    failpoint::reached("controller.write-backup-status.after");
    if let Err(error) = written {
        tracing::warn!(
            namespace,
            name,
            error = api::short(&error),
            "the status of a VolumeBackup could not be written"
        );
    }
}

async fn write_store(context: &Context, store: &BackupStore, verdict: &Verdict) {
    let before = store.status.clone().unwrap_or_default();
    let generation = store.metadata.generation;
    let mut status = BackupStoreStatus {
        observed_generation: generation,
        conditions: before.conditions.clone(),
    };
    conditions::set(
        &mut status.conditions,
        READY,
        verdict,
        generation,
        Timestamp::now(),
    );
    let (Some(namespace), Some(uid)) = (store.namespace(), store.uid()) else {
        return;
    };
    if status == before {
        return;
    }
    let name = store.name_any();
    failpoint::reached("controller.write-store-status.before");
    let written = context
        .apply_status::<BackupStore, _>(&namespace, &name, &uid, &status)
        .await;
    failpoint::reached("controller.write-store-status.after");
    if let Err(error) = written {
        tracing::warn!(
            namespace,
            name,
            error = api::short(&error),
            "the status of a BackupStore could not be written"
        );
    }
}

fn untried(credentials: &Credentials) -> Verdict {
    let (reason, message) = match credentials {
        Credentials::Amazon { .. } | Credentials::Google(_) | Credentials::Azure(_) => (
            "KeysFound",
            "the Secret has the keys; they have not been used yet",
        ),
        Credentials::Ambient => (
            "Ambient",
            "the controller's own credentials are for this namespace; they have not been used yet",
        ),
        Credentials::Unneeded => ("NothingNeeded", "it is read without credentials"),
    };
    Verdict {
        status: "True",
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn store_verdict(outcome: Option<&Refusal>) -> Option<Verdict> {
    let accepted = Verdict {
        status: "True",
        reason: "Accepted".to_owned(),
        message: "the server accepted the credentials when they were last used".to_owned(),
    };
    let at_fault = |refusal: &Refusal| Verdict {
        status: "False",
        reason: refusal.reason().to_owned(),
        message: refusal.to_string(),
    };
    match outcome {
        None
        | Some(Refusal::TooNew { .. } | Refusal::DeletedThen { .. } | Refusal::NoArchive { .. }) => {
            Some(accepted)
        }
        Some(Refusal::Store(error)) => match error.store_accepted() {
            Some(true) => Some(accepted),
            Some(false) => outcome.map(at_fault),
            None => None,
        },
        Some(
            refusal @ (Refusal::SecretNotFound { .. }
            | Refusal::SecretIncomplete { .. }
            | Refusal::SecretUnreadable { .. }
            | Refusal::AmbientDenied { .. }
            | Refusal::AmbientElsewhere { .. }),
        ) => Some(at_fault(refusal)),
        Some(_) => None,
    }
}

fn backup_status(
    before: &VolumeBackupStatus,
    outcome: Result<&Pinned, &Refusal>,
    generation: Option<i64>,
    now: Timestamp,
) -> VolumeBackupStatus {
    let mut status = VolumeBackupStatus {
        observed_generation: generation,
        ..before.clone()
    };
    let (ready, point) = match outcome {
        Ok(pinned) => {
            status.resolved = Some(pinned.archive.clone());
            (found(pinned), point_in_time(pinned))
        }
        Err(refusal) => {
            let verdict = |status| Verdict {
                status,
                reason: refusal.reason().to_owned(),
                message: refusal.to_string(),
            };
            let point = match refusal {
                Refusal::TooNew { .. } | Refusal::DeletedThen { .. } => verdict("False"),
                _ => verdict("Unknown"),
            };
            (verdict("False"), point)
        }
    };
    conditions::set(&mut status.conditions, READY, &ready, generation, now);
    conditions::set(
        &mut status.conditions,
        POINT_IN_TIME,
        &point,
        generation,
        now,
    );
    status
}

fn found(pinned: &Pinned) -> Verdict {
    Verdict {
        status: "True",
        reason: "ArchiveFound".to_owned(),
        message: match &*pinned.store {
            "" => format!("the archive of {} was found", pinned.archive.human_size),
            store => format!(
                "the archive of {} was found through BackupStore {store}",
                pinned.archive.human_size
            ),
        },
    }
}

fn point_in_time(pinned: &Pinned) -> Verdict {
    let url = &pinned.archive.url;
    let proven = |reason: &str, message| Verdict {
        status: "True",
        reason: reason.to_owned(),
        message,
    };
    match pinned.point_in_time {
        PointInTime::Version => proven(
            "VersionPinned",
            "the version found was written no later than restorePoint".to_owned(),
        ),
        PointInTime::Name => proven(
            "NewestByName",
            format!("{url} is the newest archive by restorePoint, by the time in its name"),
        ),
        PointInTime::Written => proven(
            "NewestWritten",
            format!("{url} is the newest archive by restorePoint, by when it was written"),
        ),
        PointInTime::Unknown => Verdict {
            status: "Unknown",
            reason: "NotVersioned".to_owned(),
            message: match &pinned.archive.last_modified {
                Some(written) => format!(
                    "no versions are known of it: the object is used as it stands, last written at {}",
                    written.0
                ),
                None => "no versions are known of it: the object is used as it stands".to_owned(),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::decision::tests::pinned;
    use crate::store::StoreError;

    fn condition<'a>(status: &'a VolumeBackupStatus, kind: &str) -> (&'a str, &'a str) {
        let condition = conditions::get(&status.conditions, kind).unwrap();
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_backup_is_ready_when_found_and_keeps_what_was_last_seen() {
        let now = Timestamp::UNIX_EPOCH;
        let status = backup_status(&VolumeBackupStatus::default(), Ok(&pinned()), Some(2), now);
        assert_eq!(condition(&status, READY), ("True", "ArchiveFound"));
        assert_eq!(
            condition(&status, POINT_IN_TIME),
            ("Unknown", "NotVersioned")
        );
        assert_eq!(status.observed_generation, Some(2));
        let again = backup_status(&status, Ok(&pinned()), Some(2), now);
        assert_eq!(again, status, "nothing to write");

        let missing = Refusal::Store(StoreError::NoObject {
            url: "s3://b/k".to_owned(),
            server: "s".to_owned(),
        });
        let gone = backup_status(&status, Err(&missing), Some(2), now);
        assert_eq!(condition(&gone, READY), ("False", "ObjectNotFound"));
        assert_eq!(gone.resolved, status.resolved);
    }

    #[test]
    fn a_missing_object_is_no_fault_of_the_store() {
        let verdict = |error: StoreError| {
            store_verdict(Some(&Refusal::Store(error))).map(|verdict| verdict.status)
        };
        let url = || "s3://b/k".to_owned();
        let server = || "s".to_owned();
        let code = || "403".to_owned();
        assert_eq!(
            verdict(StoreError::NoObject {
                url: url(),
                server: server()
            }),
            Some("True")
        );
        let credentials = StoreError::Credentials {
            server: server(),
            code: code(),
        };
        assert_eq!(verdict(credentials), Some("False"));
        assert_eq!(
            verdict(StoreError::Denied {
                url: url(),
                code: code(),
                permission: "s3:GetObject"
            }),
            None
        );
        assert_eq!(
            store_verdict(None).map(|verdict| verdict.status),
            Some("True")
        );
        assert_eq!(store_verdict(Some(&Refusal::Selector)), None);
    }
}
