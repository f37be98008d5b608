//! The harness itself: what it starts really runs, and what it stops is really gone.
#![allow(
    clippy::print_stdout,
    reason = "how long a start took is for people to read"
)]

mod running;
mod taking_down;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use tests::cluster::Cluster;
use tests::image::Image;
use tests::suite::Suite;

use crate::running::{
    audit_log_counts, kubelet_comes_back, mounts_for_its_node, pods_reach_it, s3_serves,
    starts_in_time,
};
use crate::taking_down::{killed_and_taken_down, machine, nothing_left, stands_beside, victim};

const NAME: &str = "harness";
const SHELL: &str = "docker.io/library/busybox:1.35";
/// When set, this program only starts a cluster of this name and waits to be killed.
const VICTIM: &str = "HARNESS_VICTIM";
const SOON: Duration = Duration::from_secs(60);

fn main() -> Result<ExitCode> {
    if let Ok(name) = std::env::var(VICTIM) {
        return victim(&name);
    }
    let mut suite = Suite::from_arguments()?;
    if suite.only_lists() {
        add_tests(&mut suite, None);
        return Ok(suite.run(|_| async { Ok(()) }));
    }
    let before = machine()?;
    let started = Instant::now();
    let cluster = suite.block_on(async {
        let cluster = Cluster::builder(NAME).nodes(2).start().await?;
        let started = started.elapsed();
        cluster.load(Image::busybox(SHELL)?).await?;
        anyhow::Ok(Shared { cluster, started })
    })?;
    let shared = Arc::new(cluster);
    add_tests(&mut suite, Some(&shared));
    Ok(suite.run(|passed| async move {
        if !passed {
            tracing::error!("{}", shared.cluster.describe_failure().await);
        }
        let shared = Arc::into_inner(shared).context("a test still runs")?;
        let addresses = shared.cluster.state().addresses();
        shared.cluster.stop().await?;
        nothing_left(NAME, addresses, &before)
    }))
}

/// What the tests share.
struct Shared {
    cluster: Cluster,
    started: Duration,
}

type Test = for<'a> fn(&'a Shared) -> BoxFuture<'a, Result<()>>;

fn add_tests(suite: &mut Suite, shared: Option<&Arc<Shared>>) {
    let tests: [(&str, Test); 6] = [
        ("a cluster starts within 30 seconds", |shared| {
            Box::pin(starts_in_time(shared))
        }),
        ("pods on every node reach the API server", |shared| {
            Box::pin(pods_reach_it(shared))
        }),
        ("a privileged pod mounts for its node", |shared| {
            Box::pin(mounts_for_its_node(shared))
        }),
        ("the audit log counts", |shared| {
            Box::pin(audit_log_counts(shared))
        }),
        ("a killed kubelet comes back", |shared| {
            Box::pin(kubelet_comes_back(shared))
        }),
        ("the S3 server serves and fails on demand", |shared| {
            Box::pin(s3_serves(shared))
        }),
    ];
    for (name, test) in tests {
        let shared = shared.cloned();
        suite.test(name, move || async move {
            let shared = shared.context("no cluster was started")?;
            test(&shared).await
        });
    }
    suite.test("a second cluster stands beside the first", stands_beside);
    suite.test(
        "after kill -9 of everything nothing is left",
        killed_and_taken_down,
    );
}
