//! Archives made by the tools that people use.

use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

pub const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// What a command writes to its standard output.
pub fn output(command: &mut Command) -> Vec<u8> {
    let done = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
    done.stdout
}

/// GNU tar of everything in `tree`.
pub fn tar(tree: &Path, options: &[&str]) -> Vec<u8> {
    output(
        Command::new("tar")
            .arg("-c")
            .args(options)
            .arg("-C")
            .arg(tree)
            .arg("."),
    )
}

/// What `program` makes of `bytes`.
pub fn filter(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let input = std::fs::File::open(file.path()).unwrap();
    output(Command::new(program).args(arguments).stdin(input))
}

pub fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => filter("gzip", &["-c"], bytes),
        Compression::Zstd => filter("zstd", &["-qc", "--check"], bytes),
    }
}
