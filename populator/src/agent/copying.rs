//! The other way to a filled volume: made from a snapshot of one that holds the same.

use std::time::Instant;

use crds::volume_restore::RestoreResult;
use tonic::Code;

use super::attempt::Attempt;
use super::failure::{AttemptError, made_nothing};
use super::plugin::CallError;
use super::progress::signed;
use super::record::{Filled, Record};
use super::snapshots::Kept;
use super::volume;

impl Attempt<'_> {
    /// Makes the volume from a snapshot. None where that has turned out to be of no use: then the archive is
    /// read after all.
    pub(super) async fn copied(
        &self,
        kept: &mut Option<Record>,
        snapshot: &Kept,
    ) -> Result<Option<Filled>, AttemptError> {
        let Some(handle) = snapshot.handle() else {
            return Ok(None);
        };
        let begun = Instant::now();
        let spec = &self.order.spec.volume;
        let plugin = self.node.plugin(&spec.driver);
        self.clear(kept, Some(handle)).await?;
        let abilities = plugin.abilities().await?;
        let record = kept.insert(Record::new(self.order));
        record.source = Some(handle.to_owned());
        self.node.records.save(record)?;
        let made = match self.create(&plugin, &abilities, record).await {
            Ok(made) => made,
            Err(error) if is_of_the_snapshot(&error) => {
                tracing::warn!(snapshot = snapshot.name, %error, "the archive is read instead");
                self.node.snapshots.retire(snapshot);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.status
            .send_modify(|status| status.volume = Some(made.clone()));
        volume::fits(&made, spec, &abilities).map_err(|unfit| AttemptError::Unfit {
            driver: spec.driver.clone(),
            unfit,
        })?;
        let fetched = signed(self.fetched_before);
        Ok(Some(Filled {
            volume: made,
            result: RestoreResult {
                bytes_fetched: fetched,
                bytes_fetched_again: fetched,
                seconds: signed(begun.elapsed().as_secs()).max(1),
                snapshot_handle: Some(handle.to_owned()),
                ..snapshot.result.clone()
            },
        }))
    }
}

/// Whether an error of CreateVolume may be of the snapshot, and not of the volume that is asked for.
fn is_of_the_snapshot(error: &AttemptError) -> bool {
    match error {
        AttemptError::Call(error) => made_nothing(error) && !is_full(error),
        _ => false,
    }
}

/// Whether a driver has no room.
pub(super) fn is_full(error: &CallError) -> bool {
    error.code() == Some(Code::ResourceExhausted)
}
