//! No order of events loses a wake-up: all of them are tried.

use std::fmt::Debug;

use futures::FutureExt as _;
use kube::Resource;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::changes::{Follower, Route};
use super::*;
use crate::controller::claim::tests::example;
use crate::controller::context::ClaimKey;
use crate::controller::memory::Reported;
use routes::Routes;

/// One watch, as [`watch`] drives it: the store first, then the route.
struct Watch<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    follower: Follower<K, Routes>,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
    Routes: Route<K>,
{
    fn begun(writer: Writer<K>, routes: &Routes) -> Self {
        let mut watch = Self {
            writer,
            follower: Follower::new(routes.clone()),
        };
        watch.show(Event::Init);
        watch.show(Event::InitDone);
        watch
    }

    fn show(&mut self, event: Event<K>) {
        self.writer.apply_watcher_event(&event);
        self.follower.follow(event);
    }
}

/// All watches, begun with nothing there, and a worker that notes whether it saw what the PVC needs.
struct World {
    routes: Routes,
    claims: Watch<PersistentVolumeClaim>,
    backups: Watch<VolumeBackup>,
    places: Watch<BackupStore>,
    classes: Watch<StorageClass>,
    leases: Watch<Lease>,
    grants: Watch<ReferenceGrant>,
    /// What the last look at the PVC showed.
    seen: Option<bool>,
}

/// An event of one watch.
type Happening = Box<dyn Fn(&mut World)>;

impl World {
    fn new() -> Self {
        let (stores, writers) = stores();
        let routes = Routes {
            stores,
            queue: Arc::default(),
            memory: Arc::default(),
        };
        Self {
            claims: Watch::begun(writers.claims, &routes),
            backups: Watch::begun(writers.backups, &routes),
            places: Watch::begun(writers.places, &routes),
            classes: Watch::begun(writers.classes, &routes),
            leases: Watch::begun(writers.leases, &routes),
            grants: Watch::begun(writers.grants, &routes),
            routes,
            seen: None,
        }
    }

    fn work(&mut self, look: fn(&Stores) -> bool) {
        while let Some(key) = self.routes.queue.next().now_or_never() {
            if matches!(key, Key::Claim(_)) && self.routes.stores.claim(NAMESPACE, CLAIM).is_some()
            {
                self.seen = Some(look(&self.routes.stores));
            }
            self.routes.queue.done(&key);
        }
    }
}

const NAMESPACE: &str = "default";
const CLAIM: &str = "restored-database";

/// Where a VolumeBackup lies that a PVC of [`NAMESPACE`] names.
const OTHER: &str = "backups";

fn object<K: DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

fn backup() -> Value {
    json!({
        "metadata": {"name": "database-backup-v1", "namespace": NAMESPACE, "uid": "b1", "generation": 1},
        "spec": {"backupURL": "s3://b/k", "restorePoint": "2025-01-01T10:00:00Z"},
    })
}

fn place() -> Value {
    json!({
        "metadata": {"name": "store", "namespace": NAMESPACE, "uid": "s1", "generation": 1},
        "spec": {"url": "s3://b", "credentialsSecretRef": {"name": "keys"}},
    })
}

fn grant() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "grant", "namespace": OTHER, "uid": "g1", "generation": 1},
        "spec": {"from": [], "to": []},
    })
}

fn class() -> Value {
    json!({"metadata": {"name": "fast-csi-storage", "uid": "c1"}, "provisioner": "d"})
}

/// The two ways in which a watch may show that an object has come: by an event, and by a list after
/// events were missed.
fn ways<K>(value: &Value, watch: fn(&mut World) -> &mut Watch<K>) -> [Vec<Happening>; 2]
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
    Routes: Route<K>,
{
    let show = |event: fn(K) -> Event<K>| -> Happening {
        let value = value.clone();
        Box::new(move |world| watch(world).show(event(object(&value))))
    };
    [
        vec![show(Event::Apply)],
        vec![
            show(|_| Event::Init),
            show(Event::InitApply),
            show(|_| Event::InitDone),
        ],
    ]
}

/// Plays the events of two watches in every order, with the worker at work after every selection of
/// them, and sees that the last look saw what came.
fn every_order(claim: &[Happening], other: &[Happening], look: fn(&Stores) -> bool) {
    let events = claim.len() + other.len();
    for order in 0_u32..1 << events {
        if order.count_ones() as usize != claim.len() {
            continue;
        }
        for worked in 0_u32..1 << events {
            let mut world = World::new();
            let (mut ours, mut others) = (claim.iter(), other.iter());
            for event in 0..events {
                let from = if order >> event & 1 == 1 {
                    &mut ours
                } else {
                    &mut others
                };
                from.next().unwrap()(&mut world);
                if worked >> event & 1 == 1 {
                    world.work(look);
                }
            }
            world.work(look);
            assert_eq!(
                world.seen,
                Some(true),
                "order {order:b}, worked after {worked:b}"
            );
        }
    }
}

