//! `make bench`: measures the driver alone, the archive engine alone and the product on a real
//! cluster, prints tables for people, and writes the same figures as JSON under `target/bench/`.
#![allow(clippy::print_stdout, reason = "printing tables is what it is for")]

mod archives;
mod cluster;
mod copies;
mod driver;
mod interruption;
mod table;

use anyhow::{Context as _, Result, bail};

/// What can be measured by itself.
const PARTS: [&str; 3] = ["copies", "archives", "cluster"];

#[tokio::main]
async fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    interruption::watch()?;
    let wanted = std::env::args().nth(1);
    if let Some(unknown) = wanted.as_ref().filter(|it| !PARTS.contains(&it.as_str())) {
        bail!(
            "{unknown:?} is no benchmark; there are {}",
            PARTS.join(", ")
        );
    }
    let wants = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    if wants("copies") {
        let mut rows = Vec::new();
        let measured = copies::measure(&mut rows).await;
        table::print("Snapshots, restores and clones", copies::NOTE, &rows);
        measured?;
        table::write("copies", &rows)?;
    }
    if wants("archives") {
        let mut rows = Vec::new();
        let part = std::env::args().nth(2);
        let measured = archives::measure(&mut rows, part.as_deref()).await;
        table::print("Archives from S3 into a volume", archives::NOTE, &rows);
        measured?;
        // A part does not replace the whole.
        let part = part.map_or_else(String::new, |part| format!("-{part}"));
        table::write(&format!("archives{part}"), &rows)?;
    }
    if wants("cluster") {
        let part = std::env::args().nth(2);
        let count = std::env::args().nth(3).map_or(Ok(1000), |it| it.parse());
        let count = count.context("how many PVCs `thousand` makes is a number")?;
        tokio::select! {
            measured = cluster::measure(part.as_deref(), count) => measured?,
            () = interruption::happened() => bail!("interrupted"),
        }
    }
    Ok(())
}
