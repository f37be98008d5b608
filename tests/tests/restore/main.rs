//! The main job on a real two-node cluster with `deploy/` installed: PVCs come back whole, or stay
//! Pending with the reason and leave nothing behind.

mod block;
mod choices;
mod memory;
mod refusals;
mod steering;
mod whole;

use std::process::ExitCode;

use tests::{product::Form, shared::SharedSuite};

fn main() -> anyhow::Result<ExitCode> {
    let mut suite = SharedSuite::start("restore", Form::Snapshots)?.at_once(6);
    whole::add(&mut suite);
    block::add(&mut suite);
    choices::add(&mut suite);
    refusals::add(&mut suite);
    memory::add(&mut suite);
    steering::add(&mut suite);
    Ok(suite.run())
}
