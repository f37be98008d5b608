//! What there has to be: every operation that was acknowledged, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use driver::volume::{GroupId, NodeName, SnapshotId, VolumeId};

use super::content::Content;
use super::operation::Operation;
use crate::support::MIB;

/// What users find in a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Block,
}

impl Kind {
    /// As [`crate::support::capability`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Block => "block",
        }
    }

    /// The size that a new volume gets.
    pub fn mib(self) -> i64 {
        match self {
            Self::Ext4 => 24,
            Self::Xfs => 300,
            Self::Block => 16,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Volume {
    pub name: String,
    pub kind: Kind,
    pub mib: i64,
    pub content: Content,
    pub staged: bool,
    pub published: bool,
}

impl Volume {
    /// Whether its content can be written and read where it is shown.
    pub fn is_open(&self) -> bool {
        match self.kind {
            Kind::Block => self.published,
            Kind::Ext4 | Kind::Xfs => self.staged,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub kind: Kind,
    pub mib: i64,
    pub content: Content,
    pub group: Option<String>,
}

/// All objects, by their ids.
#[derive(Debug, Default)]
pub struct Model {
    pub volumes: BTreeMap<String, Volume>,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub groups: BTreeMap<String, BTreeSet<String>>,
}

impl Model {
    /// Makes what an operation makes.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name, kind } => {
                self.add(name, *kind, kind.mib(), Content::default());
            }
            Operation::Copy { name, source, mib } => {
                let (kind, content) = match self.snapshots.get(source) {
                    Some(snapshot) => (snapshot.kind, snapshot.content.clone()),
                    None => (
                        self.volumes[source].kind,
                        self.volumes[source].content.clone(),
                    ),
                };
                self.add(name, kind, *mib, content);
            }
            Operation::Delete { volume } => drop(self.volumes.remove(volume)),
            Operation::Stage { volume } => self.volume(volume).staged = true,
            Operation::Unstage { volume } => self.volume(volume).staged = false,
            Operation::Publish { volume } => self.volume(volume).published = true,
            Operation::Unpublish { volume } => self.volume(volume).published = false,
            Operation::Write {
                volume,
                slot,
                stamp,
            } => self.volume(volume).content.write(*slot, *stamp),
            Operation::Expand { volume, mib } => self.volume(volume).mib = *mib,
            Operation::Snapshot { name, volume } => self.show(snapshot_id(name), volume, None),
            Operation::DeleteSnapshot { snapshot } => drop(self.snapshots.remove(snapshot)),
            Operation::Group { name, volumes } => {
                let group = group_id(name);
                let members = members(name, volumes);
                for (snapshot, volume) in members.iter().zip(volumes) {
                    self.show(snapshot.clone(), volume, Some(group.clone()));
                }
                self.groups.insert(group, members.into_iter().collect());
            }
            Operation::DeleteGroup { group } => {
                for member in self.groups.remove(group).unwrap() {
                    self.snapshots.remove(&member);
                }
            }
        }
    }

    pub fn volume(&mut self, id: &str) -> &mut Volume {
        self.volumes.get_mut(id).unwrap()
    }

    fn add(&mut self, name: &str, kind: Kind, mib: i64, content: Content) {
        let volume = Volume {
            name: name.to_owned(),
            kind,
            mib,
            content,
            staged: false,
            published: false,
        };
        self.volumes.insert(volume_id(name), volume);
    }

    fn show(&mut self, id: String, volume: &str, group: Option<String>) {
        let Volume {
            kind, mib, content, ..
        } = self.volumes[volume].clone();
        let snapshot = Snapshot {
            kind,
            mib,
            content,
            group,
        };
        self.snapshots.insert(id, snapshot);
    }

    /// The volumes and their sizes in bytes, as a list has to have them.
    pub fn sizes(&self) -> BTreeMap<String, i64> {
        let sizes = self.volumes.iter();
        sizes.map(|(id, it)| (id.clone(), it.mib * MIB)).collect()
    }

    /// The snapshots, as a list has to have them.
    pub fn shown(&self) -> BTreeSet<String> {
        self.snapshots.keys().cloned().collect()
    }
}

fn node() -> NodeName {
    NodeName::parse("node-1").unwrap()
}

/// Ids follow from names, so that it is known what an operation without an answer may have made.
pub fn volume_id(name: &str) -> String {
    VolumeId::of(name, &node()).to_string()
}

pub fn snapshot_id(name: &str) -> String {
    SnapshotId::of(name, &node()).to_string()
}

pub fn group_id(name: &str) -> String {
    GroupId::of(name, &node()).to_string()
}

/// The snapshots of a group, in the order of its volumes.
pub fn members(name: &str, volumes: &[String]) -> Vec<String> {
    let group = GroupId::of(name, &node());
    let member = |volume: &String| {
        let volume = VolumeId::parse(volume).unwrap();
        SnapshotId::in_group(&group, &volume, &node()).to_string()
    };
    volumes.iter().map(member).collect()
}
