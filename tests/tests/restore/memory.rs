//! 1 GiB of real files from a `tar.zst`, within the memory that the agent's container has.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    large::{LIMIT, Large},
    shared::{SharedSuite, World},
};

pub fn add(suite: &mut SharedSuite) {
    suite.test("one_gibibyte_within_256_mebibytes_of_memory", bounded);
}

async fn bounded(world: &World) -> Result<()> {
    let large = Large::restore(world, Duration::from_secs(180)).await?;
    for (agent, peak) in &large.agents {
        let (node, restarts) = (&agent.node, agent.restarts);
        ensure!(
            *peak <= LIMIT,
            "the agent on {node} took {} MiB",
            peak >> 20
        );
        ensure!(restarts == 0, "the agent on {node} was restarted");
    }
    Ok(())
}
