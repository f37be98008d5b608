//! What archives are decrypted with, as the command line has it.

use std::path::{Path, PathBuf};

use archive::{Identities, Limits, Options};
use clap::Args;

use super::CommandError;

/// What archives are decrypted with.
#[derive(Args, Debug)]
pub struct Keys {
    /// A file with identities of age, as age-keygen writes it. Several are allowed
    #[arg(long, value_name = "FILE", help_heading = "Encrypted archives")]
    identity: Vec<PathBuf>,

    /// A file whose first line is the passphrase
    #[arg(long, value_name = "FILE", help_heading = "Encrypted archives")]
    passphrase_file: Option<PathBuf>,

    /// The highest work factor of a passphrase: n takes 2^n KiB of memory on top of --memory
    #[arg(long, value_name = "N", default_value_t = Limits::default().work_factor)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=24), help_heading = "Encrypted archives")]
    max_work_factor: u8,
}

impl Keys {
    /// The same options, and what these files hold.
    pub(super) fn add_to(&self, mut options: Options) -> Result<Options, CommandError> {
        let mut identities = Identities::default();
        for path in &self.identity {
            let added = identities.add_keys(&read(path)?);
            added.map_err(|source| invalid(path, source))?;
        }
        if let Some(path) = &self.passphrase_file {
            let set = identities.set_passphrase(&read(path)?);
            set.map_err(|source| invalid(path, source))?;
        }
        options.identities = identities;
        options.limits.work_factor = self.max_work_factor;
        Ok(options)
    }
}

fn read(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|source| CommandError::Secret {
        path: path.to_owned(),
        source,
    })
}

fn invalid(path: &Path, source: archive::IdentityError) -> CommandError {
    let path = path.to_owned();
    CommandError::Identity { path, source }
}
