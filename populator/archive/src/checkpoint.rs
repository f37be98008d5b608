//! How far a restore is, in a form that outlives it: what a checkpoint holds, and whether it is one of
//! this restore.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::entry::Entry;
use crate::format::Format;
use crate::options::Options;
use crate::outcome::Losses;
use crate::progress::Snapshot;
use crate::source::Source;
use crate::tar_reader::Mark;

/// The form of a record. A change of it, or of what is made of an archive, is another number.
const VERSION: u32 = 2;

/// When and where a restore notes how far it is, so that it can go on if it is interrupted.
///
/// Only restores into an empty directory do so ([`Existing::Refuse`](crate::Existing)), from a source
/// that has an [`identity`](Source::identity), onto a file system with extended attributes of users.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    /// A directory for this restore alone. It is not where files are restored to, and outlives the
    /// process. Made, for its owner alone, where it is missing; removed when the restore has succeeded.
    pub directory: PathBuf,
    /// Bytes of file data from one checkpoint to the next, at most.
    pub bytes: u64,
    /// Time from one to the next, at most, while something is written.
    pub time: Duration,
}

impl Checkpoints {
    /// Every GiB or half minute.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            bytes: 1 << 30,
            time: Duration::from_secs(30),
        }
    }
}

/// What is restored, and how: where any of this differs, one cannot go on for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    length: u64,
    identity: String,
    /// Of all options that shape the result, as text.
    options: String,
}

impl Subject {
    /// `None` where nothing tells the object from another.
    pub(crate) fn new(source: &dyn Source, options: &Options) -> Option<Self> {
        Some(Self {
            length: source.length(),
            identity: source.identity()?,
            options: shaping(options),
        })
    }
}

/// All that shapes the result. Every new option belongs to one side or the other.
fn shaping(options: &Options) -> String {
    let Options {
        budget: _,
        fetching: _,
        identities: _,
        devices,
        selection,
        ownership,
        privileges,
        labels,
        existing,
        limits: _,
        strict,
        checkpoints: _,
        sha256: _,
        required: _,
        image_room: _,
    } = options;
    let entries = selection.as_wished();
    format!("{entries} {devices:?} {ownership:?} {privileges:?} {labels:?} {existing:?} {strict}")
}

/// A volume, as it is recognised: by its root, and by what the last checkpoint wrote onto that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Volume {
    /// Chosen at random for one restore.
    pub(crate) nonce: String,
    /// The root's inode number, and when that was made, where the file system knows.
    pub(crate) root: (u64, Option<(i64, u32)>),
}

/// A checkpoint: all that it holds was durable before it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    pub(crate) subject: Subject,
    pub(crate) volume: Volume,
    /// Counts the checkpoints of this restore.
    pub(crate) sequence: u64,
    /// Whether all entries are restored.
    pub(crate) ended: bool,
    pub(crate) format: Format,
    pub(crate) mark: Mark,
    pub(crate) part: Option<Part>,
    pub(crate) counts: Counts,
    pub(crate) lost: Losses,
    pub(crate) omitted: Losses,
    pub(crate) directories: Kept,
    pub(crate) progress: Snapshot,
    /// How many bytes from the object's begin on were fetched at least, in any attempt.
    pub(crate) reached: u64,
    /// [`Outcome::fetched_again`](crate::Outcome) so far.
    pub(crate) fetched_again: u64,
}

/// The file that is being written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) entry: Entry,
    pub(crate) inode: u64,
    /// Bytes of its data that are in place.
    pub(crate) done: u64,
}

/// How much of the list of directories belongs to a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// Bytes.
    pub(crate) length: u64,
    /// SHA-256 of those.
    pub(crate) sha256: String,
}

/// How many of each were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) links: u64,
    pub(crate) left_out: u64,
}

impl Record {
    /// The first one of a restore.
    pub(crate) fn first(subject: Subject, volume: Volume, format: Format) -> Self {
        Self {
            version: VERSION,
            subject,
            volume,
            sequence: 0,
            ended: false,
            format,
            mark: Mark::default(),
            part: None,
            counts: Counts::default(),
            lost: Losses::default(),
            omitted: Losses::default(),
            directories: Kept::default(),
            progress: Snapshot::default(),
            reached: 0,
            fetched_again: 0,
        }
    }

    /// As it is written: the SHA-256 of a text, and that text.
    pub(crate) fn to_text(&self) -> String {
        let body = serde_json::to_string(self).expect("maps have strings as keys");
        format!("{}\n{body}\n", hex::encode(Sha256::digest(&body)))
    }

    /// Reads one, or says what is odd about it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (sum, body) = text.split_once('\n').ok_or("it has no sum")?;
        let body = body.strip_suffix('\n').ok_or("it is cut off")?;
        if sum != hex::encode(Sha256::digest(body)) {
            return Err("its sum is not right".to_owned());
        }
        let value: serde_json::Value =
            serde_json::from_str(body).map_err(|error| error.to_string())?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(VERSION.into()) {
            return Err("it is of another version of this program".to_owned());
        }
        let record: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if record.makes_sense() {
            Ok(record)
        } else {
            Err("it contradicts itself".to_owned())
        }
    }

    fn makes_sense(&self) -> bool {
        let length = self.subject.length;
        self.mark.point.as_ref().is_none_or(|point| {
            point.boundary.offset <= point.packed
                && point.packed <= length
                && point.unpacked <= self.mark.position
        }) && self.reached <= length
            && self.ended <= self.part.is_none()
            && self.format.encrypted <= self.mark.point.is_none()
    }

    /// From which byte of the object on it is fetched.
    pub(crate) fn offset(&self) -> u64 {
        let point = self.mark.point.as_ref();
        point.map_or(0, |point| point.boundary.offset)
    }
}
