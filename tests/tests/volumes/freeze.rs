//! For how long writers had to wait, by the driver's own account.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};
use tests::{
    product::{self, NAMESPACE},
    shared::World,
};

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
    let text = metrics(world).await?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(METRIC)?.strip_prefix(' '))
        .with_context(|| format!("the driver does not tell {METRIC}"))?;
    let seconds: f64 = value.trim().parse().with_context(|| value.to_owned())?;
    ensure!(seconds > 0.0, "nothing was ever frozen");
    Ok(Duration::from_secs_f64(seconds))
}

/// Through the API server, as whoever may look into the driver's namespace can have them.
async fn metrics(world: &World) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), NAMESPACE);
    let only = ListParams::default().labels("app.kubernetes.io/name=driver");
    let drivers = pods.list(&only).await?;
    let name = drivers.items.first().context("no driver")?.name_any();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:9808/proxy/metrics");
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(world.cluster.client().request_text(request).await?)
}
