//! Named places where a test may have the process abort, as a crash at the worst moment would.
//!
//! Only with the feature `failpoints`, which no released image has: there, a file
//! `$FAILPOINT_DIR/NAME.abort` makes the process rename it to `NAME.hit` and abort when it reaches
//! the place NAME. A crash happens once for each file, and a test sees by `NAME.hit` that the place
//! was really reached.
//!
//! A file `NAME.NAMESPACE.CLAIM.hold` makes what is done for that PVC stop at the place until the file
//! is taken away; meanwhile `NAME.NAMESPACE.CLAIM.held` is there. All others go on.

/// Every name, so that a test can prove that it has reached them all.
pub const ALL: &[&str] = &[
    "agent.adopt.before",
    "agent.adopt.after",
    "agent.announce.before",
    "agent.announce.after",
    "agent.complete.before",
    "agent.complete.after",
    "agent.create.before",
    "agent.create.after",
    "agent.delete.before",
    "agent.delete.after",
    "agent.drop-snapshot.before",
    "agent.drop-snapshot.after",
    "agent.forget.before",
    "agent.forget.after",
    "agent.keep.before",
    "agent.keep.after",
    "agent.publish.before",
    "agent.publish.after",
    "agent.record.before",
    "agent.record.after",
    "agent.report.before",
    "agent.report.after",
    "agent.stage.before",
    "agent.stage.after",
    "agent.unpublish.before",
    "agent.unpublish.after",
    "agent.unstage.before",
    "agent.unstage.after",
    "agent.write.before",
    "agent.write.after",
    "controller.adopt.before",
    "controller.adopt.after",
    "controller.attach.before",
    "controller.attach.after",
    "controller.clear-node.before",
    "controller.clear-node.after",
    "controller.create-order.before",
    "controller.create-order.after",
    "controller.create-prime.before",
    "controller.create-prime.after",
    "controller.create-restore.before",
    "controller.create-restore.after",
    "controller.create-volume.before",
    "controller.create-volume.after",
    "controller.delete-order.before",
    "controller.delete-order.after",
    "controller.detach.before",
    "controller.detach.after",
    "controller.discard.before",
    "controller.discard.after",
    "controller.drop-prime.before",
    "controller.drop-prime.after",
    "controller.event.before",
    "controller.event.after",
    "controller.milestone.before",
    "controller.milestone.after",
    "controller.pause.before",
    "controller.pause.after",
    "controller.rebind.before",
    "controller.rebind.after",
    "controller.reclaim-prime.before",
    "controller.reclaim-prime.after",
    "controller.record-publishing.before",
    "controller.record-publishing.after",
    "controller.register.before",
    "controller.register.after",
    "controller.release-order.before",
    "controller.release-order.after",
    "controller.renew-access.before",
    "controller.renew-access.after",
    "controller.replace-restore.before",
    "controller.replace-restore.after",
    "controller.reprovide.before",
    "controller.reprovide.after",
    "controller.retry.before",
    "controller.retry.after",
    "controller.steer.before",
    "controller.steer.after",
    "controller.write-backup-status.before",
    "controller.write-backup-status.after",
    "controller.write-cached.before",
    "controller.write-cached.after",
    "controller.write-restore-status.before",
    "controller.write-restore-status.after",
    "controller.write-store-status.before",
    "controller.write-store-status.after",
];

/// The program has come to the place of this name.
#[cfg(feature = "failpoints")]
pub fn reached(name: &'static str) {
    let Some(folder) = std::env::var_os("FAILPOINT_DIR") else {
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let armed = folder.join(format!("{name}.abort"));
    if std::fs::rename(armed, folder.join(format!("{name}.hit"))).is_ok() {
        tracing::warn!(name, "aborting at a fail point, as a test asked");
        std::process::abort();
    }
    if let Ok(place) = CLAIM.try_with(|claim| folder.join(format!("{name}.{claim}"))) {
        hold(&place);
    }
}

/// Stops as long as there is a file that says so.
#[cfg(feature = "failpoints")]
fn hold(place: &std::path::Path) {
    let file = |kind: &str| std::path::PathBuf::from(format!("{}.{kind}", place.display()));
    let (hold, held) = (file("hold"), file("held"));
    if !hold.exists() {
        return;
    }
    // The other tasks of this thread go on, on another one.
    tokio::task::block_in_place(|| {
        tracing::warn!(place = %place.display(), "held at a fail point, as a test asked");
        drop(std::fs::write(&held, ""));
        while hold.exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        drop(std::fs::remove_file(&held));
    });
}

#[cfg(feature = "failpoints")]
tokio::task_local! {
    /// Namespace and name of the PVC that the task works for.
    static CLAIM: String;
}

/// `work`, which is done for one PVC, so that it can be held alone.
#[cfg(feature = "failpoints")]
pub fn working_for<F: Future>(
    namespace: &str,
    claim: &str,
    work: F,
) -> impl Future<Output = F::Output> {
    CLAIM.scope(format!("{namespace}.{claim}"), work)
}

/// `work`, as it is in this build.
#[cfg(not(feature = "failpoints"))]
pub fn working_for<F: Future>(_namespace: &str, _claim: &str, work: F) -> F {
    work
}

/// The program has come to the place of this name: nothing happens in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    fn calls(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                calls(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("failpoint.rs")
            {
                let source = std::fs::read_to_string(&path).unwrap();
                found.extend(
                    source
                        .split("failpoint::reached(")
                        .skip(1)
                        .map(|rest| rest.split('"').nth(1).unwrap().to_owned()),
                );
            }
        }
    }

    /// The list and the calls in the sources are the same, each name is called at one place, and
    /// each step has a place before and one after its effect.
    #[test]
    fn list_and_calls_agree() {
        let mut found = Vec::new();
        calls(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        let unique: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(unique.len(), found.len(), "a name stands at two places");
        let listed: BTreeSet<&str> = super::ALL.iter().copied().collect();
        assert_eq!(listed, unique, "left: listed, right: in the sources");
        for name in &unique {
            let (step, place) = name.rsplit_once('.').unwrap();
            let other = match place {
                "before" => "after",
                "after" => "before",
                place => panic!("{name}: {place} is neither before nor after"),
            };
            assert!(
                unique.contains(format!("{step}.{other}").as_str()),
                "{name} has no {other}"
            );
            assert!(name.starts_with("controller.") || name.starts_with("agent."));
        }
    }
}
