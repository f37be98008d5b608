//! Volumes under pods, on a real one-node cluster with `deploy/` installed: snapshots, clones,
//! groups of snapshots, growth and raw block volumes, while pods write and read; and what the driver
//! says when something is wrong with one.
#![allow(
    clippy::print_stdout,
    reason = "the longest freeze is for people to read"
)]

mod block;
mod copies;
mod freeze;
mod groups;
mod growth;
mod snapshots;
mod troubles;
mod writer;

use std::{process::ExitCode, time::Duration};

use tests::{product::Form, shared::SharedSuite, tenant::Wish};

/// For everything that is waited for: many times what it needs on a quiet machine.
const WAIT: Duration = Duration::from_secs(120);

const EXT4: Wish<'static> = Wish {
    class: "fast-csi-storage",
    size: "1Gi",
    backup: None,
};

const XFS: Wish<'static> = Wish {
    class: "fast-csi-storage-xfs",
    ..EXT4
};

/// What a pod runs that is there to have its volumes mounted.
const STAY: &str = "exec sleep 1000000";

fn main() -> anyhow::Result<ExitCode> {
    let mut suite = SharedSuite::start("volumes", Form::OneNode)?.at_once(8);
    snapshots::add(&mut suite);
    copies::add(&mut suite);
    growth::add(&mut suite)?;
    block::add(&mut suite);
    groups::add(&mut suite);
    troubles::add(&mut suite);
    Ok(suite.run_then(async |world| {
        let longest = freeze::longest(world).await?;
        println!("longest freeze: {:.0} ms", longest.as_secs_f64() * 1e3);
        Ok(())
    }))
}
