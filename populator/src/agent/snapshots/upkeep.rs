//! Making snapshots, and getting rid of them.

use std::sync::Arc;
use std::time::Duration;

use crds::cache::Content;
use csi::v1::Snapshot;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::SHARED;
use super::book::{Kept, State};
use crate::agent::failure::{AttemptError, made_nothing};
use crate::agent::node::Node;
use crate::agent::record::Filled;
use crate::agent::volume::Unfit;
use crate::failpoint;

/// How often is looked for what has expired.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps a snapshot of a volume that is complete and mounted nowhere. That it cannot be had harms nobody.
pub async fn keep(node: &Node, driver: &str, content: &Content, filled: &Filled) {
    match take(node, driver, content, filled).await {
        Ok(true) => tracing::info!(backup = content.backup, "a snapshot is kept of the volume"),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(backup = content.backup, %error, "no snapshot is kept of the volume");
        }
    }
}

/// False where the driver makes none.
async fn take(
    node: &Node,
    driver: &str,
    content: &Content,
    filled: &Filled,
) -> Result<bool, AttemptError> {
    let plugin = node.plugin(driver);
    if !plugin.abilities().await?.snapshots {
        return Ok(false);
    }
    let name = format!("restored-{}", uuid::Uuid::new_v4());
    let volume = filled.volume.handle.clone();
    let begun = Kept {
        content: content.key.clone(),
        backup: content.backup.clone(),
        cache: content.cache,
        ..Kept::begun(name, volume, driver.to_owned(), filled.result.clone())
    };
    node.snapshots.save(begun.clone())?;
    failpoint::reached("agent.keep.before");
    let answer = plugin.snapshot(&begun.name, &filled.volume.handle).await;
    failpoint::reached("agent.keep.after");
    node.room_changed.notify_one();
    let name = begun.name.clone();
    let kept = match answer {
        Ok(made) => made_of(node, filled, begun, made),
        Err(error) if made_nothing(&error) => {
            node.snapshots.forget(&name);
            return Err(error.into());
        }
        Err(error) => Err(error.into()),
    };
    // What is there perhaps is of no use, and takes room.
    kept.inspect_err(|_| node.snapshots.retire(&name))?;
    Ok(true)
}

/// Writes down what a driver has made.
fn made_of(
    node: &Node,
    filled: &Filled,
    begun: Kept,
    made: Option<Snapshot>,
) -> Result<(), AttemptError> {
    let made = made.filter(|it| !it.snapshot_id.is_empty());
    let made = made.ok_or_else(|| AttemptError::Unfit {
        driver: begun.driver.clone(),
        unfit: Unfit::Nameless,
    })?;
    let now = Timestamp::now();
    let lives = match begun.cache {
        Some(cache) => SignedDuration::from_secs(cache.time_to_live_seconds),
        None => SHARED,
    };
    node.snapshots.save(Kept {
        state: State::Made(made.snapshot_id),
        size_bytes: match made.size_bytes {
            // Its size is not known (CSI, CreateSnapshot): the volume's is enough.
            0 => filled.volume.capacity_bytes,
            bytes => bytes,
        },
        created: now,
        // One that cannot be used yet is of no use, and goes at once.
        expires: if made.ready_to_use { now + lives } else { now },
        ..begun
    })?;
    Ok(())
}

/// Deletes what has expired or is too much, until `stop`.
pub async fn maintain(node: Arc<Node>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        for kept in node.snapshots.surplus() {
            if let Err(error) = remove(&node, &kept).await {
                tracing::warn!(snapshot = kept.name, %error, "a snapshot could not be deleted; it is tried again");
            }
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

/// Deletes all that are kept by a driver, since a volume has no room beside them. Returns whether there were any.
pub async fn make_room(node: &Node, driver: &str) -> bool {
    let kept: Vec<Kept> = {
        let book = node.snapshots.book();
        let made = book.all().filter(|it| it.handle().is_some());
        made.filter(|it| it.driver == driver).cloned().collect()
    };
    let mut is_freed = false;
    for one in kept {
        match remove(node, &one).await {
            Ok(()) => is_freed = true,
            Err(error) => tracing::warn!(snapshot = one.name, %error, "it could not make room"),
        }
    }
    is_freed
}

async fn remove(node: &Node, kept: &Kept) -> Result<(), AttemptError> {
    let plugin = node.plugin(&kept.driver);
    let handle = match &kept.state {
        State::Made(handle) => Some(handle.clone()),
        // The same call finds it, or makes it now, so that it can be deleted.
        State::Perhaps(volume) => match plugin.snapshot(&kept.name, volume).await {
            Ok(made) => made.map(|it| it.snapshot_id),
            Err(error) if made_nothing(&error) => None,
            Err(error) => return Err(error.into()),
        },
    };
    if let Some(handle) = handle {
        failpoint::reached("agent.drop-snapshot.before");
        plugin.delete_snapshot(&handle).await?;
        failpoint::reached("agent.drop-snapshot.after");
        node.room_changed.notify_one();
    }
    node.snapshots.forget(&kept.name);
    Ok(())
}
