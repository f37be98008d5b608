//! The specs that are not run: only such as the nodes here cannot run whatever the driver does.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Shape;
use crate::process::can_have;

/// Specs that are not run, and why.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Part of the full names of the specs.
    pub spec: String,
    /// What of the node keeps them from running.
    pub why: String,
    /// The kinds of clusters on which they are left out, by [`Shape::name`]; all by default.
    #[serde(default)]
    pub on: Vec<String>,
    /// Left out only where the machine's root is without this capability, by its number.
    pub without_capability: Option<u32>,
}

impl LeftOut {
    /// What matches the specs, in Go's regular expressions.
    pub(super) fn pattern(&self) -> String {
        format!(r"\Q{}\E", self.spec)
    }
}

/// Those of a kind of cluster.
pub(super) fn of(shape: Shape) -> Result<Vec<LeftOut>> {
    let mut all: Vec<LeftOut> =
        serde_saphyr::from_str(include_str!("left-out.yaml")).context("left-out.yaml")?;
    all.retain(|spec| spec.on.is_empty() || spec.on.iter().any(|on| on == shape.name()));
    let mut kept = Vec::new();
    for spec in all {
        if !spec.without_capability.map_or(Ok(false), can_have)? {
            kept.push(spec);
        }
    }
    Ok(kept)
}
