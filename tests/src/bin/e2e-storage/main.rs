//! `make e2e-storage`: Kubernetes' own end-to-end suite for external storage, every spec of it, on
//! each kind of cluster.
#![allow(
    clippy::print_stdout,
    reason = "telling what came of it is what it is for"
)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use tests::storage_suite::{Run, Shape};

/// Kubernetes' own end-to-end suite for external storage.
#[derive(Parser)]
struct Arguments {
    /// Only on this kind of cluster
    #[arg(long, value_enum)]
    on: Option<Shape>,
    /// Only specs whose full name matches this regular expression
    #[arg(long)]
    focus: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let shapes = match arguments.on {
        Some(shape) => vec![shape],
        None => vec![Shape::OneNode, Shape::TwoNodes, Shape::Attached],
    };
    let mut failed = 0;
    for shape in shapes {
        let focus = arguments.focus.clone();
        let begin = Instant::now();
        let run = Run { shape, focus };
        let report = run.on(&format!("storage-{}", shape.name())).await?;
        println!(
            "\n{} ({:.0} s)",
            shape.name(),
            begin.elapsed().as_secs_f64()
        );
        print!("{report}");
        for spec in run.left_out()? {
            println!("  left out: {}: {}", spec.spec, spec.why);
        }
        for (spec, time) in report.slowest(5) {
            println!("  {:>4.0} s: {spec}", time.as_secs_f64());
        }
        failed += report.failed().count();
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
