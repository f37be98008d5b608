//! Before there is an order.

use super::*;
use crds::restore_order::VolumeMode;

#[test]
fn a_ready_claim_gets_an_order_on_the_selected_node() {
    let node = "n1".to_owned();
    assert_eq!(step(&observed(|_| ())), Step::CreateOrder { node });
}

#[test]
fn the_restore_comes_first() {
    assert_eq!(step(&observed(|o| o.restore = None)), Step::CreateRestore);
    let other = observed(|o| {
        if let Some(restore) = &mut o.restore {
            restore.claim_uid = "u0".to_owned();
        }
    });
    assert_eq!(step(&other), Step::ReplaceRestore);
}

#[test]
fn what_cannot_begin_is_refused_in_this_order() {
    let all_wrong = |observed: &mut Observed| {
        set_claim(|claim| {
            claim.refusal = Some(Refusal::Selector);
            claim.class = None;
        })(observed);
    };
    assert_eq!(refusal(&observed(all_wrong)), "SelectorUnsupported");
    let no_class = observed(set_claim(|claim| claim.class = None));
    assert_eq!(refusal(&no_class), "StorageClassMissing");
    let unseen = observed(|o| o.class = ClassSight::NotCached);
    assert_eq!(next(&unseen), Decision::new(Step::LookAtClass, None));
    let absent = observed(|o| o.class = ClassSight::Absent);
    assert_eq!(refusal(&absent), "StorageClassNotFound");
    let in_tree = observed(|o| {
        let driver = "kubernetes.io/no-provisioner".to_owned();
        o.class = ClassSight::Known(Class { driver, ..class() });
    });
    assert_eq!(refusal(&in_tree), "DriverUnsupported");
    assert_eq!(step(&observed(|o| o.archive = None)), Step::Resolve);
    let missing = observed(|o| {
        o.archive = Some(Err(Refusal::BackupNotFound {
            backup: "b".to_owned(),
            namespace: "n".to_owned(),
        }));
    });
    assert_eq!(refusal(&missing), "VolumeBackupNotFound");
    assert_eq!(step(&missing), Step::Wait(Wait::Growing));
    let small = observed(set_claim(|claim| claim.required_bytes = 9));
    assert_eq!(refusal(&small), "DoesNotFit");
    let part = observed(|o| {
        set_claim(|claim| claim.required_bytes = 9)(o);
        if let Some(Ok(pinned)) = &mut o.archive {
            pinned.options.include = vec!["a".to_owned()];
        }
    });
    assert!(matches!(step(&part), Step::CreateOrder { .. }));
    let as_file = |mode| {
        observed(|o| {
            set_claim(|claim| claim.volume_mode = mode)(o);
            if let Some(Ok(pinned)) = &mut o.archive {
                pinned.options.image_file = Some("disk.img".to_owned());
            }
        })
    };
    assert_eq!(refusal(&as_file(VolumeMode::Block)), "VolumeBackupInvalid");
    // These agents tell no key.
    assert_eq!(refusal(&as_file(VolumeMode::Filesystem)), "AgentOutdated");
}

#[test]
fn what_is_chosen_of_files_is_not_for_a_device() {
    let device = |chosen: bool| {
        observed(|o| {
            set_claim(|claim| claim.volume_mode = VolumeMode::Block)(o);
            if let Some(Ok(pinned)) = &mut o.archive
                && chosen
            {
                pinned.options.sub_path = Some("a".to_owned());
            }
        })
    };
    assert!(matches!(step(&device(false)), Step::CreateOrder { .. }));
    assert_eq!(refusal(&device(true)), "VolumeBackupInvalid");
}

#[test]
fn the_archive_is_looked_at_before_a_pod_wants_the_volume() {
    let early = observed(|o| {
        set_claim(|claim| claim.selected_node = None)(o);
        o.archive = None;
    });
    assert_eq!(step(&early), Step::Resolve);
    let found = observed(set_claim(|claim| claim.selected_node = None));
    assert_eq!(next(&found).stance, Some(Stance::WaitingForConsumer));
}

#[test]
fn the_selected_node_needs_an_agent_and_room() {
    let mut elsewhere = observed(set_claim(|claim| {
        claim.selected_node = Some("n9".to_owned());
    }));
    assert_eq!(next(&elsewhere), Decision::new(Step::LookAtNode, None));
    elsewhere.node = NodeSight::Present;
    assert_eq!(refusal(&elsewhere), "NoAgent");
    assert_eq!(step(&elsewhere), Step::Wait(Wait::Growing));
    for node in [NodeSight::Down, NodeSight::Absent] {
        elsewhere.node = node;
        assert_eq!(refusal(&elsewhere), "NoAgent");
        assert_eq!(step(&elsewhere), Step::ClearNode);
    }
    let due = NOW.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(9);
    let full = observed(|o| o.full_nodes = BTreeMap::from([("n1".to_owned(), due)]));
    assert_eq!(refusal(&full), "NoRoom");
    assert_eq!(step(&full), Step::Wait(Wait::Until(due)));
}

#[test]
fn an_immediate_class_goes_where_most_room_is() {
    let immediate = |change: fn(&mut Observed)| {
        observed(|o| {
            if let ClassSight::Known(class) = &mut o.class {
                class.waits_for_consumer = false;
            }
            set_claim(|claim| claim.selected_node = Some("ignored".to_owned()))(o);
            change(o);
        })
    };
    let node = |name: &str| Step::CreateOrder {
        node: name.to_owned(),
    };
    assert_eq!(step(&immediate(|_| ())), node("n1"));
    let full = immediate(|o| {
        o.full_nodes = BTreeMap::from([("n1".to_owned(), o.now + ALIVE_CHECK)]);
    });
    assert_eq!(step(&full), node("n2"));
    assert_eq!(
        step(&immediate(|o| o.cordoned = None)),
        Step::LookAtCordoned
    );
    let cordoned = |nodes: &[&str]| Some(Arc::new(nodes.iter().map(ToString::to_string).collect()));
    let mut one = immediate(|_| ());
    one.cordoned = cordoned(&["n1"]);
    assert_eq!(step(&one), node("n2"));
    one.cordoned = cordoned(&["n1", "n2"]);
    assert_eq!(step(&one), node("n1"), "better than none");
    assert_eq!(
        refusal(&immediate(|o| o.agents = Agents::default())),
        "NoAgent"
    );
    let large = immediate(set_required_to_200);
    assert_eq!(refusal(&large), "NoRoom");
}

fn set_required_to_200(observed: &mut Observed) {
    set_claim(|claim| claim.required_bytes = 200)(observed);
}
