//! The controller.

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Telemetry;

/// The flags of `populator controller`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The namespace that holds orders and Leases
    #[arg(long, env = "POD_NAMESPACE", default_value = "volume-populator")]
    pub namespace: String,
}

/// Why the controller ended.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another replica leads now, or nobody could be asked.
    #[error("leadership was lost; this process ends so that only one replica acts")]
    LeadershipLost,
}

/// Why the controller did not start.
#[derive(thiserror::Error, Debug)]
pub enum StartError {
    /// The namespace is empty.
    #[error("--namespace must name the namespace of the populator")]
    Namespace,
}

/// Runs until `stop`.
pub async fn run(
    arguments: Arguments,
    _telemetry: &Telemetry,
    stop: CancellationToken,
) -> Result<(), Error> {
    if arguments.namespace.is_empty() {
        return Err(StartError::Namespace.into());
    }
    stop.cancelled().await;
    Ok(())
}