#[test]
fn a_claim_is_looked_at_when_what_it_lacked_has_come() {
    for claim in ways(&example(), |world| &mut world.claims) {
        for backup in ways(&backup(), |world| &mut world.backups) {
            every_order(&claim, &backup, |stores| {
                stores.backup(NAMESPACE, "database-backup-v1").is_some()
            });
        }
        for place in ways(&place(), |world| &mut world.places) {
            every_order(&claim, &place, |stores| {
                !stores.stores_of(NAMESPACE).is_empty()
            });
        }
        for class in ways(&class(), |world| &mut world.classes) {
            every_order(&claim, &class, |stores| {
                stores.class("fast-csi-storage").is_some()
            });
        }
    }
}

/// The same across namespaces; and what is of the PVC's own namespace there concerns nobody.
#[test]
fn a_claim_is_looked_at_when_what_it_lacked_in_another_namespace_has_come() {
    let mut crossing = example();
    crossing["spec"]["dataSourceRef"]["namespace"] = json!(OTHER);
    let there = |mut object: Value| {
        object["metadata"]["namespace"] = json!(OTHER);
        object
    };
    for claim in ways(&crossing, |world| &mut world.claims) {
        for grant in ways(&grant(), |world| &mut world.grants) {
            every_order(&claim, &grant, |stores| !stores.grants_of(OTHER).is_empty());
        }
        for backup in ways(&there(backup()), |world| &mut world.backups) {
            every_order(&claim, &backup, |stores| {
                stores.backup(OTHER, "database-backup-v1").is_some()
            });
        }
        for place in ways(&there(place()), |world| &mut world.places) {
            every_order(&claim, &place, |stores| !stores.stores_of(OTHER).is_empty());
        }
    }
    let mut world = World::new();
    world.claims.show(Event::Apply(object(&crossing)));
    world.work(|_| true);
    world.seen = None;
    world.backups.show(Event::Apply(object(&backup())));
    world.places.show(Event::Apply(object(&place())));
    world.work(|_| true);
    assert_eq!(world.seen, None);
    world.grants.show(Event::Apply(object(&grant())));
    world.work(|_| true);
    assert_eq!(world.seen.take(), Some(true));
    world.grants.show(Event::Delete(object(&grant())));
    world.work(|stores| stores.grants_of(OTHER).is_empty());
    assert_eq!(world.seen, Some(true), "one that is taken away is seen too");
}

fn lease(version: u32) -> Lease {
    object(&json!({
        "metadata": {"name": "agent-n1", "uid": "l1"},
        "spec": {"holderIdentity": format!("pod-{version}")},
    }))
}

/// The agents were looked at, and one comes before the verdict is written; and one that comes when
/// this process has written it, but no watch has shown it yet.
#[test]
fn a_claim_that_is_told_to_wait_for_an_agent_just_now_is_looked_at_again() {
    let mut world = World::new();
    let claim: PersistentVolumeClaim = object(&example());
    let key = Key::of(&claim).unwrap();
    world.claims.show(Event::Apply(claim.clone()));
    let next = |world: &World| world.routes.queue.next().now_or_never();
    assert_eq!(next(&world), Some(key.clone()));
    world.leases.show(Event::Apply(lease(1)));
    world.routes.queue.done(&key);
    assert_eq!(next(&world), Some(key.clone()));

    let mut status = crds::volume_restore::VolumeRestoreStatus::default();
    crate::controller::conditions::set(
        &mut status.conditions,
        crds::READY,
        &crate::controller::conditions::Verdict {
            status: "False",
            reason: "NoAgent".to_owned(),
            message: String::new(),
        },
        None,
        jiff::Timestamp::UNIX_EPOCH,
    );
    let uid = ClaimKey::of(&claim).unwrap().uid;
    world.routes.memory.update(&uid, |remembered| {
        remembered.reported = Some(Reported {
            restore: "r1".to_owned(),
            status,
            at: std::time::Instant::now(),
        });
    });
    world.routes.queue.done(&key);
    assert_eq!(next(&world), None);
    world.leases.show(Event::Apply(lease(2)));
    assert_eq!(next(&world), Some(key));
}
