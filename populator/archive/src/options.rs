//! What a caller may choose.

use std::sync::Arc;

use crate::budget::Budget;
use crate::checkpoint::Checkpoints;
use crate::fetch::Fetching;
use crate::identity::Identities;
use crate::limits::Limits;
use crate::outcome::Verified;
use crate::ownership::Ownership;
use crate::selection::Selection;

/// How to restore.
#[derive(Debug, Clone)]
pub struct Options {
    /// The memory that this restore shares with the others of the process.
    pub budget: Arc<Budget>,
    /// How to read from the store; less than this where the budget is small.
    pub fetching: Fetching,
    /// What encrypted archives are opened with.
    pub identities: Identities,
    /// What to do about device nodes in the archive.
    pub devices: Devices,
    /// Which entries are restored, and under which names.
    pub selection: Selection,
    /// Who owns what is restored.
    pub ownership: Ownership,
    /// What to do about setuid and the like.
    pub privileges: Privileges,
    /// What to do about SELinux labels.
    pub labels: Labels,
    /// What to do about files that are there before.
    pub existing: Existing,
    /// The most that the archive may have.
    pub limits: Limits,
    /// Whether it is a failure that something in the archive cannot be restored, such as an attribute
    /// that the file system does not take. Otherwise it is told in [`Outcome::lost`](crate::Outcome).
    pub strict: bool,
    /// Whether the restore can be interrupted and go on.
    pub checkpoints: Option<Checkpoints>,
    /// The SHA-256 that the stored object has to have.
    pub sha256: Option<[u8; 32]>,
    /// How far the data have to be verified; what is less fails the restore.
    pub required: Verified,
    /// The most bytes that the image of a disk may have in a file, however many of them are holes: whoever uses
    /// it as a disk will fill them. Without it, that is for the file system to say when it is full.
    pub image_room: Option<u64>,
}

/// What to do about character and block devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// They fail the restore: whoever can open a device node in a volume has the device.
    Refuse,
    /// They are made.
    Create,
}

/// What to do about that by which a program has more rights than who runs it: setuid, setgid (but of
/// directories, where it only tells the group of what is made in them) and file capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// They are restored.
    Keep,
    /// They are left out, which [`Outcome::omitted`](crate::Outcome) tells.
    Drop,
}

/// What to do about SELinux labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// They are left out, which [`Outcome::omitted`](crate::Outcome) tells: the policy of where the
    /// archive comes from is not the policy of where it goes, and a volume gets its label when it is
    /// mounted.
    Drop,
    /// They are restored as they are.
    Restore,
}

/// What to do where the directory is not empty (`lost+found` apart).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is restored.
    Refuse,
    /// Entries replace files of the same name; all others stay.
    Overwrite,
    /// Files of the same name stay, and their entries are left out.
    Keep,
}

impl Options {
    /// The defaults: everything but device nodes and SELinux labels, owned by whose number the archive
    /// has, into an empty directory, with whatever the format has of checksums.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            fetching: Fetching::default(),
            identities: Identities::default(),
            devices: Devices::Refuse,
            selection: Selection::default(),
            ownership: Ownership::default(),
            privileges: Privileges::Keep,
            labels: Labels::Drop,
            existing: Existing::Refuse,
            limits: Limits::default(),
            strict: false,
            checkpoints: None,
            sha256: None,
            required: Verified::None,
            image_room: None,
        }
    }
}
