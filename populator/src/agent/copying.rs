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
            Err(error) => {
                let verdict = verdict(&error);
                if verdict != Verdict::Innocent {
                    self.node.snapshots.retire(&snapshot.name);
                }
                if verdict != Verdict::Useless {
                    return Err(error);
                }
                tracing::warn!(snapshot = snapshot.name, %error, "the archive is read instead");
                return Ok(None);
            }
        };
        self.status
            .send_modify(|status| status.volume = Some(made.clone()));
        if let Err(unfit) = volume::fits(&made, spec, &abilities) {
            tracing::warn!(snapshot = snapshot.name, %unfit, "the archive is read instead");
            self.node.snapshots.retire(&snapshot.name);
            return Ok(None);
        }
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

/// What an error of CreateVolume says of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It has nothing to do with it.
    Innocent,
    /// Perhaps the volume is being made all the same, perhaps it never will be: the next attempt does without.
    Suspect,
    /// There is no volume, and would be none at the next try.
    Useless,
}

fn verdict(error: &AttemptError) -> Verdict {
    let AttemptError::Call(error) = error else {
        return Verdict::Innocent;
    };
    match error.code() {
        None | Some(Code::Unavailable | Code::Aborted | Code::ResourceExhausted) => {
            Verdict::Innocent
        }
        Some(_) if made_nothing(error) => Verdict::Useless,
        Some(_) => Verdict::Suspect,
    }
}

/// Whether a driver has no room.
pub(super) fn is_full(error: &CallError) -> bool {
    error.code() == Some(Code::ResourceExhausted)
}
