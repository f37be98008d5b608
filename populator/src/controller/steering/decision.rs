//! What to do next for a PVC that is made from a snapshot or from another PVC: a pure function of
//! what is known.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt as _;

use super::source::{self, Place, Source};
use crate::controller::claim::SELECTED_NODE;
pub use crate::controller::decision::Wait;
use crate::controller::memory::Steered;

/// All that a decision rests on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// The PVC, while the watch shows it.
    pub candidate: Option<Candidate>,
    /// The CSI driver of its StorageClass, where that is known and the administrator named it.
    pub driver: Option<String>,
    /// Where its source lies, once that was looked at.
    pub place: Option<Place>,
    /// What was done for it before.
    pub steered: Steered,
}

/// A PVC that is made from a snapshot or from another PVC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its UID.
    pub uid: String,
    /// The version that was seen, as a precondition for changes.
    pub resource_version: Option<String>,
    /// Whether it needs a volume still.
    pub pending: bool,
    /// Its StorageClass.
    pub class: Option<String>,
    /// The node that somebody chose for it.
    pub selected_node: Option<String>,
    /// What it is made from.
    pub source: Source,
}

impl Candidate {
    /// Reads a PVC; `None` where it is not made from a snapshot or from another PVC.
    pub fn read(claim: &PersistentVolumeClaim) -> Option<Self> {
        let source = source::of(claim)?;
        let spec = claim.spec.as_ref()?;
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Some(Self {
            uid: claim.uid()?,
            resource_version: claim.resource_version(),
            pending: filled(&spec.volume_name).is_none()
                && claim.metadata.deletion_timestamp.is_none(),
            class: filled(&spec.storage_class_name),
            selected_node: filled(&claim.annotations().get(SELECTED_NODE).cloned()),
            source,
        })
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, ever again.
    Forget,
    /// Look: ask the API server where the source lies.
    LookAtSource,
    /// Note that the choice was taken back, and say so.
    GiveWay,
    /// Choose this node.
    Steer {
        /// The node.
        node: String,
    },
    /// Nothing until something changes, or until then.
    Wait(Wait),
}

/// What to do next for one PVC.
pub fn next(observed: &Observed) -> Step {
    let Some(candidate) = observed.candidate.as_ref().filter(|one| one.pending) else {
        return Step::Forget;
    };
    if observed.driver.is_none() {
        // A StorageClass that comes or changes brings the PVC back.
        return Step::Wait(Wait::OnChange);
    }
    if let Some(given) = &observed.steered.given {
        let stands = candidate.selected_node.as_ref() == Some(&given.node);
        let unseen = candidate.resource_version == given.upon;
        return if stands || unseen {
            Step::Wait(Wait::OnChange)
        } else {
            Step::GiveWay
        };
    }
    if let Some(due) = observed.steered.due.filter(|due| observed.now < *due) {
        return Step::Wait(Wait::Until(due));
    }
    match &observed.place {
        None => Step::LookAtSource,
        Some(Place::Unknown) => Step::Wait(Wait::Growing),
        // A ReferenceGrant that comes brings the PVC back.
        Some(Place::Anywhere | Place::Closed) => Step::Wait(Wait::OnChange),
        Some(Place::Node(node)) if candidate.selected_node.as_ref() == Some(node) => {
            Step::Wait(Wait::OnChange)
        }
        // Another node's provisioner could only refuse: its choice is not waited for.
        Some(Place::Node(node)) => Step::Steer { node: node.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::memory::Given;
    use jiff::SignedDuration;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn candidate() -> Candidate {
        Candidate::read(
            &serde_json::from_value(json!({
                "metadata": {"name": "copy", "namespace": "n", "uid": "u1", "resourceVersion": "7"},
                "spec": {
                    "storageClassName": "fast",
                    "dataSource": {"kind": "PersistentVolumeClaim", "name": "original"},
                },
            }))
            .unwrap(),
        )
        .unwrap()
    }

    fn observed(change: impl FnOnce(&mut Observed, &mut Candidate)) -> Observed {
        let mut candidate = candidate();
        let mut observed = Observed {
            now: NOW,
            candidate: None,
            driver: Some("d".to_owned()),
            place: Some(Place::Node("a".to_owned())),
            steered: Steered::default(),
        };
        change(&mut observed, &mut candidate);
        observed.candidate = Some(candidate);
        observed
    }

    fn steer_to_a() -> Step {
        Step::Steer {
            node: "a".to_owned(),
        }
    }

    const ON_CHANGE: Step = Step::Wait(Wait::OnChange);

    #[test]
    fn a_pending_claim_is_sent_to_the_node_of_its_source() {
        let fresh = observed(|o, _| o.place = None);
        assert_eq!(next(&fresh), Step::LookAtSource);
        assert_eq!(next(&observed(|_, _| ())), steer_to_a());
        let elsewhere = observed(|_, claim| claim.selected_node = Some("b".to_owned()));
        assert_eq!(next(&elsewhere), steer_to_a());
        let there = observed(|_, claim| claim.selected_node = Some("a".to_owned()));
        assert_eq!(next(&there), ON_CHANGE);
    }

    #[test]
    fn a_source_in_the_making_is_waited_for_and_one_that_is_everywhere_left_alone() {
        let making = observed(|o, _| o.place = Some(Place::Unknown));
        assert_eq!(next(&making), Step::Wait(Wait::Growing));
        for place in [Place::Anywhere, Place::Closed] {
            let alone = observed(|o, _| o.place = Some(place));
            assert_eq!(next(&alone), ON_CHANGE);
        }
    }

    #[test]
    fn drivers_that_nobody_named_are_not_asked_about() {
        let foreign = observed(|o, _| {
            o.driver = None;
            o.place = None;
        });
        assert_eq!(next(&foreign), ON_CHANGE);
    }

    #[test]
    fn a_claim_that_needs_no_volume_is_forgotten() {
        let bound = observed(|_, claim| claim.pending = false);
        assert_eq!(next(&bound), Step::Forget);
        let gone = Observed {
            candidate: None,
            ..observed(|_, _| ())
        };
        assert_eq!(next(&gone), Step::Forget);
    }

    fn given(observed: &mut Observed) {
        observed.place = None;
        observed.steered.given = Some(Given {
            node: "a".to_owned(),
            upon: Some("7".to_owned()),
        });
    }

    #[test]
    fn a_watch_that_has_not_shown_the_choice_yet_does_not_look_like_a_refusal() {
        let late = observed(|o, _| given(o));
        assert_eq!(next(&late), ON_CHANGE);
        let shown = observed(|o, claim| {
            given(o);
            claim.resource_version = Some("8".to_owned());
            claim.selected_node = Some("a".to_owned());
        });
        assert_eq!(next(&shown), ON_CHANGE);
    }

    #[test]
    fn a_choice_that_was_taken_back_is_repeated_after_a_pause() {
        for choice in [None, Some("b".to_owned())] {
            let taken = observed(|o, claim| {
                given(o);
                claim.resource_version = Some("9".to_owned());
                claim.selected_node = choice.clone();
            });
            assert_eq!(next(&taken), Step::GiveWay);
            let mut later = taken;
            later.steered.taken_back(NOW);
            let due = later.steered.due.unwrap();
            assert_eq!(next(&later), Step::Wait(Wait::Until(due)));
            later.now = due + SignedDuration::from_secs(1);
            // It may lie elsewhere by now: a snapshot of the same name, made anew.
            assert_eq!(next(&later), Step::LookAtSource);
            later.place = Some(Place::Node("a".to_owned()));
            assert_eq!(next(&later), steer_to_a());
        }
    }

    /// Whatever was observed: a choice is made only for a PVC that is pending, of a driver that was
    /// named, and only of the node where the source was just seen.
    #[test]
    fn nothing_else_is_ever_chosen() {
        let places = [
            None,
            Some(Place::Unknown),
            Some(Place::Anywhere),
            Some(Place::Closed),
            Some(Place::Node("a".to_owned())),
        ];
        for place in places {
            for pending in [true, false] {
                for driver in [None, Some("d".to_owned())] {
                    for node in [None, Some("a".to_owned()), Some("b".to_owned())] {
                        for before in [false, true] {
                            let seen = observed(|o, claim| {
                                if before {
                                    given(o);
                                }
                                o.place = place.clone();
                                o.driver = driver.clone();
                                claim.pending = pending;
                                claim.selected_node = node.clone();
                            });
                            let chosen = matches!(next(&seen), Step::Steer { .. });
                            let right = pending
                                && driver.is_some()
                                && !before
                                && place == Some(Place::Node("a".to_owned()))
                                && node.as_deref() != Some("a");
                            assert_eq!(chosen, right, "{seen:?}");
                        }
                    }
                }
            }
        }
    }
}
