//! The `driver` program.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use driver::cli::{Arguments, Command, LogFormat};
use driver::flexvolume;
use driver::kernel::freezing;
use driver::server::{self, ServerError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A mistake in the settings; the same as clap's.
const CONFIGURATION: u8 = 2;

/// How long operations that still block may keep the process after everything else has ended.
const LAST_CALLS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::ThawGuard { words }) => {
            return match freezing::guard(words) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => refuse(&error, 1),
            };
        }
        Some(Command::FlexVolume { words }) => return flexvolume(words),
        None => {}
    }
    let settings = match arguments.settings() {
        Ok(settings) => settings,
        Err(mistake) => return refuse(&mistake, CONFIGURATION),
    };
    if let Err(mistake) = log(&arguments) {
        return refuse(&mistake, CONFIGURATION);
    }
    // Two crypto providers in one process would be a panic at the first connection; this one is
    // chosen before anything connects.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if provider.install_default().is_err() {
        return refuse(&"another TLS provider was installed first", 1);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("cannot start threads: {error}"), 1),
    };
    let result = runtime.block_on(async {
        let end = CancellationToken::new();
        end_by_signal(end.clone()).map_err(ServerError::Signals)?;
        server::run(settings, end).await
    });
    runtime.shutdown_timeout(LAST_CALLS);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_configuration() => refuse(&error, CONFIGURATION),
        Err(error) => refuse(&error, 1),
    }
}

/// Prints the answer and nothing else: kubelet reads both outputs as one.
fn flexvolume(words: &[String]) -> ExitCode {
    let answer = match flexvolume::run(words) {
        Ok(answer) => answer,
        Err(error) => return refuse(&format!("cannot start threads: {error}"), 1),
    };
    let printed = answer.json().map_err(io::Error::from);
    match printed.and_then(|json| writeln!(io::stdout(), "{json}")) {
        Ok(()) if answer.is_success() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => refuse(&error, 1),
    }
}

/// Says why on standard error, in the words of the error alone.
fn refuse(reason: &impl std::fmt::Display, code: u8) -> ExitCode {
    // Nobody may be reading, and then there is no one to tell.
    let _ = writeln!(std::io::stderr(), "error: {reason}");
    ExitCode::from(code)
}

/// Logs to standard error, as containers do.
fn log(arguments: &Arguments) -> Result<(), String> {
    let level = &arguments.log_level;
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("--log-level {level:?} is not a filter: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Cancels `end` at SIGTERM and SIGINT.
fn end_by_signal(end: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending; volumes stay mounted");
        end.cancel();
    });
    Ok(())
}
