//! One attempt at an order: from nothing, or from the checkpoint of the attempt before, to a volume that
//! is complete, durable and mounted nowhere.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use archive::{Checkpoints, Options, RestoreError};
use crds::restore_order::{
    Cure, MadeVolume, RestoreOrder, RestoreOrderStatus, SignedAccess, VolumeMode,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::copying::is_full;
use super::emptying::Emptied;
use super::failure::{AttemptError, Worth, made_nothing, with_keys};
use super::interruptions;
use super::mount;
use super::node::Node;
use super::plugin::{Plugin, Use};
use super::record::{Filled, Made, Record};
use super::snapshots::{self, Kept};
use super::teardown;
use super::volume::{self, Abilities};
use crate::choices;
use crate::failpoint;
use crate::seal::Contents;

/// One order being carried out.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// With what.
    pub node: &'a Node,
    /// The order.
    pub order: &'a RestoreOrder,
    /// How the archive may be read, renewed now and then.
    pub access: watch::Receiver<SignedAccess>,
    /// What the order's status shall say.
    pub status: &'a watch::Sender<RestoreOrderStatus>,
    /// Bytes that earlier attempts have fetched.
    pub fetched_before: u64,
    /// What the volume can be made from, in place of the archive.
    pub copy: Option<Kept>,
    /// Given up, it ends within a second, and leaves nothing mounted.
    pub cancel: CancellationToken,
}

/// A volume that is mounted, and proven to be.
pub(super) struct Mounted {
    pub(super) volume: MadeVolume,
    pub(super) target: Target,
    emptied: Emptied,
}

/// Where an archive goes.
pub(super) enum Target {
    /// Into the root of a file system.
    Directory(OwnedFd),
    /// Onto a device.
    Device(OwnedFd),
}

