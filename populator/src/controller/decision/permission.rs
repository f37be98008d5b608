//! Whether a VolumeBackup of another namespace may be read.
//!
//! It is asked for at this moment before an archive is pinned and before a URL is signed anew. In between,
//! the watch tells: a ReferenceGrant that is taken away revokes what it allowed, so a volume that is not
//! complete is deleted, and the PVC waits as if there had never been one. What is complete stays: it was
//! read with permission, and lies in a volume of the PVC's namespace.

use super::{Decision, Observed, Stance, Step};
use crate::controller::claim::Claim;
use crate::controller::grants::{GrantSight, Permission};

/// What there is to do before anything is read; none where it may be.
pub(super) fn before_reading(observed: &Observed, claim: &Claim) -> Option<Decision> {
    match observed.grant {
        GrantSight::Own => None,
        GrantSight::Cached(_) => Some(Decision::new(Step::LookAtGrants, None)),
        GrantSight::Live(permission) => permission.refusal(claim).map(Decision::refused),
    }
}

/// What there is to do where the permission was taken away since.
pub(super) fn taken_away(observed: &Observed, claim: &Claim) -> Option<Decision> {
    match observed.grant {
        GrantSight::Own | GrantSight::Cached(Permission::Granted) => None,
        // A watch that has only just begun shows none.
        GrantSight::Cached(_) => Some(Decision::new(Step::LookAtGrants, None)),
        GrantSight::Live(permission) => {
            let refusal = permission.refusal(claim)?;
            Some(Decision::new(Step::Discard, Stance::Refused(refusal)))
        }
    }
}

/// `decision`, or a look before it where a URL would be signed on what a watch shows.
pub(super) fn before_signing(observed: &Observed, decision: Decision) -> Decision {
    match (observed.grant, &decision.step) {
        (GrantSight::Cached(_), Step::RenewAccess | Step::Retry) => Decision {
            step: Step::LookAtGrants,
            ..decision
        },
        (_, _) => decision,
    }
}
