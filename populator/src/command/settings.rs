//! What `restore` and `verify` can be told about the reading of an archive.

use archive::{Budget, Limits, Options, Verified};
use clap::{Args, ValueEnum};

use crate::cli::quantity;
use crate::units;

/// How to read.
#[derive(Args, Debug)]
pub struct Settings {
    /// The SHA-256 that the object must have, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<[u8; 32]>,

    /// Fail unless at least this says that the data are right
    #[arg(long, value_enum, value_name = "HOW")]
    require_verified: Option<Required>,

    /// The most entries that the archive may have
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_entries: Option<u64>,

    /// The most bytes in a name
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_name: Option<usize>,

    /// The most bytes of extended headers of an entry [default: 1Mi]
    #[arg(long, value_name = "QUANTITY", value_parser = quantity, help_heading = "Limits")]
    max_headers: Option<u64>,

    /// The most bytes of the unpacked archive
    #[arg(long, value_name = "QUANTITY", value_parser = quantity, help_heading = "Limits")]
    max_unpacked: Option<u64>,

    /// The most unpacked bytes for each stored one, from 16 MiB on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(help_heading = "Limits")]
    max_ratio: Option<u64>,

    /// Memory for buffers; windows of zstd, xz and lz4 above 4Mi come on top, 128Mi at most
    #[arg(long, value_name = "QUANTITY", default_value = "64Mi", value_parser = memory)]
    memory: u64,
}

/// How far data can be verified.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Required {
    /// The format's own checksums
    Stream,
    /// The digests of an archive that `pack` made
    PerFile,
    /// The SHA-256 that is given
    Sha256,
}

impl Settings {
    pub(super) fn options(&self) -> Options {
        Options {
            sha256: self.sha256,
            required: match self.require_verified {
                None => Verified::None,
                Some(Required::Stream) => Verified::Stream,
                Some(Required::PerFile) => Verified::PerFile,
                Some(Required::Sha256) => Verified::Sha256,
            },
            limits: self.limits(),
            ..Options::new(Budget::new(self.memory))
        }
    }

    fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            entries: self.max_entries.unwrap_or(default.entries),
            name: self.max_name.unwrap_or(default.name),
            headers: self.max_headers.unwrap_or(default.headers),
            unpacked: self.max_unpacked.unwrap_or(default.unpacked),
            ratio: self.max_ratio.unwrap_or(default.ratio),
            ..default
        }
    }
}

fn sha256(text: &str) -> Result<[u8; 32], String> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest)
        .map_err(|_| "it must be 64 hexadecimal digits, as sha256sum prints them".to_owned())?;
    Ok(digest)
}

pub(super) fn memory(text: &str) -> Result<u64, String> {
    units::quantity(text)
        .filter(|bytes| *bytes >= Budget::MIN)
        .ok_or_else(|| {
            let least = Budget::MIN >> 20;
            format!("it must be a quantity of at least {least}Mi, for example 64Mi")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(sha256(&"0f".repeat(32)), Ok([15; 32]));
        assert!(sha256("0f").is_err() && sha256(&"g".repeat(64)).is_err());
        assert_eq!(memory("64Mi"), Ok(64 << 20));
        assert!(memory("1Mi").is_err() && memory("much").is_err());
    }
}
