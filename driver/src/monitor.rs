//! Looks at the pool and its volumes from time to time, and tells what is wrong and what is well
//! again: in the log, as a metric, and as Events of the Node where they are asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::operations::health::{self, Trouble};
use crate::operations::list::ListError;
use crate::rpc::Services;
use crate::volume::{NodeName, VolumeId};

/// How long a look at all volumes may take before that itself is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long Kubernetes may take for an Event.
const PUBLISHING: Duration = Duration::from_secs(10);

/// What troubles are told apart by: their sentences may change while they last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    volume: Option<VolumeId>,
    reason: &'static str,
}

impl From<&Trouble> for Key {
    fn from(trouble: &Trouble) -> Self {
        Self {
            volume: trouble.volume.clone(),
            reason: trouble.finding.reason,
        }
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Began(Trouble),
    Ended(Key),
}

/// What was seen at the last look, and what was told.
#[derive(Debug, Default)]
struct Memory {
    seen: BTreeSet<Key>,
    told: BTreeSet<Key>,
}

impl Memory {
    /// What is to be told after a look: what was there at the last one too, since operations that
    /// are under way can look like trouble for a moment; and what was told and is gone.
    fn news(&mut self, troubles: &[Trouble]) -> Vec<News> {
        let now: BTreeSet<Key> = troubles.iter().map(Key::from).collect();
        let began = troubles.iter().filter(|trouble| {
            let key = Key::from(*trouble);
            self.seen.contains(&key) && !self.told.contains(&key)
        });
        let ended = self.told.difference(&now).cloned();
        let news = began.cloned().map(News::Began);
        let news = news.chain(ended.map(News::Ended)).collect();
        self.seen = now;
        news
    }

    /// Notes that it was told.
    fn note(&mut self, news: &News) {
        match news {
            News::Began(trouble) => {
                self.told.insert(trouble.into());
            }
            News::Ended(key) => {
                self.told.remove(key);
            }
        }
    }
}

/// Looks every `period`, until `end`.
pub async fn run(
    services: Services,
    period: Duration,
    events: Option<Events>,
    end: CancellationToken,
) {
    let mut memory = Memory::default();
    let mut under_way = None;
    while end
        .run_until_cancelled(tokio::time::sleep(period))
        .await
        .is_some()
    {
        let looking = look(&services, &mut under_way);
        let Some(troubles) = end.run_until_cancelled(looking).await else {
            return;
        };
        services.metrics.set_troubles(&troubles);
        for news in memory.news(&troubles) {
            if tell(&news, events.as_ref()).await {
                memory.note(&news);
            }
        }
    }
}

type Look = JoinHandle<Result<Vec<Trouble>, ListError>>;

/// One look. One that does not come to an end is `under_way` still at the next: a disk that hangs
/// must not take thread after thread.
async fn look(services: &Services, under_way: &mut Option<Look>) -> Vec<Trouble> {
    let unwritable = |complaint: String| {
        vec![Trouble {
            volume: None,
            finding: health::unwritable(&complaint),
        }]
    };
    if let Err(complaint) = services.health.pool(&services.pool).await {
        return unwritable(complaint);
    }
    let pool = services.pool.clone();
    let handle = under_way
        .get_or_insert_with(|| tokio::task::spawn_blocking(move || health::everything(&pool)));
    let Ok(result) = timeout(PATIENCE, handle).await else {
        return unwritable(format!("the volumes do not answer within {PATIENCE:?}"));
    };
    *under_way = None;
    match result {
        Ok(Ok(troubles)) => troubles,
        Ok(Err(error)) => unwritable(error.to_string()),
        Err(panic) => unwritable(format!("the look at the volumes ended by a bug: {panic}")),
    }
}

/// Whether it was told everywhere; what was not is told again after the next look.
async fn tell(news: &News, events: Option<&Events>) -> bool {
    match news {
        News::Began(trouble) => {
            let volume = trouble.volume.as_ref().map(ToString::to_string);
            let finding = &trouble.finding;
            tracing::warn!(
                volume.id = volume,
                reason = finding.reason,
                "{}",
                finding.message
            );
        }
        News::Ended(key) => {
            let volume = key.volume.as_ref().map(ToString::to_string);
            tracing::info!(volume.id = volume, reason = key.reason, "that is over");
        }
    }
    let Some(events) = events else { return true };
    let publishing = timeout(PUBLISHING, events.publish(news)).await;
    match publishing.map_err(|_| format!("no answer within {PUBLISHING:?}")) {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!("an Event could not be written: {error}");
            false
        }
        Err(complaint) => {
            tracing::warn!("an Event could not be written: {complaint}");
            false
        }
    }
}

