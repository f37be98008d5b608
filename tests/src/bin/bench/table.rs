//! Figures, as a table and as JSON.

use std::fs;

use anyhow::Result;
use serde::Serialize;
use tests::product;

/// One measured case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub case: String,
    /// Our figure.
    pub ours: f64,
    /// The figure that it is set beside, of the same run.
    pub peer: Option<f64>,
    /// `ours / peer`.
    pub ratio: Option<f64>,
    /// The most that `ours` may be, where there is a goal.
    pub goal: Option<f64>,
    /// The unit of `ours`, `peer` and `goal`.
    pub unit: &'static str,
}

impl Row {
    /// A row with its ratio.
    pub fn new(
        case: &str,
        ours: f64,
        peer: Option<f64>,
        goal: Option<f64>,
        unit: &'static str,
    ) -> Self {
        let ratio = peer.filter(|peer| *peer > 0.0).map(|peer| ours / peer);
        Self {
            case: case.to_owned(),
            ours,
            peer,
            ratio,
            goal,
            unit,
        }
    }

    /// Whether there is a goal that is not reached.
    fn misses(&self) -> bool {
        self.goal.is_some_and(|goal| self.ours > goal)
    }
}

/// Prints rows under a title, and what one must know to read them.
pub fn print(title: &str, note: &str, rows: &[Row]) {
    let show = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.2}"));
    println!("\n{title}\n{note}\n");
    println!(
        "{:<58} {:>10} {:>10} {:>8} {:>10}  unit",
        "case", "ours", "peer", "ratio", "goal"
    );
    for row in rows {
        println!(
            "{:<58} {:>10.2} {:>10} {:>8} {:>10}  {}{}",
            row.case,
            row.ours,
            show(row.peer),
            show(row.ratio),
            show(row.goal),
            row.unit,
            if row.misses() { ", missed" } else { "" }
        );
    }
}

/// Writes `target/bench/<name>.json`.
pub fn write(name: &str, rows: &[impl Serialize]) -> Result<()> {
    let folder = product::repository().join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_string_pretty(rows)? + "\n")?;
    println!("\nwritten to {}", file.display());
    Ok(())
}
