//! Named places where a test may have the process abort, as a crash at the worst moment would.
//!
//! Only with the feature `failpoints`, which no released image has: there, a file
//! `$FAILPOINT_DIR/NAME.abort` makes the process rename it to `NAME.hit` and abort when it reaches
//! the place NAME. A crash happens once for each file, and a test sees by `NAME.hit` that the place
//! was really reached.

/// The steps, in the order in which a volume's life comes to them. Each has a place `.before` its
/// effect and one `.after`.
pub const STEPS: [&str; 30] = [
    "create.image",
    "create.record",
    "attach.record",
    "stage.attach",
    "stage.format",
    "stage.record",
    "stage.grow",
    "grow.settle",
    "stage.mount",
    "publish.bind",
    "fit.device",
    "expand.image",
    "expand.record",
    "copy.freeze",
    "copy.clone",
    "copy.thaw",
    "snapshot.record",
    "unpublish.unmount",
    "unpublish.remove",
    "unstage.unmount",
    "unstage.detach",
    "detach.record",
    "snapshot.forget",
    "snapshot.clear",
    "group.members",
    "group.record",
    "group.forget",
    "group.clear",
    "delete.record",
    "delete.image",
];

/// Does a step, with a place before and one after its effect.
pub fn around<T, E>(step: &'static str, effect: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    reached(step, "before");
    let done = effect()?;
    reached(step, "after");
    Ok(done)
}

#[cfg(feature = "failpoints")]
fn reached(step: &str, place: &str) {
    let Some(folder) = std::env::var_os("FAILPOINT_DIR").map(std::path::PathBuf::from) else {
        return;
    };
    let name = format!("{step}.{place}");
    let armed = folder.join(format!("{name}.abort"));
    if std::fs::rename(armed, folder.join(format!("{name}.hit"))).is_ok() {
        tracing::warn!(name, "aborting at a fail point, as a test asked");
        std::process::abort();
    }
}

/// Nothing happens in this build.
#[cfg(not(feature = "failpoints"))]
fn reached(_: &str, _: &str) {}
