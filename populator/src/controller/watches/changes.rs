//! One watch: its store, and its changes that matter.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher as _};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::controller::api;
use crate::lease;

/// How a change became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was there when the watch began. Nobody needs to be told: work begins only when every
    /// watch has come this far, and then looks at every PVC.
    Listed,
    /// It was created, changed or deleted since: told by the API server as an event, or found by
    /// comparing lists where the watch had to list anew. It has to, whenever the API server no
    /// longer has the events since the last list; often so within seconds of a kind's first list,
    /// which is older than all that the API server remembers of that kind.
    Happened,
}

/// Whom the changes of one kind concern.
pub trait Route<K>: Send + Sync + 'static {
    /// Whether the cluster may do without this kind, or get it later.
    const OPTIONAL: bool = false;

    /// Whether the object counts at all.
    fn keep(_object: &K) -> bool {
        true
    }

    /// Two versions of an object with the same mark are the same for everybody.
    fn mark(object: &K) -> u64;

    /// Tells of a change, once the store has it.
    fn tell(&self, object: &K, change: Change);
}

/// Watches until the process ends.
pub async fn watch<K, R>(api: Api<K>, config: watcher::Config, writer: Writer<K>, route: R)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    R: Route<K>,
{
    let mut follower = Follower::new(route);
    let mut events = watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .try_filter_map(async |event| {
            Ok(match &event {
                Event::Apply(object) | Event::InitApply(object) | Event::Delete(object)
                    if !R::keep(object) =>
                {
                    None
                }
                Event::Apply(_)
                | Event::InitApply(_)
                | Event::Delete(_)
                | Event::Init
                | Event::InitDone => Some(event),
            })
        })
        .reflect(writer)
        .boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => follower.follow(event),
            Err(error) if R::OPTIONAL && is_unknown(&error) => {
                tracing::debug!(kind = %K::kind(&()), "this cluster has no such kind");
            }
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and begins again");
            }
        }
    }
}

/// Whether the API server does not know the kind.
fn is_unknown(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => {
            api::not_found(error)
        }
        watcher::Error::WatchError(status) => status.code == 404,
        watcher::Error::NoResourceVersion => false,
    }
}

/// Tells a route of what its watch shows, once the store has it.
pub(super) struct Follower<K: Resource<DynamicType = ()>, R> {
    seen: Seen<K>,
    route: R,
}

impl<K: Resource<DynamicType = ()> + Clone, R: Route<K>> Follower<K, R> {
    pub(super) fn new(route: R) -> Self {
        Self {
            seen: Seen::new(R::mark),
            route,
        }
    }

    pub(super) fn follow(&mut self, event: Event<K>) {
        for (object, change) in self.seen.take(event) {
            self.route.tell(&object, change);
        }
    }
}

/// What was last told of each object.
struct Seen<K: Resource<DynamicType = ()>> {
    mark: fn(&K) -> u64,
    known: HashMap<ObjectRef<K>, (u64, K)>,
    /// Whether a list was complete before.
    begun: bool,
    /// Objects of a list that is under way: the store has them only when it is complete.
    listing: Vec<K>,
}

impl<K: Resource<DynamicType = ()> + Clone> Seen<K> {
    fn new(mark: fn(&K) -> u64) -> Self {
        Self {
            mark,
            known: HashMap::new(),
            begun: false,
            listing: Vec::new(),
        }
    }

    /// Whom an event tells of something new.
    fn take(&mut self, event: Event<K>) -> Vec<(K, Change)> {
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.push(object);
                Vec::new()
            }
            Event::InitDone => self.listed(),
            Event::Apply(object) => {
                let mark = (self.mark)(&object);
                let reference = ObjectRef::from_obj(&object);
                let before = self.known.insert(reference, (mark, object.clone()));
                if before.is_some_and(|(known, _)| known == mark) {
                    return Vec::new();
                }
                vec![(object, Change::Happened)]
            }
            Event::Delete(object) => {
                self.known.remove(&ObjectRef::from_obj(&object));
                vec![(object, Change::Happened)]
            }
        }
    }

    fn listed(&mut self) -> Vec<(K, Change)> {
        let change = if std::mem::replace(&mut self.begun, true) {
            Change::Happened
        } else {
            Change::Listed
        };
        let mut vanished = std::mem::take(&mut self.known);
        let mut told = Vec::new();
        for object in std::mem::take(&mut self.listing) {
            let mark = (self.mark)(&object);
            let reference = ObjectRef::from_obj(&object);
            let before = vanished.remove(&reference);
            self.known.insert(reference, (mark, object.clone()));
            if before.is_none_or(|(known, _)| known != mark) {
                told.push((object, change));
            }
        }
        told.extend(
            vanished
                .into_values()
                .map(|(_, object)| (object, Change::Happened)),
        );
        told
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Every version differs.
pub fn any_change<K: Resource>(object: &K) -> u64 {
    hash((object.uid(), object.resource_version()))
}

/// Versions differ when the spec does, not when the status does.
pub fn generation<K: Resource>(object: &K) -> u64 {
    let metadata = object.meta();
    hash((
        &metadata.uid,
        metadata.generation,
        metadata.deletion_timestamp.is_some(),
    ))
}

/// Versions of an agent's Lease differ when its holder or key does, or what it serves or keeps, not when it
/// is merely renewed.
pub fn service(lease: &Lease) -> u64 {
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref());
    let notes = [lease::DRIVERS, lease::SNAPSHOTS, lease::SEALING_KEY]
        .map(|name| lease.annotations().get(name));
    hash((holder, notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    fn names(told: Vec<(ConfigMap, Change)>) -> Vec<(String, Change)> {
        told.into_iter()
            .map(|(object, change)| (object.name_any(), change))
            .collect()
    }

    #[test]
    fn a_list_is_told_when_it_is_complete_with_what_has_vanished() {
        let mut seen = Seen::new(any_change::<ConfigMap>);
        assert_eq!(names(seen.take(Event::Init)), []);
        assert_eq!(names(seen.take(Event::InitApply(object("a", "1")))), []);
        assert_eq!(names(seen.take(Event::InitApply(object("b", "1")))), []);
        let told = names(seen.take(Event::InitDone));
        assert_eq!(
            told,
            [
                ("a".to_owned(), Change::Listed),
                ("b".to_owned(), Change::Listed)
            ]
        );

        seen.take(Event::Init);
        seen.take(Event::InitApply(object("a", "1")));
        assert_eq!(
            names(seen.take(Event::InitDone)),
            [("b".to_owned(), Change::Happened)],
            "a is unchanged, b was deleted while nobody watched"
        );

        seen.take(Event::Init);
        seen.take(Event::InitApply(object("a", "2")));
        seen.take(Event::InitApply(object("c", "1")));
        let told = names(seen.take(Event::InitDone));
        assert_eq!(
            told,
            [
                ("a".to_owned(), Change::Happened),
                ("c".to_owned(), Change::Happened)
            ],
            "a was changed and c created while nobody watched"
        );
    }

    #[test]
    fn only_changes_of_the_mark_are_told() {
        let mut seen = Seen::new(any_change::<ConfigMap>);
        assert_eq!(seen.take(Event::Apply(object("a", "1"))).len(), 1);
        assert_eq!(seen.take(Event::Apply(object("a", "1"))).len(), 0);
        assert_eq!(seen.take(Event::Apply(object("a", "2"))).len(), 1);
        assert_eq!(seen.take(Event::Delete(object("a", "2"))).len(), 1);
        assert_eq!(seen.take(Event::Apply(object("a", "2"))).len(), 1);
    }
}
