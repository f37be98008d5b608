//! The command line of the program `populator`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{agent, command, controller};

/// Fills Kubernetes volumes from archives in object storage, without a pod.
#[derive(Parser, Debug)]
#[command(
    name = "populator",
    version,
    propagate_version = true,
    after_help = "Exit status: 0 done, or stopped as asked; 1 failed; 2 refused to start."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What all share.
    #[command(flatten)]
    pub common: Common,
}

/// What it can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Watches PVCs, pins archives, writes orders and makes PersistentVolumes (one leader)
    Controller(controller::Arguments),
    /// Makes and fills the volumes of one node, as its orders say (one on each node)
    Agent(agent::Arguments),
    /// Restores an archive into a directory, or the image of a disk onto one, without Kubernetes
    Restore(Box<command::Restore>),
    /// Reads an archive and says whether it is whole; nothing is written
    Verify(command::Verify),
    /// Packs a directory into an archive with an index, a .tar.zst that tar reads too
    Pack(command::Pack),
    /// Says what an object is, and lists what is in it
    Inspect(command::Inspect),
    /// Prints what a shell needs to complete this command line
    Completion(command::Completion),
}

impl Command {
    /// Where it serves its health and metrics: only the parts of the service do, a person's commands
    /// do not.
    pub fn http_address(&self) -> HttpAddress {
        match self {
            Self::Controller(arguments) => arguments.serving.http_address,
            Self::Agent(arguments) => arguments.serving.http_address,
            Self::Restore(_)
            | Self::Verify(_)
            | Self::Pack(_)
            | Self::Inspect(_)
            | Self::Completion(_) => HttpAddress::Off,
        }
    }
}

/// Flags of all.
#[derive(Args, Debug)]
pub struct Common {
    /// How log lines are written to standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Which log lines are written, for example `info` or `populator=debug,warn`
    #[arg(long, global = true, default_value = "info", env = "LOG_LEVEL")]
    pub log_level: String,
}

/// Flags of the parts of the service.
#[derive(Args, Debug, Clone)]
pub struct Serving {
    /// Where /healthz and /metrics are served, or `off`
    #[arg(long, default_value = "0.0.0.0:8080", env = "HTTP_ADDRESS", value_parser = http_address)]
    pub http_address: HttpAddress,
}

/// The form of log lines.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where to serve HTTP, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// Nowhere.
    Off,
    /// At this address.
    On(SocketAddr),
}

fn http_address(text: &str) -> Result<HttpAddress, String> {
    if text == "off" {
        return Ok(HttpAddress::Off);
    }
    text.parse().map(HttpAddress::On).map_err(|_| {
        "it must be ADDRESS:PORT, for example 0.0.0.0:8080 or [::1]:8080, or off".to_owned()
    })
}

/// Bytes, as Kubernetes writes them.
pub(crate) fn quantity(text: &str) -> Result<u64, String> {
    crate::units::quantity(text).ok_or_else(|| "it must be a quantity, for example 10Gi".to_owned())
}

/// Exit status for a program that refused to start.
pub const REFUSED: u8 = 2;

/// `REFUSED` as `main` returns it.
pub fn refused() -> ExitCode {
    ExitCode::from(REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_the_service_serves() {
        for (words, shown) in [
            ("controller", true),
            ("agent", true),
            ("restore", false),
            ("verify", false),
            ("pack", false),
            ("inspect", false),
        ] {
            let mut cli = Cli::command();
            let command = cli.find_subcommand_mut(words).unwrap();
            let help = command.render_long_help().to_string();
            assert_eq!(help.contains("--http-address"), shown, "{help}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(http_address("off"), Ok(HttpAddress::Off));
        assert!(matches!(
            http_address("127.0.0.1:1"),
            Ok(HttpAddress::On(_))
        ));
        assert!(http_address("8080").is_err());
    }
}
