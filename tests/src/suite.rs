//! A test program whose tests share what is expensive to start. `cargo test` shows them like any
//! others; unlike there, set-up and taking down are ours, so that a cluster is gone at the end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// The tests of a program, and the runtime that they run on.
pub struct Suite {
    runtime: Arc<Runtime>,
    arguments: Arguments,
    trials: Vec<Trial>,
}

impl Suite {
    /// Reads the command line of `cargo test`. Tests run one after the other unless it says
    /// otherwise: most measure or break something that they share.
    pub fn from_arguments() -> Result<Self> {
        // Nobody compiles two providers in, but rustls wants to be told.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(1);
        // The client calls every answer an error that waiting for something begins with.
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("error,kube_client=off"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        Ok(Self {
            runtime: Arc::new(Runtime::new()?),
            arguments,
            trials: Vec::new(),
        })
    }

    /// Whether the command line only asks for the tests' names, so that nothing need be started.
    pub fn only_lists(&self) -> bool {
        self.arguments.list
    }

    /// Runs a future to its end, for set-up and taking down.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Tests run beside each other, so many at once, unless the command line says otherwise.
    pub fn at_once(&mut self, tests: usize) {
        if Arguments::from_args().test_threads.is_none() {
            self.arguments.test_threads = Some(tests);
        }
    }

    /// Adds a test.
    pub fn test<F, Fut>(&mut self, name: &str, test: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        let runtime = Arc::clone(&self.runtime);
        self.trials.push(Trial::test(name, move || {
            runtime
                .block_on(test())
                .map_err(|error| format!("{error:#}").into())
        }));
    }

    /// Runs the tests and then `finish`, which takes down what they shared and is told whether all
    /// passed.
    pub fn run<Fut>(mut self, finish: impl FnOnce(bool) -> Fut) -> ExitCode
    where
        Fut: Future<Output = Result<()>>,
    {
        let conclusion = libtest_mimic::run(&self.arguments, std::mem::take(&mut self.trials));
        match self.runtime.block_on(finish(!conclusion.has_failed())) {
            Ok(()) => conclusion.exit_code(),
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
