//! The main job on a real two-node cluster with `deploy/` installed: PVCs come back whole, or stay
//! Pending with the reason and leave nothing behind.

mod block;
mod bounds;
mod cache;
mod choices;
mod cross_namespace;
mod memory;
mod point_in_time;
mod prime;
mod refusals;
mod steering;
mod stores;
mod turns;
mod whole;

use std::process::ExitCode;

use tests::{product::Form, shared::SharedSuite};

fn main() -> anyhow::Result<ExitCode> {
    let mut suite = SharedSuite::start("restore", Form::Restore)?.at_once(6);
    whole::add(&mut suite);
    block::add(&mut suite);
    choices::add(&mut suite);
    refusals::add(&mut suite);
    bounds::add(&mut suite);
    cache::add(&mut suite);
    stores::add(&mut suite);
    point_in_time::add(&mut suite);
    memory::add(&mut suite);
    turns::add(&mut suite);
    steering::add(&mut suite);
    prime::add(&mut suite);
    cross_namespace::add(&mut suite);
    Ok(suite.run())
}
