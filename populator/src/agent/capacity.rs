//! Which drivers this node has, and how much room those have that make volumes here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::node::Node;
use super::plugin::{CallError, Patience, Plugin};
use crate::lease::{Drivers, Room};

/// How often drivers are asked.
const EVERY: Duration = Duration::from_secs(15);

/// How often while none has answered: a driver that starts with the node is soon there.
const AWAITED: Duration = Duration::from_secs(1);

/// Restores that begin or end together are one reason to ask.
const GATHER: Duration = Duration::from_secs(1);

/// How long a driver may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// For how long the last answer of a driver that is away counts: drivers restart.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Keeps `drivers` as the node's drivers say, until `stop`.
pub async fn watch(node: Arc<Node>, drivers: watch::Sender<Drivers>, stop: CancellationToken) {
    let mut answers: HashMap<String, (Room, Instant)> = HashMap::new();
    loop {
        let now = Instant::now();
        for (name, room) in ask(&node).await {
            answers.insert(name, (room, now));
        }
        answers.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        let known = answers
            .iter()
            .map(|(name, (room, _))| (name.clone(), *room))
            .collect();
        drivers.send_if_modified(|told| {
            let new = *told != known;
            *told = known;
            new
        });
        tokio::select! {
            () = sleep(if answers.is_empty() { AWAITED } else { EVERY }) => {}
            () = node.room_changed.notified() => sleep(GATHER).await,
            () = stop.cancelled() => return,
        }
    }
}

/// The drivers that answer.
async fn ask(node: &Node) -> Vec<(String, Room)> {
    let names = node.drivers.names().await;
    let answers = names.into_iter().map(|name| async move {
        let plugin = Plugin::new(
            Arc::clone(&node.drivers),
            &name,
            Patience::NONE,
            node.metrics.clone(),
        );
        match timeout(ANSWER, room(&plugin)).await {
            Ok(Ok((room, free))) => {
                node.snapshots.has_free(&name, free);
                // What is kept goes where a volume has no room beside it.
                let kept = node.snapshots.reclaimable(&name);
                let available_bytes = room.available_bytes.saturating_add(kept);
                Some((
                    name,
                    Room {
                        available_bytes,
                        ..room
                    },
                ))
            }
            Ok(Err(error)) => {
                tracing::debug!(driver = name, %error, "its room is not known now");
                None
            }
            Err(_) => None,
        }
    });
    join_all(answers).await.into_iter().flatten().collect()
}

/// Its room, and the bytes that it says are free, if it says so.
async fn room(plugin: &Plugin) -> Result<(Room, Option<i64>), CallError> {
    let abilities = plugin.abilities().await?;
    if !abilities.makes_volumes {
        return Ok((Room::default(), None));
    }
    let full = Room {
        makes_volumes: true,
        ..Room::default()
    };
    if !abilities.tells_capacity {
        // It says no when it is asked for too much, not before.
        let room = Room {
            available_bytes: i64::MAX,
            ..full
        };
        return Ok((room, None));
    }
    match plugin.capacity(abilities.topology).await {
        Ok(answer) => {
            let room = Room {
                available_bytes: answer.available_capacity,
                maximum_volume_bytes: answer.maximum_volume_size,
                ..full
            };
            Ok((room, Some(answer.available_capacity)))
        }
        // What a driver cannot say without a StorageClass's parameters does not hide it.
        Err(error) if error.code() == Some(Code::InvalidArgument) => Ok((full, None)),
        Err(error) => Err(error),
    }
}
