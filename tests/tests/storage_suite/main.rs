//! Kubernetes' own end-to-end suite for external storage, in the form that fits among the other
//! tests; `make e2e-storage` runs all of it.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tests::storage_suite::{Run, Shape};
use tests::suite::Suite;

/// A few specs of everything: together they make each call that kubelet and the sidecars make.
const SHORT: [&str; 14] = [
    r"Dynamic PV .(default fs|xfs|block volmode)..*volumes should store data",
    r"Dynamic PV .(default fs|block volmode)..*should provision storage with (snapshot|pvc) data source( .Feature|$)",
    r"Dynamic PV .default fs..*restoring snapshot to larger size pvc",
    r"Dynamic Snapshot .delete policy.*snapshottable .*check deletion .persistent",
    r"Dynamic PV .(default fs|xfs|block volmode).*Verify if offline PVC expansion works",
    r"Dynamic PV .xfs.*should resize volume when PVC is edited while pod is using it",
    r"Dynamic PV .(default fs|block volmode).*volume-modify .*should modify volume with no VAC",
    r"Testpattern:  .delete policy.. volumegroupsnapshottable ",
    r"Dynamic PV .default fs.*should block a second pod from using an in-use ReadWriteOncePod",
    r"Dynamic PV .default fs.*provides storage capacity information",
    r"Dynamic PV .default fs.*subPath should support existing directory",
    r"Dynamic PV .default fs.*OnRootMismatch.*skips ownership changes",
    r"Generic Ephemeral-volume .default fs.*late-binding.*should create read/write inline",
    r"Dynamic PV .filesystem volmode.*should not mount . map unused volumes",
];

/// How many specs that is, so that none goes missing unseen.
const EXPECTED: usize = 21;

fn main() -> Result<ExitCode> {
    let mut suite = Suite::from_arguments()?;
    suite.test("the_short_form_passes_on_one_node", || async {
        let focus = SHORT
            .map(|spec| format!("External.Storage.*{spec}"))
            .to_vec();
        let shape = Shape::OneNode;
        let report = Run { shape, focus }.on("storage-suite").await?;
        ensure!(report.failed().next().is_none(), "{report}");
        ensure!(report.passed() >= EXPECTED, "too few specs ran: {report}");
        Ok(())
    });
    Ok(suite.run(|_| async { Ok(()) }))
}
