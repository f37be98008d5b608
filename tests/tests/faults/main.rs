//! What is cut off midway: every step aborted before and after its effect, objects deleted, all
//! containers killed, and every event at every step. Everything ends with the PVC bound to complete data,
//! or with its sentence, or with nothing left.
#![allow(clippy::print_stdout, reason = "the table is for people to read")]

mod aborts;
mod midway;
mod silence;
mod table;

use std::process::ExitCode;

use tests::{product::Form, shared::SharedSuite};

fn main() -> anyhow::Result<ExitCode> {
    // One after another: fail points and kills spare nobody.
    let mut suite = SharedSuite::start("faults", Form::FailPoints)?;
    aborts::add(&mut suite);
    midway::add(&mut suite);
    silence::add(&mut suite);
    table::add(&mut suite);
    Ok(suite.run())
}
