//! What people see of a PVC that was sent to the node of its source.

use super::decision::Candidate;
use crate::controller::events::{Kind, Notice};

/// A node was chosen.
pub fn steered(candidate: &Candidate, node: &str) -> Notice {
    Notice {
        kind: Kind::Normal,
        reason: "SourceNodeSelected".to_owned(),
        message: format!(
            "the volume is to be made on node {node}, where {} lies: it can be copied nowhere else",
            candidate.source
        ),
    }
}

/// The choice was taken back, as provisioners do where a node has no room.
pub fn taken_back(candidate: &Candidate, node: &str) -> Notice {
    Notice {
        kind: Kind::Warning,
        reason: "SourceNodeFull".to_owned(),
        message: format!(
            "on node {node}, the only one where {} can be copied, the volume could not be made, most \
             likely for want of room; delete volumes or add space there, it is tried again after \
             longer and longer pauses up to a minute",
            candidate.source
        ),
    }
}
