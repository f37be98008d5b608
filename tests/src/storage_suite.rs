//! Kubernetes' own end-to-end suite for external storage, against the driver as `deploy/` installs
//! it: some hundred specs that provision, snapshot, clone and grow volumes under real pods.
//!
//! The suite skips what a driver does not declare, so everything that ours can do is declared
//! (`declaration`), and a run counts: fewer specs than expected are a failure as well.

mod declaration;
mod images;
mod left_out;
mod report;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::task::spawn_blocking;

pub use self::left_out::LeftOut;
pub use self::report::{Failed, Report};
use crate::{
    cluster::Cluster,
    product::{self, Form},
};

/// A spec is mostly waiting, so far more run beside each other than there are processors.
const AT_ONCE: u32 = 16;

/// On what kind of cluster the suite runs; each kind sees some of what the driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Everything: sidecars that know no nodes serve the only one.
    OneNode,
    /// Everything that finds the node of a volume by itself.
    TwoNodes,
    /// One node, with uses tracked by external-attacher.
    Attached,
}

impl Shape {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneNode => "one-node",
            Self::TwoNodes => "two-nodes",
            Self::Attached => "attached",
        }
    }

    fn form(self) -> Form {
        match self {
            Self::OneNode => Form::OneNode,
            Self::TwoNodes => Form::Snapshots,
            Self::Attached => Form::Attached,
        }
    }
}

/// A run of the suite.
#[derive(Clone, Debug)]
pub struct Run {
    /// The cluster.
    pub shape: Shape,
    /// Regular expressions of which a spec's full name matches one; none means every spec.
    pub focus: Vec<String>,
}

impl Run {
    /// Starts a cluster called `name`, installs the driver, runs the suite and takes the cluster
    /// away. Specs that fail are part of the report, not an error. Ginkgo's own report and output
    /// stay in `target/storage-suite/`.
    pub async fn on(&self, name: &str) -> Result<Report> {
        let cluster = Cluster::builder(name)
            .nodes(self.shape.form().nodes())
            .start()
            .await?;
        let report = self.against(&cluster).await;
        if report
            .as_ref()
            .is_ok_and(|report| report.failed().next().is_none())
        {
            cluster.stop().await?;
        } else {
            let described = cluster.describe_failure().await;
            fs::write(self.folder()?.join("cluster.txt"), described)?;
        }
        report
    }

    /// What is left out of it.
    pub fn left_out(&self) -> Result<Vec<LeftOut>> {
        left_out::of(self.shape)
    }

    async fn against(&self, cluster: &Cluster) -> Result<Report> {
        let form = self.shape.form();
        product::load_images(cluster, form).await?;
        images::load(cluster).await?;
        product::install(cluster, form).await?;
        let left_out = self.left_out()?;
        let folder = self.folder()?;
        let declaration = folder.join("driver.json");
        fs::write(&declaration, declaration::of(self.shape).to_string())?;

        let tools = cluster.tools();
        let mut ginkgo = cluster.state().command(&tools.built("ginkgo"));
        ginkgo
            .arg(format!("--procs={AT_ONCE}"))
            .args(["--no-color", "--silence-skips", "--timeout=2h"])
            .args(["--json-report=report.json", "--output-dir"])
            .arg(&folder);
        let every = [r"External.Storage".to_owned()];
        let focus = match self.focus.as_slice() {
            [] => &every[..],
            chosen => chosen,
        };
        ginkgo.args(focus.iter().map(|focus| format!("--focus={focus}")));
        ginkgo.args(
            left_out
                .iter()
                .map(|spec| format!("--skip={}", spec.pattern())),
        );
        ginkgo
            .arg(fs::canonicalize(tools.built("e2e.test"))?)
            .args(["--", "--provider=skeleton", "--dump-logs-on-failure=false"])
            .arg(format!("--storage.testdriver={}", declaration.display()))
            .arg(format!("--kubeconfig={}", cluster.kubeconfig().display()))
            .arg(format!(
                "--kubectl-path={}",
                tools.built("kubectl").display()
            ));
        let output = File::create(folder.join("output.txt"))?;
        ginkgo
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output);
        // It fails when a spec does; what went on is in its report, which only a crash keeps it
        // from writing.
        let file = folder.join("report.json");
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let status = spawn_blocking(move || ginkgo.status()).await??;
        ensure!(
            file.is_file(),
            "ginkgo ended ({status}) without a report: see {}",
            folder.join("output.txt").display()
        );
        let report = Report::read(&file)?;
        if self.focus.is_empty() {
            report.knows_all(&left_out)?;
        }
        Ok(report)
    }

    fn folder(&self) -> Result<PathBuf> {
        let folder = product::repository()
            .join("target/storage-suite")
            .join(self.shape.name());
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }
}
