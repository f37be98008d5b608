//! Who shall own what is restored, and what of it may give rights, as the command line has it.

use std::fs;

use archive::{Labels, Map, Names, Options, Ownership, Privileges};
use clap::Args;

use super::CommandError;

/// Where this system says who has which name (passwd(5), group(5)).
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Owners and rights.
#[derive(Args, Debug)]
#[command(next_help_heading = "Owners and rights")]
pub struct Owners {
    /// Give each file to who has its owner's name here, in /etc/passwd and /etc/group. Without this, and
    /// where nobody has the name, the archive's numbers count
    #[arg(long = "owners-by-name", conflicts_with_all = ["map_user", "map_group", "owner"])]
    by_name: bool,

    /// Put another user in place of one of the archive: FROM:TO, or FIRST-LAST:TO for a range that moves as
    /// a whole, such as 1000-1999:5000. Several are allowed; ACLs follow
    #[arg(long, value_name = "FROM:TO", conflicts_with = "owner")]
    map_user: Vec<String>,

    /// The same for groups
    #[arg(long, value_name = "FROM:TO", conflicts_with = "owner")]
    map_group: Vec<String>,

    /// Give everything to this user and this group, by number
    #[arg(long, value_name = "UID:GID", value_parser = Ownership::one)]
    owner: Option<Ownership>,

    /// Leave out setuid and setgid of files, and file capabilities
    #[arg(long)]
    no_setuid: bool,

    /// Restore SELinux labels too
    #[arg(long)]
    selinux: bool,
}

impl Owners {
    /// Adds them to `options`.
    pub(super) fn choose(&self, options: &mut Options) -> Result<(), CommandError> {
        options.ownership = self.ownership()?;
        if self.no_setuid {
            options.privileges = Privileges::Drop;
        }
        if self.selinux {
            options.labels = Labels::Restore;
        }
        Ok(())
    }

    fn ownership(&self) -> Result<Ownership, CommandError> {
        if let Some(one) = &self.owner {
            return Ok(one.clone());
        }
        if self.by_name {
            return Ok(Ownership::Names(Names::parse(
                &read(USERS)?,
                &read(GROUPS)?,
            )));
        }
        if self.map_user.is_empty() && self.map_group.is_empty() {
            return Ok(Ownership::Numbers);
        }
        Ok(Ownership::Map(Map::parse(&self.map_user, &self.map_group)?))
    }
}

fn read(path: &'static str) -> Result<Vec<u8>, CommandError> {
    fs::read(path).map_err(|source| CommandError::Accounts { path, source })
}