/// Events of the Node.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    node: NodeName,
}

impl Events {
    /// As the Pod's service account.
    pub async fn connect(driver: &str, node: NodeName) -> Result<Self, kube::Error> {
        let reporter = Reporter {
            controller: driver.to_owned(),
            instance: Some(node.as_str().to_owned()),
        };
        Ok(Self {
            recorder: Recorder::new(Client::try_default().await?, reporter),
            node,
        })
    }

    async fn publish(&self, news: &News) -> Result<(), kube::Error> {
        // As kubelet has it, whose Events of a Node `kubectl describe node` looks for by this uid.
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.as_str().to_owned()),
            uid: Some(self.node.as_str().to_owned()),
            ..ObjectReference::default()
        };
        self.recorder.publish(&event(news), &node).await
    }
}

fn event(news: &News) -> Event {
    let of = |volume: Option<&VolumeId>| volume.map_or("the pool".to_owned(), VolumeId::to_string);
    let (type_, reason, volume, note) = match news {
        News::Began(Trouble { volume, finding }) => {
            let note = format!("{}: {}", of(volume.as_ref()), finding.message);
            (EventType::Warning, finding.reason, volume, note)
        }
        News::Ended(Key { volume, reason }) => {
            let note = format!("{}: {reason} is over", of(volume.as_ref()));
            (EventType::Normal, *reason, volume, note)
        }
    };
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(shortened(note)),
        action: "Monitoring".to_owned(),
        // Otherwise what is said of a second volume would count as a repetition.
        secondary: volume.as_ref().map(|volume| ObjectReference {
            name: Some(volume.to_string()),
            ..ObjectReference::default()
        }),
    }
}

/// Kubernetes refuses notes of more than 1 KiB.
fn shortened(mut note: String) -> String {
    const MAX: usize = 1024;
    if note.len() > MAX {
        note.truncate(note.floor_char_boundary(MAX - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(volume: Option<&str>, complaint: &str) -> Trouble {
        Trouble {
            volume: volume.map(|name| VolumeId::of(name, &NodeName::parse("node-1").unwrap())),
            finding: health::unwritable(complaint),
        }
    }

    #[test]
    fn what_stays_is_told_once_and_when_it_is_over() {
        let mut memory = Memory::default();
        let a = [trouble(None, "a")];
        let b = [trouble(Some("b"), "b")];
        assert_eq!(memory.news(&a), [], "it may pass");
        assert_eq!(memory.news(&b), [], "it has passed");
        let both = [trouble(None, "in other words"), b[0].clone()];
        assert_eq!(memory.news(&both), [News::Began(b[0].clone())]);
        // It could not be told, so it is told again.
        let news = memory.news(&both);
        assert_eq!(news, both.clone().map(News::Began));
        for it in &news {
            memory.note(it);
        }
        assert_eq!(memory.news(&both), []);
        let over = memory.news(&b);
        assert_eq!(over, [News::Ended(Key::from(&a[0]))]);
        memory.note(&over[0]);
        assert_eq!(memory.news(&b), []);
    }

    #[test]
    fn two_volumes_are_two_events() {
        let one = event(&News::Began(trouble(Some("one"), "damaged")));
        let two = event(&News::Began(trouble(Some("two"), "damaged")));
        assert_ne!(one.secondary, two.secondary);
        let long = event(&News::Began(trouble(None, &"ä".repeat(600))));
        let note = long.note.unwrap();
        assert!(note.len() <= 1024 && note.ends_with('…'), "{}", note.len());
    }
}