impl Attempt<'_> {
    /// Makes and fills the volume. `record` is kept in step with the disk throughout. With success
    /// it says `filled`, and the volume is mounted nowhere.
    ///
    /// Whatever an earlier attempt has made is gone on with, or deleted first: the caller has made sure
    /// that the controller does not count on it.
    pub async fn fill(&self, record: &mut Option<Record>) -> Result<(), AttemptError> {
        let written = self.write(record).await;
        let Some(record) = record else {
            return written.map(drop);
        };
        let released = teardown::release(self.node, record).await;
        match (written, released) {
            (Ok(filled), Ok(())) => {
                let mut complete = record.clone();
                complete.filled = Some(filled);
                failpoint::reached("agent.complete.before");
                self.node.records.save(&complete)?;
                failpoint::reached("agent.complete.after");
                // Not before it is durable: what is complete in memory alone would be reported.
                *record = complete;
                Ok(())
            }
            (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            (Err(error), Err(release)) => {
                tracing::warn!(order = record.order, %release, "left mounted for now");
                Err(error)
            }
        }
    }

    async fn write(&self, record: &mut Option<Record>) -> Result<Filled, AttemptError> {
        let times = self
            .node
            .records
            .ended_in(self.uid(), self.order.spec.attempt);
        if times >= interruptions::MAX {
            return Err(AttemptError::Interrupted { times });
        }
        let options = self.options()?;
        let goes_on = record.as_ref().is_some_and(|it| self.goes_on(it));
        if let Some(snapshot) = self.copy.as_ref().filter(|_| !goes_on) {
            // May be dropped at any await: the record is ahead of it.
            let copied = Box::pin(self.copied(record, snapshot));
            let copied = self.cancel.run_until_cancelled(copied).await;
            if let Some(filled) = copied.ok_or(AttemptError::Cancelled)?? {
                return Ok(filled);
            }
        }
        let written = self.once(record, options.clone()).await;
        self.judge(record, written.as_ref().err(), goes_on);
        let (Err(error), Some(known)) = (&written, record.as_ref()) else {
            return written;
        };
        let is_final = error.failure().cure != Cure::Time || error.is_of_no_volume();
        // What an order before this one has left under the same name, of which no record tells any more.
        let is_of_another = self.order.spec.provisioned.is_none()
            && matches!(
                error,
                AttemptError::Restore(RestoreError::VolumeNotEmpty { .. })
            );
        if !((goes_on || is_of_another) && known.spoiled && is_final) {
            return written;
        }
        tracing::warn!(order = known.order, %error, "begun anew, with another volume");
        let written = self.once(record, options).await;
        self.judge(record, written.as_ref().err(), false);
        written
    }

    /// Notes what a failure says of the volume.
    fn judge(&self, record: &mut Option<Record>, error: Option<&AttemptError>, goes_on: bool) {
        let (Some(error), Some(record)) = (error, record) else {
            return;
        };
        match error.worth() {
            Worth::Same => return,
            Worth::Doubtful => record.setbacks += u32::from(goes_on),
            Worth::Nothing => record.spoiled = true,
        }
        if let Err(error) = self.node.records.save(record) {
            tracing::warn!(order = record.order, %error, "only this process knows to begin anew");
        }
    }

    async fn once(
        &self,
        record: &mut Option<Record>,
        options: Options,
    ) -> Result<Filled, AttemptError> {
        // Every step of the way to the mount may be dropped at any await: the record is ahead of it.
        let mount = Box::pin(self.mount(record));
        let mounted = self.cancel.run_until_cancelled(mount).await;
        let mut mounted = mounted.ok_or(AttemptError::Cancelled)??;
        // Not to be dropped halfway: a thread of its own does it.
        mounted.target = mounted
            .emptied
            .applied(mounted.target, &self.cancel)
            .await?;
        self.restore(mounted, options).await
    }

    fn options(&self) -> Result<Options, AttemptError> {
        let spec = &self.order.spec;
        let mut options = choices::options(&spec.options, &self.node.options)?;
        let (resumption, records) = (&self.node.resumption, &self.node.records);
        let size = u64::try_from(spec.archive.size).unwrap_or(0);
        if !spec.is_of_a_disk() && size >= resumption.from {
            options.checkpoints = Some(Checkpoints {
                directory: records.state(self.uid()),
                bytes: resumption.bytes,
                time: resumption.time,
            });
        }
        Ok(options)
    }

    pub(super) fn uid(&self) -> &str {
        self.order.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether there is a volume, and a checkpoint that may be of what is in it.
    fn goes_on(&self, record: &Record) -> bool {
        let given = self.order.spec.provisioned.as_ref();
        let is_same = given.is_none_or(|given| record.made.volume() == Some(&given.volume));
        is_same && record.is_worth_keeping() && self.node.records.state(&record.uid).is_dir()
    }

    async fn mount(&self, kept: &mut Option<Record>) -> Result<Mounted, AttemptError> {
        let spec = &volume::wanted(&self.order.spec);
        let given = self.order.spec.provisioned.as_ref();
        let plugin = self.node.plugin(&spec.driver);
        let secrets = match given.and_then(|given| given.secrets.as_ref()) {
            Some(secrets) => self.node.key.open(&secrets.sealed)?,
            None => Contents::default(),
        };
        self.clear(kept, None).await?;

        let abilities = plugin.abilities().await?;
        if given.is_none() && !abilities.makes_volumes {
            return Err(AttemptError::NoController {
                driver: spec.driver.clone(),
            });
        }
        let earlier = kept.take();
        let was_there = earlier.is_some();
        let begun = earlier.filter(|record| self.goes_on(record));
        // Another volume cannot be had from here: the one that an earlier attempt has written to is
        // emptied.
        let emptied = match (&begun, given, was_there) {
            (None, Some(_), true) => Emptied::OfAll,
            (None, Some(_), false) => Emptied::OfOldBlocks,
            (Some(_), _, _) | (None, None, _) => Emptied::Not,
        };
        let record = kept.insert(begun.unwrap_or_else(|| Record::new(self.order)));
        record.mounted = record.made.volume().is_some();
        failpoint::reached("agent.record.before");
        self.node.records.save(record)?;
        failpoint::reached("agent.record.after");

        let made = match record.made.volume() {
            Some(made) => made.clone(),
            None => self.create(&plugin, &abilities, record).await?,
        };
        self.status
            .send_modify(|status| status.volume = Some(made.clone()));
        volume::fits(&made, spec, &abilities).map_err(|unfit| AttemptError::Unfit {
            driver: spec.driver.clone(),
            unfit,
        })?;
        let used = Use {
            made: &made,
            volume: spec,
            abilities: &abilities,
            publish_context: &given.map_or_else(BTreeMap::new, |it| it.publish_context.clone()),
            pod_info: &match &self.order.spec.prime {
                Some(prime) if prime.pod_info_on_mount => volume::pod_info(&self.node.pod),
                Some(_) | None => BTreeMap::new(),
            },
            secrets: &secrets,
        };
        let target = self.publish(&plugin, used, record).await?;
        let mounted = Mounted {
            volume: made,
            target,
            emptied,
        };
        record.setbacks = 0;
        Ok(mounted)
    }

    /// Takes away what an earlier attempt left, the volume only if this one, which makes its own from the
    /// snapshot `source` if that is named, does not go on with it.
    pub(super) async fn clear(
        &self,
        kept: &mut Option<Record>,
        source: Option<&str>,
    ) -> Result<(), AttemptError> {
        let reported = self.status.borrow().volume.clone();
        if kept.is_none() && reported.is_none() {
            return Ok(());
        }
        let record = kept.get_or_insert_with(|| Record::recovered(self.order, reported.as_ref()));
        teardown::release(self.node, record).await?;
        if self.goes_on(record) {
            return Ok(());
        }
        // A volume of which nothing was ever heard was never written to: the same call finds it again.
        let is_found_again = record.made == Made::Perhaps
            && record.source.as_deref() == source
            && reported.is_none();
        if !is_found_again {
            teardown::delete(self.node, record, reported.as_ref()).await?;
        }
        self.status.send_modify(|status| status.volume = None);
        Ok(())
    }

    pub(super) async fn create(
        &self,
        plugin: &Plugin,
        abilities: &Abilities,
        record: &mut Record,
    ) -> Result<MadeVolume, AttemptError> {
        let spec = &self.order.spec.volume;
        failpoint::reached("agent.create.before");
        let request = volume::creation(spec, abilities, record.source.as_deref());
        let answer = match plugin.create(request.clone()).await {
            // What is kept for later goes before what is asked for now.
            Err(error)
                if is_full(&error) && snapshots::make_room(self.node, &spec.driver).await =>
            {
                plugin.create(request).await
            }
            answer => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if made_nothing(&error) && record.made == Made::Perhaps {
                    record.made = Made::No;
                    self.node.records.save(record)?;
                }
                return Err(error.into());
            }
        };
        failpoint::reached("agent.create.after");
        self.node.room_changed.notify_one();
        let made = volume::made(answer.as_ref(), spec).map_err(|unfit| AttemptError::Unfit {
            driver: spec.driver.clone(),
            unfit,
        })?;
        record.made = Made::Yes(made.clone());
        // One that is made of a snapshot is complete as it is.
        record.mounted = record.source.is_none();
        failpoint::reached("agent.adopt.before");
        self.node.records.save(record)?;
        failpoint::reached("agent.adopt.after");
        Ok(made)
    }

    async fn publish(
        &self,
        plugin: &Plugin,
        used: Use<'_>,
        record: &Record,
    ) -> Result<Target, AttemptError> {
        let records = &self.node.records;
        let (stage, target) = (records.stage(&record.uid), records.target(&record.uid));
        let refused = match used.secrets {
            none if *none == Contents::default() => AttemptError::Call,
            _ => with_keys,
        };
        if used.abilities.stages {
            records.make_stage(&record.uid)?;
            failpoint::reached("agent.stage.before");
            plugin.stage(used, text(&stage)?).await.map_err(refused)?;
            failpoint::reached("agent.stage.after");
        }
        failpoint::reached("agent.publish.before");
        let published = plugin.publish(used, text(&stage)?, text(&target)?).await;
        published.map_err(refused)?;
        failpoint::reached("agent.publish.after");
        let folder = records.folder(&record.uid);
        Ok(match used.volume.volume_mode {
            VolumeMode::Filesystem => Target::Directory(mount::open_root(&folder, "target")?),
            VolumeMode::Block => Target::Device(mount::open_device(&folder, "target")?),
        })
    }
}

/// A path as CSI takes it.
pub(super) fn text(path: &Path) -> Result<&str, AttemptError> {
    path.to_str().ok_or(AttemptError::Order(
        "the work directory's path is not UTF-8",
    ))
}
