//! The commands that people run by hand: the archive engine without Kubernetes.

mod bar;
mod completion;
mod inspect;
mod keys;
mod owners;
mod pack;
mod place;
mod restore;
mod settings;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

use archive::{IdentityError, OwnershipError, PackError, RestoreError, SelectionError};

use crate::store::OpenError;

pub use completion::{Completion, completion};
pub use inspect::{Inspect, inspect};
pub use pack::{Pack, pack};
pub use restore::{Restore, restore};
pub use verify::{Verify, verify};

/// Why a command failed, in one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// What was asked for makes no sense.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The same of owners.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// Nobody knows who has which name.
    #[error("{path} cannot be read: {source}; make it readable, or leave --owners-by-name out")]
    Accounts {
        /// The table of users or that of groups.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a secret cannot be read.
    #[error("{} cannot be read: {source}; correct its name or its permissions", path.display())]
    Secret {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{}: {source}", path.display())]
    Identity {
        /// As given.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The object cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is not whole.
    #[error(transparent)]
    Archive(#[from] RestoreError),
    /// It was not restored, or not as a whole.
    #[error("{source}{}", leavings(source, target, *begun, *goes_on))]
    Restore {
        /// Why.
        source: RestoreError,
        /// Where to.
        target: PathBuf,
        /// Whether something of it is there.
        begun: bool,
        /// Whether there is a checkpoint to go on from.
        goes_on: bool,
    },
    /// It was not made.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The directory to pack.
    #[error("{}: {source}; name a directory that can be read", path.display())]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory to restore into.
    #[error("{}: {source}; name a directory that can be made or is empty", path.display())]
    Directory {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The device or the file to restore into.
    #[error(
        "{}: {source}; an image goes onto a block device that nothing uses, or with --image into a file \
         that is not there yet (or may go: --existing overwrite)",
        path.display()
    )]
    Image {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An image has no entries.
    #[error("{flag} is for the entries of an archive, and an image has none; leave it out")]
    NoEntries {
        /// What was given.
        flag: &'static str,
    },
    /// Nobody reads what is printed.
    #[error("nothing can be printed: {0}")]
    Output(#[from] io::Error),
    /// A bug.
    #[error("the command ended by a bug: {0}")]
    Died(#[from] tokio::task::JoinError),
}

fn leavings(source: &RestoreError, target: &Path, begun: bool, goes_on: bool) -> String {
    let shown = target.display();
    if matches!(source, RestoreError::VolumeNotEmpty { .. }) {
        ", or choose --existing=keep or --existing=overwrite".to_owned()
    } else if begun && goes_on {
        format!(" ({shown} holds a part of it: the same command goes on with that)")
    } else if begun {
        format!(" ({shown} holds a part of it: delete that)")
    } else {
        String::new()
    }
}
