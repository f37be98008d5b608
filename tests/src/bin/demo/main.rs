//! `make demo`: a PVC comes back from an S3 archive, on a real two-node Kubernetes that stays up
//! for a look around; `make demo-down` takes it away.
#![allow(clippy::print_stdout, reason = "talking to a person is what it is for")]

mod restore;
mod story;

use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use tests::{
    cluster::Cluster,
    product::{self, Form},
    s3::S3Server,
};

/// The name of the demo's cluster; the state folder of the harness is called so.
const NAME: &str = "demo";

/// A PVC comes back from an S3 archive, on real Kubernetes.
#[derive(Parser)]
enum Arguments {
    /// Starts everything, restores, and leaves the cluster up; replaces an earlier demo.
    Up,
    /// Takes everything away: processes, mounts, loop devices, namespaces, files.
    Down,
}

fn main() -> Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    match Arguments::parse() {
        Arguments::Up => up(),
        Arguments::Down => {
            Cluster::take_down(NAME)?;
            println!("The demo is gone; the build cache stays.");
            Ok(())
        }
    }
}

#[tokio::main]
async fn up() -> Result<()> {
    let begin = Instant::now();
    story::chapter("Starting a real two-node Kubernetes");
    let cluster = Cluster::builder(NAME).nodes(2).start().await?;
    println!("{}", cluster.kubectl(&["get", "nodes"]).await?);
    println!("ready after {:.1} s", begin.elapsed().as_secs_f64());

    story::chapter("Starting a real S3 server");
    let store = S3Server::beside(&cluster).await?;
    println!("versitygw at {}", store.endpoint());

    story::chapter("Making an archive of real files and uploading it");
    let sample = restore::upload(&store).await?;

    story::chapter("Installing driver and populator from deploy/");
    product::load_images(&cluster, Form::Plain).await?;
    product::install(&cluster, Form::Plain).await?;
    println!(
        "{}",
        cluster
            .kubectl(&["-n", product::NAMESPACE, "get", "pods", "-o", "wide"])
            .await?
    );

    let outcome = restore::run(&cluster, &store, &sample).await;
    if outcome.is_err() {
        println!("{}", cluster.describe_failure().await);
    }
    // Even after a failure the cluster is left for a look around.
    let kubeconfig = cluster.kubeconfig().to_owned();
    cluster.leave_running();
    outcome?;
    story::chapter("Look around");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!(
        "  alias kubectl={}",
        tests::tools::Tools::locate()?.built("kubectl").display()
    );
    println!("  kubectl get volumerestores,volumebackups,backupstores,pvc,pv");
    println!("\nTaking it away: make demo-down");
    Ok(())
}
