//! What the tests of one suite share: a cluster with the product on it, and an S3 server.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};

use crate::{
    cluster::Cluster,
    product::{self, Form},
    s3::{S3Server, fault::FaultProxy},
    suite::Suite,
    tenant::Tenant,
};

/// A cluster with the product installed, and an S3 server that its pods reach.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// The server.
    pub server: S3Server,
}

impl World {
    /// Starts all of it; `name` is the cluster's.
    pub async fn start(name: &str, form: Form) -> Result<Self> {
        let mut builder = Cluster::builder(name)
            .nodes(form.nodes())
            .feature_gates(form.feature_gates());
        if let Some(limits) = form.client_limits() {
            builder = builder.client_limits(limits);
        }
        let cluster = builder.start().await?;
        let server = S3Server::beside(&cluster).await?;
        product::load_images(&cluster, form).await?;
        product::install(&cluster, form).await?;
        Ok(Self { cluster, server })
    }

    /// A tenant whose store is the server itself.
    pub async fn tenant(&self, name: &str) -> Result<Tenant<'_>> {
        Tenant::create(&self.cluster, &self.server, &self.server.endpoint(), name).await
    }

    /// A tenant that reads the server through something that can be made to fail.
    pub async fn tenant_through(&self, faults: &FaultProxy, name: &str) -> Result<Tenant<'_>> {
        Tenant::create(&self.cluster, &self.server, &faults.endpoint(), name).await
    }
}

/// A suite whose tests share a [`World`].
pub struct SharedSuite {
    suite: Suite,
    world: Arc<OnceLock<World>>,
}

impl SharedSuite {
    /// Reads the command line of `cargo test` and starts the world, unless only names are asked for.
    pub fn start(name: &str, form: Form) -> Result<Self> {
        let suite = Suite::from_arguments()?;
        let world = Arc::new(OnceLock::new());
        if !suite.only_lists() {
            let started = suite.block_on(World::start(name, form))?;
            world.set(started).ok().context("it is set once")?;
        }
        Ok(Self { suite, world })
    }

    /// Tests run beside each other, so many at once; each keeps to names of its own.
    #[must_use]
    pub fn at_once(mut self, tests: usize) -> Self {
        self.suite.at_once(tests);
        self
    }

    /// Adds a test.
    pub fn test<F>(&mut self, name: &str, test: F)
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

    /// Runs the tests, tells what there is to see if one failed, and takes the world away.
    pub fn run(self) -> std::process::ExitCode {
        self.run_then(async |_| Ok(()))
    }

    /// [`SharedSuite::run`] with a last look at the world after the tests.
    pub fn run_then<F>(self, look: F) -> std::process::ExitCode
    where
        F: AsyncFnOnce(&World) -> Result<()>,
    {
        let world = self.world;
        self.suite.run(|passed| async move {
            let Some(world) = Arc::into_inner(world).and_then(OnceLock::into_inner) else {
                return Ok(());
            };
            if !passed {
                tracing::error!("{}", world.cluster.describe_failure().await);
            }
            let looked = look(&world).await;
            world.server.stop().await?;
            world.cluster.stop().await?;
            looked
        })
    }
}
