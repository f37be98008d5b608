//! Running a program to its end, with an error that says what it said.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `command` to its end and returns its standard output. An exit code other than zero is an
/// error that carries the command line and its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    run_reading(command, Stdio::null())
}

/// [`run`], with standard input from `input`.
pub fn run_reading(command: &mut Command, input: impl Into<Stdio>) -> Result<String> {
    let line = describe(command);
    let output = command
        .stdin(input)
        .output()
        .with_context(|| format!("{line}: cannot be started"))?;
    finish(&line, &output)
}

/// [`run`], with these bytes on standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let line = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{line}: cannot be started"))?;
    let mut stdin = child.stdin.take().context("standard input was asked for")?;
    let output = std::thread::scope(|scope| {
        // Beside the reading: a program that answers before it has read everything would block.
        // One that ends without reading is judged by its exit code.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output()
    })
    .with_context(|| format!("{line}: cannot be waited for"))?;
    finish(&line, &output)
}

/// [`run`] of `program` with `arguments`.
pub fn run_program<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    run(Command::new(program).args(arguments))
}

fn finish(line: &str, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{line}: {}: {} {}",
        output.status,
        stderr.trim(),
        stdout.trim()
    );
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}
