//! For how long writers had to wait, by the driver's own account.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::{metrics::Metrics, product, shared::World};

const METRIC: &str = "fastcopy_longest_freeze_seconds";

/// The longest time for which a file system was frozen. The driver keeps it in memory, so it must
/// not have been started again; and something was frozen, or the suite did not test what it says.
pub async fn longest(world: &World) -> Result<Duration> {
    let containers = product::containers(&world.cluster).await?;
    let driver = containers.iter().find(|each| each.name == "driver");
    let restarts = driver.context("the driver does not run")?.restarts;
    ensure!(
        restarts == 0,
        "the driver was started again {restarts} times"
    );
    let driver = "app.kubernetes.io/name=driver";
    let metrics = Metrics::of_pods(&world.cluster.client(), driver, 9808).await?;
    let seconds = metrics.first().and_then(|it| it.sum(METRIC, &[]));
    let seconds = seconds.with_context(|| format!("the driver does not tell {METRIC}"))?;
    ensure!(seconds > 0.0, "nothing was ever frozen");
    Ok(Duration::from_secs_f64(seconds))
}
