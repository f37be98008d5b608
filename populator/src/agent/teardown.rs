//! The way back: unmount, delete, forget. Every step may be taken again, and is, after a crash.

use crds::restore_order::MadeVolume;

use super::attempt::text;
use super::failure::{AttemptError, made_nothing};
use super::node::Node;
use super::plugin::Plugin;
use super::record::{Made, Record};
use super::volume;
use crate::failpoint;

/// Unmounts the volume of `record`, if it may be mounted, and removes the folders of the mounts.
pub async fn release(node: &Node, record: &mut Record) -> Result<(), AttemptError> {
    if !record.mounted {
        return Ok(());
    }
    if let Some(made) = record.made.volume() {
        let handle = &made.handle;
        let plugin = node.plugin(&record.volume.driver);
        failpoint::reached("agent.unpublish.before");
        plugin
            .unpublish(handle, text(&node.records.target(&record.uid))?)
            .await?;
        failpoint::reached("agent.unpublish.after");
        if plugin.stages().await? {
            failpoint::reached("agent.unstage.before");
            plugin
                .unstage(handle, text(&node.records.stage(&record.uid))?)
                .await?;
            failpoint::reached("agent.unstage.after");
        }
    }
    // Fails while anything is still mounted there, whatever the driver said.
    node.records.remove_mounts(&record.uid)?;
    record.mounted = false;
    node.records.save(record)?;
    Ok(())
}

/// Deletes the volume of `record`, and `reported` where the record does not know it. It is the
/// caller who knows that nobody else has it, and that it is unmounted.
pub async fn delete(
    node: &Node,
    record: &mut Record,
    reported: Option<&MadeVolume>,
) -> Result<(), AttemptError> {
    let plugin = node.plugin(&record.volume.driver);
    let handle = match (&record.made, reported) {
        (Made::Yes(made), _) | (Made::No | Made::Perhaps, Some(made)) => Some(made.handle.clone()),
        (Made::Perhaps, None) => learn(&plugin, record).await?,
        // Whoever had it made has it deleted.
        (Made::Given(_), _) | (Made::No, None) => None,
    };
    if let Some(handle) = handle {
        failpoint::reached("agent.delete.before");
        plugin.delete(&handle).await?;
        failpoint::reached("agent.delete.after");
        node.room_changed.notify_one();
    }
    // What is known of the volume is about one that is gone.
    node.records.remove_state(&record.uid)?;
    if !matches!(record.made, Made::Given(_)) {
        record.made = Made::No;
    }
    record.filled = None;
    node.records.save(record)?;
    Ok(())
}

/// The handle of a volume that CreateVolume may have made without our hearing of it: the same call
/// finds it, or makes it now, so that it can be deleted.
async fn learn(plugin: &Plugin, record: &Record) -> Result<Option<String>, AttemptError> {
    let abilities = plugin.abilities().await?;
    let request = volume::creation(&record.volume, &abilities, record.source.as_deref());
    match plugin.create(request).await {
        Ok(Some(volume)) if !volume.volume_id.is_empty() => Ok(Some(volume.volume_id)),
        Ok(_) => Err(AttemptError::Unfit {
            driver: plugin.name().to_owned(),
            unfit: volume::Unfit::Nameless,
        }),
        Err(error) if made_nothing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the record, once nothing is left that it stands for or that is ours.
pub fn forget(node: &Node, record: &mut Option<Record>) -> Result<(), AttemptError> {
    if let Some(known) = record {
        failpoint::reached("agent.forget.before");
        node.records.remove(&known.uid)?;
        failpoint::reached("agent.forget.after");
        *record = None;
    }
    Ok(())
}
