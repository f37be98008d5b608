//! VolumeBackups of another namespace.

use super::*;
use crate::controller::grants::Permission;

const ALL: [Permission; 4] = [
    Permission::Granted,
    Permission::Denied,
    Permission::NoKind,
    Permission::Off,
];

fn crossing(grant: GrantSight) -> impl FnOnce(&mut Observed) {
    move |observed| {
        set_claim(|claim| claim.backup_namespace = "backups".to_owned())(observed);
        observed.grant = grant;
    }
}

fn at_work(grant: GrantSight, state: State) -> Observed {
    observed(|o| {
        crossing(grant)(o);
        with_order(Goal::Filled, status(state))(o);
    })
}

#[test]
fn nothing_is_read_before_the_api_server_has_said_that_it_may_be() {
    for permission in ALL {
        for archive in [None, Some(Ok(pinned()))] {
            let seen = observed(|o| {
                crossing(GrantSight::Cached(permission))(o);
                o.archive = archive;
            });
            assert_eq!(step(&seen), Step::LookAtGrants, "{permission:?}");
        }
    }
    let granted = |archive| {
        observed(|o| {
            crossing(GrantSight::Live(Permission::Granted))(o);
            o.archive = archive;
        })
    };
    assert_eq!(step(&granted(None)), Step::Resolve);
    let begun = step(&granted(Some(Ok(pinned()))));
    assert!(matches!(begun, Step::CreateOrder { .. }), "{begun:?}");
}

#[test]
fn what_is_not_granted_is_refused_and_looked_at_again() {
    for (permission, reason, wait) in [
        (Permission::Denied, "RefNotPermitted", Wait::Growing),
        (Permission::NoKind, "ReferenceGrantsMissing", Wait::Growing),
        (Permission::Off, "CrossNamespaceDisabled", Wait::OnChange),
    ] {
        let refused = observed(|o| {
            crossing(GrantSight::Live(permission))(o);
            // Nobody learns from the refusal whether there is such a VolumeBackup.
            o.archive = None;
            o.basis = None;
        });
        assert_eq!(refusal(&refused), reason);
        assert_eq!(step(&refused), Step::Wait(wait));
    }
}

#[test]
fn a_permission_that_is_taken_away_is_the_end_of_a_volume_that_is_not_complete() {
    for permission in [Permission::Denied, Permission::NoKind, Permission::Off] {
        for state in [
            State::Waiting,
            State::Provisioning,
            State::Restoring,
            State::Failed,
        ] {
            let shown = at_work(GrantSight::Cached(permission), state);
            assert_eq!(step(&shown), Step::LookAtGrants, "{state:?}");
            let mut revoked = at_work(GrantSight::Live(permission), state);
            assert_eq!(step(&revoked), Step::Discard, "{state:?}");
            assert!(matches!(next(&revoked).stance, Some(Stance::Refused(_))));
            if let Some(restore) = &mut revoked.restore {
                restore.paused = true;
            }
            assert_eq!(step(&revoked), Step::Discard, "{state:?}, paused");
        }
        let complete = at_work(GrantSight::Live(permission), State::Filled);
        assert_eq!(step(&complete), Step::RecordPublishing);
        let handed_over = observed(|o| {
            crossing(GrantSight::Live(permission))(o);
            with_order(Goal::Published, status(State::Filled))(o);
        });
        assert_eq!(step(&handed_over), Step::LookAtClaim);
    }
}

/// After that it waits as if it had never begun.
#[test]
fn what_was_revoked_is_cleaned_up_and_then_waits_for_a_grant() {
    let cleaning = observed(|o| {
        crossing(GrantSight::Live(Permission::Denied))(o);
        with_order(Goal::Deleted, status(State::Restoring))(o);
    });
    assert_eq!(next(&cleaning).stance, Some(Stance::CleaningUp));
    let gone = observed(crossing(GrantSight::Live(Permission::Denied)));
    assert_eq!(refusal(&gone), "RefNotPermitted");
}

#[test]
fn a_url_is_signed_anew_only_after_another_look() {
    let late = |grant, state| {
        let mut seen = at_work(grant, state);
        seen.now = "2026-01-01T00:30:00Z".parse().unwrap();
        seen.agents = agents(&[("n1", "2026-01-01T00:29:59Z", 1)]);
        seen
    };
    let failed = |grant| {
        let mut seen = late(grant, State::Failed);
        with_order(Goal::Filled, failure(Cure::Time))(&mut seen);
        seen
    };
    let (shown, said) = (
        GrantSight::Cached(Permission::Granted),
        GrantSight::Live(Permission::Granted),
    );
    assert_eq!(step(&late(shown, State::Restoring)), Step::LookAtGrants);
    assert_eq!(step(&late(said, State::Restoring)), Step::RenewAccess);
    assert_eq!(step(&failed(shown)), Step::LookAtGrants);
    assert_eq!(step(&failed(said)), Step::Retry);
    let early = at_work(shown, State::Restoring);
    assert!(matches!(step(&early), Step::Wait(_)));
}
