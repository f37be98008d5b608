//! The `populator` program.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use populator::cli::{self, Cli, Command};
use populator::command::{self, CommandError};
use populator::telemetry::Telemetry;
use populator::{agent, controller};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two crypto providers in one process would be a panic at the first connection; this one is
    // chosen before anything connects.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return refuse(&"another TLS provider was installed first");
    }
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => refuse(&format!("threads cannot be started: {error}")),
    }
}

async fn run(cli: Cli) -> ExitCode {
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(stop.clone()) {
        return refuse(&format!("signals cannot be handled: {error}"));
    }
    let http = cli.command.http_address();
    let telemetry = match Telemetry::start(&cli.common, http, stop.clone()).await {
        Ok(telemetry) => telemetry,
        Err(error) => return refuse(&error),
    };
    match cli.command {
        Command::Controller(arguments) => {
            match controller::run(arguments, &telemetry, stop).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(controller::Error::Start(error)) => refuse(&error),
                Err(error) => {
                    tracing::error!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Command::Agent(arguments) => match agent::run(arguments, &telemetry, stop).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&error),
        },
        Command::Restore(wanted) => ended(command::restore(*wanted, stop).await),
        Command::Verify(wanted) => ended(command::verify(wanted, stop).await),
        Command::Pack(wanted) => ended(command::pack(wanted, stop).await),
        Command::Inspect(wanted) => ended(command::inspect(wanted, stop).await),
        Command::Completion(wanted) => ended(command::completion(&wanted)),
    }
}

fn ended(result: Result<(), CommandError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn refuse(why: &dyn std::fmt::Display) -> ExitCode {
    complain(why);
    cli::refused()
}

/// One sentence on standard error, whatever the log level is.
fn complain(why: &dyn std::fmt::Display) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(std::io::stderr(), "populator: {why}");
}

fn stop_on_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
