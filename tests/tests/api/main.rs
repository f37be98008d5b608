//! The API and `deploy/` on a real API server: what it accepts and refuses, what kubectl shows, and
//! what the bearers of real tokens may and may not do. No pod ever runs.

mod agents;
mod choices;
mod grants;
mod manifests;
mod options;
mod request;
mod rights;
mod rules;
mod tables;
mod tenancy;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use serde_json::json;
use tests::cluster::Cluster;
use tests::product;
use tests::suite::Suite;

use crate::request::Request;

/// What every test of this suite uses; each keeps to names of its own.
pub struct World {
    cluster: Cluster,
    /// What kubectl printed when it applied `deploy/`.
    installed: String,
}

impl World {
    async fn start() -> Result<Self> {
        // Controllers run, since aggregating ClusterRoles and removing finalizers is theirs.
        let cluster = Cluster::builder("api").nodes(0).start().await?;
        let installed = apply_deploy(&cluster).await?;
        wait_for_kinds(&cluster).await?;
        Ok(Self { cluster, installed })
    }

    /// Makes a namespace.
    async fn namespace(&self, name: &str) -> Result<()> {
        let object = json!({"metadata": {"name": name}});
        self.make("/api/v1/namespaces", object).await
    }

    /// Makes an object, as the administrator, in the collection at `path`.
    async fn make(&self, path: &str, object: serde_json::Value) -> Result<()> {
        Request::post(path, object)
            .send(&self.cluster.client())
            .await?;
        Ok(())
    }
}

/// Applies `deploy/` as the README says, with warnings taken for errors.
async fn apply_deploy(cluster: &Cluster) -> Result<String> {
    let folder = product::repository().join("deploy");
    let folder = folder
        .to_str()
        .context("the repository's path is not UTF-8")?;
    let arguments = [
        "apply",
        "--validate=strict",
        "--warnings-as-errors",
        "-k",
        folder,
    ];
    cluster.kubectl(&arguments).await
}

/// Waits until every kind that was installed is served.
async fn wait_for_kinds(cluster: &Cluster) -> Result<()> {
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=30s",
    ];
    cluster.kubectl(&established).await.map(drop)
}

/// The tests, and the world that they share.
struct ApiSuite {
    suite: Suite,
    world: Arc<OnceLock<World>>,
}

impl ApiSuite {
    fn test<F>(&mut self, name: &str, test: F)
    where
        F: AsyncFnOnce(&World) -> Result<()> + Send + 'static,
    {
        let world = Arc::clone(&self.world);
        self.suite.test(name, move || async move {
            test(
                world
                    .get()
                    .context("the world is started before its tests")?,
            )
            .await
        });
    }
}

fn main() -> Result<ExitCode> {
    let mut suite = ApiSuite {
        suite: Suite::from_arguments()?,
        world: Arc::default(),
    };
    manifests::add(&mut suite);
    options::add(&mut suite);
    choices::add(&mut suite);
    rules::add(&mut suite);
    tables::add(&mut suite);
    tenancy::add(&mut suite);
    agents::add(&mut suite);
    rights::add(&mut suite);
    grants::add(&mut suite);
    let ApiSuite { suite, world } = suite;
    if !suite.only_lists() {
        let started = suite.block_on(World::start())?;
        world.set(started).ok().context("it is set once")?;
    }
    Ok(suite.run(|_| async move {
        match Arc::into_inner(world).and_then(OnceLock::into_inner) {
            Some(world) => world.cluster.stop().await,
            None => Ok(()),
        }
    }))
}
