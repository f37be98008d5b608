//! Archives made by the tools that people use.

use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Lz4,
}

/// Those with a checksum of their own.
pub const CHECKED: [Compression; 5] = [
    Compression::Gzip,
    Compression::Zstd,
    Compression::Xz,
    Compression::Bzip2,
    Compression::Lz4,
];

pub const ALL: [Compression; 6] = [
    Compression::None,
    Compression::Gzip,
    Compression::Zstd,
    Compression::Xz,
    Compression::Bzip2,
    Compression::Lz4,
];

impl Compression {
    /// How many bytes tell that it is this one.
    pub fn magic(self) -> usize {
        match self {
            Self::None => 512,
            Self::Gzip => 2,
            Self::Bzip2 => 3,
            Self::Zstd | Self::Lz4 => 4,
            Self::Xz => 6,
        }
    }
}

/// What a command writes to its standard output.
pub fn output(command: &mut Command) -> Vec<u8> {
    // bsdtar leaves out what it cannot spell in the character set of the locale.
    command.env("LC_ALL", "C.UTF-8");
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
        Compression::Xz => filter("xz", &["-1c"], bytes),
        Compression::Bzip2 => filter("bzip2", &["-c"], bytes),
        Compression::Lz4 => filter("lz4", &["-qc"], bytes),
    }
}
