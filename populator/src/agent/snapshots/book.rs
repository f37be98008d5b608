//! What is known of each snapshot: one durable file for each.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crds::cache::{Cache, Content};
use crds::restore_order::OrderVolume;
use crds::volume_restore::RestoreResult;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::agent::record::{self, Context as _, RecordError};

const FORMAT: u32 = 1;

/// A snapshot that was kept, or is about to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub(super) format: u32,
    /// Its CSI name.
    pub name: String,
    /// What is in it: the key of a content.
    pub content: String,
    /// The VolumeBackup that it is of, `NAMESPACE/NAME`.
    pub backup: String,
    /// Its driver.
    pub driver: String,
    /// Whether there is one.
    pub state: State,
    /// Bytes of the smallest volume that can be made from it.
    pub size_bytes: i64,
    /// When it was taken.
    pub created: Timestamp,
    /// When it goes.
    pub expires: Timestamp,
    /// What the VolumeBackup allows to be kept; without it, it only serves those who wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What was restored into the volume that it is of.
    pub result: RestoreResult,
}

/// Whether there is a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Of the volume with this handle, perhaps: CreateSnapshot has not answered.
    Perhaps(String),
    /// The one with this handle.
    Made(String),
}

impl Kept {
    /// One of `name` that is about to be made.
    #[must_use]
    pub fn begun(name: String, volume: String, driver: String, result: RestoreResult) -> Self {
        Self {
            format: FORMAT,
            name,
            content: String::new(),
            backup: String::new(),
            driver,
            state: State::Perhaps(volume),
            size_bytes: 0,
            created: Timestamp::now(),
            expires: Timestamp::MAX,
            cache: None,
            result,
        }
    }

    /// Its handle, once it is made.
    pub fn handle(&self) -> Option<&str> {
        match &self.state {
            State::Made(handle) => Some(handle),
            State::Perhaps(_) => None,
        }
    }

    /// Whether a volume can be made from it that holds this content. What is kept for those who want so is
    /// for them alone.
    pub(super) fn serves(&self, content: &Content, volume: &OrderVolume, now: Timestamp) -> bool {
        self.handle().is_some()
            && self.content == content.key
            && (self.cache.is_none() || content.cache.is_some())
            && self.driver == volume.driver
            && self.expires > now
            && volume.required_bytes >= self.size_bytes
    }
}

/// All of them.
#[derive(Debug)]
pub struct Book {
    folder: PathBuf,
    kept: BTreeMap<String, Kept>,
}

impl Book {
    /// Those in `folder`, which is made with the first. A file that cannot be read is reported and left alone:
    /// what it stands for is unknown.
    pub fn open(folder: PathBuf) -> Result<Self, RecordError> {
        let mut kept = BTreeMap::new();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { folder, kept });
            }
            entries => entries.context("listing", &folder)?,
        };
        for entry in entries {
            let path = entry.context("listing", &folder)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = fs::read(&path).context("reading", &path)?;
            match serde_json::from_slice::<Kept>(&bytes) {
                Ok(mut one) if one.format == FORMAT => {
                    // Nobody is at it any more.
                    if one.handle().is_none() {
                        one.expires = Timestamp::now();
                    }
                    kept.insert(one.name.clone(), one);
                }
                Ok(_) | Err(_) => tracing::error!(
                    path = %path.display(),
                    "the record of a snapshot cannot be understood and is left alone"
                ),
            }
        }
        Ok(Self { folder, kept })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Kept> {
        self.kept.values()
    }

    /// The newest of those that pass.
    pub fn newest(&self, passes: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let passing = self.all().filter(|kept| passes(kept));
        passing.max_by_key(|kept| kept.created).cloned()
    }

    /// Writes what is known of one; it is durable when this returns.
    pub fn save(&mut self, kept: Kept) -> Result<(), RecordError> {
        fs::create_dir_all(&self.folder).context("making", &self.folder)?;
        record::write(&self.folder, &format!("{}.json", kept.name), &kept)?;
        self.kept.insert(kept.name.clone(), kept);
        Ok(())
    }

    /// One is of no use any more, also if that cannot be written down.
    pub fn expire(&mut self, name: &str) -> Result<(), RecordError> {
        let Some(kept) = self.kept.get_mut(name) else {
            return Ok(());
        };
        kept.expires = Timestamp::now();
        let kept = kept.clone();
        self.save(kept)
    }

    /// Forgets one.
    pub fn remove(&mut self, name: &str) -> Result<(), RecordError> {
        self.kept.remove(name);
        record::remove(&self.folder, &format!("{name}.json"))
    }

    /// Those that are to go: what has expired; of each VolumeBackup what is more than its cache allows, as the
    /// newest says; and of each driver what is more than the bytes that it has `free`. The newest stay.
    pub fn surplus(&self, now: Timestamp, free: &BTreeMap<String, i64>) -> Vec<Kept> {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let mut bytes: BTreeMap<&str, i64> = BTreeMap::new();
        let mut newest_first: Vec<&Kept> = self.all().collect();
        newest_first.sort_by_key(|kept| std::cmp::Reverse(kept.created));
        let mut surplus = Vec::new();
        for kept in newest_first {
            if kept.expires <= now {
                surplus.push(kept.clone());
                continue;
            }
            // One that is not there yet stands for nothing.
            let Some(cache) = kept.cache.filter(|_| kept.handle().is_some()) else {
                continue;
            };
            let allowed = usize::try_from(cache.count).unwrap_or(1);
            let (seen, most) = counts.entry(&kept.backup).or_insert((0, allowed));
            let sum = bytes.entry(&kept.driver).or_insert(0);
            let larger = sum.saturating_add(kept.size_bytes);
            let is_too_much = free.get(&kept.driver).is_some_and(|free| larger > *free);
            if *seen >= *most || is_too_much {
                surplus.push(kept.clone());
            } else {
                (*seen, *sum) = (*seen + 1, larger);
            }
        }
        surplus
    }
}
