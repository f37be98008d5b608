//! How each restore may end that is met by an event at a step.

use std::fmt;

use super::{
    event::Event,
    step::{Progress, Step},
};

/// How a restore ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Bound, with all that was in the archive.
    Complete,
    /// Bound, with all that is in the archive that took the other's place.
    Replaced,
    /// Bound to a volume that was complete when its node went.
    Stranded,
    /// Given up for this reason, with nothing left but the PVC and its VolumeRestore.
    Over(&'static str),
    /// Not bound as long as this is so.
    Waits(&'static str),
    /// Nothing is left of it.
    Gone,
}

impl fmt::Display for End {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Complete => "complete",
            Self::Replaced => "replaced",
            Self::Stranded => "stranded",
            Self::Over(reason) | Self::Waits(reason) => reason,
            Self::Gone => "gone",
        })
    }
}

/// The ends that a restore may come to that is met by `event` at `step`. More than one only where it is
/// chance how far it was.
pub fn permitted(event: Event, step: Step) -> &'static [End] {
    match event {
        Event::ControllerKilled
        | Event::AgentKilled
        | Event::DriverKilled
        | Event::ApiServerRestarted
        | Event::StoreDown
        | Event::StoreSlow
        | Event::StoreBusy
        // What was signed with the old keys opens nothing any more; it is signed anew.
        | Event::SecretRotated
        | Event::NodeCordoned => &[End::Complete],
        Event::ClaimDeleted => &[End::Gone],
        Event::ArchiveReplaced => match step.progress() {
            Progress::Unpinned => &[End::Replaced],
            Progress::Pinned => &[End::Over("ArchiveChanged")],
            // The server may still be sending the old one.
            Progress::Reading => &[End::Complete, End::Over("ArchiveChanged")],
            Progress::Read | Progress::Published => &[End::Complete],
        },
        Event::BackupDeleted => match step.progress() {
            Progress::Unpinned => &[End::Waits("VolumeBackupNotFound")],
            Progress::Pinned | Progress::Reading | Progress::Read | Progress::Published => {
                &[End::Complete]
            }
        },
        Event::ClassDeleted => match (step, step.progress()) {
            (_, Progress::Unpinned) => &[End::Waits("StorageClassNotFound")],
            // Its provisioner knows no other way to make a volume.
            (Step::PrimeMaking, _) => &[End::Waits("ProvisioningFailed")],
            (_, Progress::Pinned | Progress::Reading | Progress::Read | Progress::Published) => {
                &[End::Complete]
            }
        },
        Event::NodeGone => match step.progress() {
            // On another node.
            Progress::Unpinned | Progress::Pinned | Progress::Reading | Progress::Read => {
                &[End::Complete]
            }
            // Nothing is taken back that somebody may have seen.
            Progress::Published => &[End::Stranded],
        },
    }
}
