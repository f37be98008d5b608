//! What came of a run, from ginkgo's report.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::LeftOut;

/// What came of every spec.
#[derive(Debug)]
pub struct Report {
    specs: Vec<Spec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    /// Null for what surrounds the specs.
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    /// In nanoseconds.
    run_time: u64,
    failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

impl Spec {
    fn name(&self) -> String {
        let containers = self.container_hierarchy_texts.iter().flatten();
        let mut words: Vec<_> = containers.map(String::as_str).collect();
        words.push(&self.leaf_node_text);
        words.join(" ")
    }

    /// What the suite itself said when it skipped the spec; none where it was not chosen.
    fn skipped(&self) -> Option<&str> {
        let skipped = self.state == "skipped";
        let said = self.failure.as_ref().filter(|_| skipped)?;
        Some(said.message.trim())
    }
}

/// A spec that failed.
#[derive(Debug)]
pub struct Failed {
    /// Its full name.
    pub name: String,
    /// What it said.
    pub message: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The suite likes to show whole objects; its report has all of it.
        let mut lines = self.message.lines();
        formatter.write_str(&self.name)?;
        for line in lines.by_ref().take(8) {
            write!(formatter, "\n    {line}")?;
        }
        let more = lines.count();
        if more > 0 {
            write!(formatter, "\n    and {more} more lines in report.json")?;
        }
        Ok(())
    }
}

impl Report {
    /// Reads what ginkgo wrote.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let reader = BufReader::new(File::open(file)?);
        let suites: Vec<Suite> =
            serde_json::from_reader(reader).with_context(|| file.display().to_string())?;
        let specs = suites
            .into_iter()
            .flat_map(|suite| suite.spec_reports)
            .collect();
        Ok(Self { specs })
    }

    /// How many specs passed.
    pub fn passed(&self) -> usize {
        self.its().filter(|spec| spec.state == "passed").count()
    }

    /// Every spec that did not pass, and what of the suite's own set-up failed.
    pub fn failed(&self) -> impl Iterator<Item = Failed> + '_ {
        let fine = ["passed", "skipped", "pending"];
        let failed = self
            .specs
            .iter()
            .filter(move |spec| !fine.contains(&&*spec.state));
        failed.map(|spec| Failed {
            name: spec.name(),
            message: match &spec.failure {
                Some(failure) => failure.message.clone(),
                None => format!("{}, without a word", spec.state),
            },
        })
    }

    /// Why specs that were chosen did not run after all, and how many for each reason.
    pub fn skipped(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for reason in self.its().filter_map(Spec::skipped) {
            *reasons.entry(reason).or_default() += 1;
        }
        reasons
    }

    /// The specs that took longest.
    pub fn slowest(&self, count: usize) -> Vec<(String, Duration)> {
        let ran = self.its().filter(|spec| spec.state == "passed");
        let mut times: Vec<_> = ran
            .map(|spec| (spec.name(), Duration::from_nanos(spec.run_time)))
            .collect();
        times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        times.truncate(count);
        times
    }

    /// An error where what is to be left out does not exist: the list is then out of date.
    pub(super) fn knows_all(&self, left_out: &[LeftOut]) -> Result<()> {
        let names: Vec<_> = self.its().map(Spec::name).collect();
        for LeftOut { spec, .. } in left_out {
            ensure!(
                names.iter().any(|name| name.contains(spec)),
                "no spec is called {spec:?}: take it from left-out.yaml"
            );
        }
        Ok(())
    }

    fn its(&self) -> impl Iterator<Item = &Spec> {
        self.specs.iter().filter(|spec| spec.leaf_node_type == "It")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.skipped();
        let failed: Vec<_> = self.failed().collect();
        writeln!(
            formatter,
            "{} passed, {} failed, {} skipped by the suite",
            self.passed(),
            failed.len(),
            skipped.values().sum::<usize>()
        )?;
        for failed in failed {
            writeln!(formatter, "  FAILED {failed}")?;
        }
        for (reason, count) in skipped {
            writeln!(formatter, "  skipped {count:>3}: {reason}")?;
        }
        Ok(())
    }
}
