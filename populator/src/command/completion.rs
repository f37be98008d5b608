//! `populator completion`.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::CommandError;
use crate::cli::Cli;

/// Which shell.
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell that is to complete what you type, for example: source <(populator completion bash)
    pub shell: Shell,
}

/// Prints what the shell has to read.
pub fn completion(wanted: &Completion) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(wanted.shell, &mut Cli::command(), "populator", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
