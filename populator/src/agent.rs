//! The agent: makes, fills and deletes the volumes of one node, as its orders say.

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Telemetry;

/// The flags of `populator agent`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The node that this agent serves
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
}

/// Why the agent did not start.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// No node was named.
    #[error("--node-name must name this node; in a pod, set NODE_NAME from spec.nodeName")]
    NodeName,
}

/// Runs until `stop`.
pub async fn run(
    arguments: Arguments,
    _telemetry: &Telemetry,
    stop: CancellationToken,
) -> Result<(), StartError> {
    if arguments.node_name.is_empty() {
        return Err(StartError::NodeName);
    }
    stop.cancelled().await;
    Ok(())
}
