//! Names: of volumes, snapshots and groups of them, and of the node they live on.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of the digest that an id carries, twice as many in hexadecimal digits.
const DIGEST: usize = 16;

/// The longest value of a label, and so of a topology segment.
const LONGEST_NODE_NAME: usize = 63;

/// The name of a node, fit for a topology segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName(String);

/// Why a text is no node's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node name {0:?} cannot be a topology value: it must have 1 to 63 letters, digits, \
     dashes, dots or underscores, and begin and end with a letter or digit"
)]
pub struct NodeNameError(String);

impl NodeName {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, NodeNameError> {
        if is_label_value(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NodeNameError(text.to_owned()))
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST_NODE_NAME
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
}

/// What an id is the id of. Kinds differ by prefix, so that no id is taken for another's.
pub trait Kind: Clone + Ord + fmt::Debug + std::hash::Hash {
    /// What every id of this kind begins with.
    const PREFIX: &'static str;
}

/// Volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OfVolume {}

/// Snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OfSnapshot {}

/// Groups of snapshots that were taken at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OfGroup {}

impl Kind for OfVolume {
    const PREFIX: &'static str = "vol-";
}

impl Kind for OfSnapshot {
    const PREFIX: &'static str = "snap-";
}

impl Kind for OfGroup {
    const PREFIX: &'static str = "group-";
}

/// An id: a prefix, the beginning of a digest of the CSI name, a dot, the node.
///
/// It follows from the name, so a repeated call meets the same object after any crash; it names
/// the node, so a call can be routed to it; and it is fit for a directory's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id<K: Kind> {
    text: String,
    kind: PhantomData<K>,
}

/// A volume's id.
pub type VolumeId = Id<OfVolume>;

/// A snapshot's id.
pub type SnapshotId = Id<OfSnapshot>;

/// A group's id.
pub type GroupId = Id<OfGroup>;

impl<K: Kind> Id<K> {
    /// The id of the object with this CSI name on this node.
    pub fn of(name: &str, node: &NodeName) -> Self {
        let digest = hex::encode(&Sha256::digest(name.as_bytes())[..DIGEST]);
        Self::from_text(format!("{}{digest}.{}", K::PREFIX, node.as_str()))
    }

    /// Reads an id; `None` for a text that [`Self::of`] never makes, so that nothing has it.
    pub fn parse(text: &str) -> Option<Self> {
        let (digest, node) = text.strip_prefix(K::PREFIX)?.split_once('.')?;
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        (digest.len() == 2 * DIGEST && digest.as_bytes().iter().all(is_digit))
            .then(|| is_label_value(node))?
            .then(|| Self::from_text(text.to_owned()))
    }

    fn from_text(text: String) -> Self {
        let kind = PhantomData;
        Self { text, kind }
    }

    /// The node that it names.
    pub fn node(&self) -> &str {
        self.text.split_once('.').map_or("", |(_, node)| node)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl SnapshotId {
    /// The id of the snapshot of `volume` in `group`. No CSI name has a line break, so no other
    /// snapshot has this id.
    pub fn in_group(group: &GroupId, volume: &VolumeId, node: &NodeName) -> Self {
        Self::of(&format!("{group}\n{volume}"), node)
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<K: Kind> TryFrom<String> for Id<K> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no id with {:?}", K::PREFIX))
    }
}

impl<K: Kind> From<Id<K>> for String {
    fn from(id: Id<K>) -> Self {
        id.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_name_and_say_their_node() {
        let node = NodeName::parse("node-1.example").unwrap();
        let id = VolumeId::of("pvc-1", &node);
        assert_eq!(
            id.as_str(),
            "vol-f2868e1aa7cab669517cd9f5ab1b7957.node-1.example"
        );
        assert_eq!(id.node(), "node-1.example");
        assert_eq!(VolumeId::parse(id.as_str()), Some(id.clone()));
        assert_ne!(VolumeId::of("pvc-2", &node), id);
        assert_eq!(SnapshotId::parse(id.as_str()), None);
        assert!(
            SnapshotId::of("pvc-1", &node)
                .as_str()
                .starts_with("snap-f2868e1a")
        );
        let longest = NodeName::parse(&"n".repeat(63)).unwrap();
        assert!(VolumeId::of(&"x".repeat(128), &longest).as_str().len() <= 128);
    }

    #[test]
    fn nothing_else_is_an_id() {
        let digest = "0".repeat(32);
        for text in [
            String::new(),
            "reallyfakevolumeid".into(),
            format!("vol-{digest}"),
            format!("vol-{digest}."),
            format!("vol-{digest}./etc"),
            format!("vol-{digest}.a/../b"),
            format!("vol-{digest}.a\nb"),
            format!("vol-{}.node", &digest[1..]),
            format!("vol-{}.node", digest.replace('0', "A")),
            format!("../vol-{digest}.node"),
        ] {
            assert_eq!(VolumeId::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn node_names_are_label_values() {
        for text in ["a", "ip-10-0-0-1.ec2.internal", "A_b"] {
            assert!(NodeName::parse(text).is_ok(), "{text}");
        }
        for text in ["", "-a", "a.", "a/b", "ä", &"n".repeat(64)] {
            assert!(NodeName::parse(text).is_err(), "{text}");
        }
    }
}
