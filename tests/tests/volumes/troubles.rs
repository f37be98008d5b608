//! What the driver tells of a volume whose image is gone: an Event of the Node, where `kubectl describe
//! node` finds it, and another when all is well again.

use std::fs;

use anyhow::{Context as _, Result};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use tests::{
    shared::{SharedSuite, World},
    wait::eventually,
};

use crate::{EXT4, STAY, WAIT};

const REASON: &str = "ImageMissing";

pub fn add(suite: &mut SharedSuite) {
    suite.test("a_missing_image_is_told_on_the_node", told);
}

async fn told(world: &World) -> Result<()> {
    let tenant = world.tenant("troubles").await?;
    tenant.claim("volume", &EXT4).await?;
    tenant.pod("before", "volume", STAY).await?;
    tenant.running("before", WAIT).await?;
    tenant.exec("before", "echo here > /data/file").await?;
    tenant.delete_pod("before").await?;
    tenant.unstaged("volume", WAIT).await?;

    let handle = tenant.handle("volume").await?;
    let image = tenant.image("volume", world.cluster.node(0)).await?;
    let away = image.with_extension("away");
    fs::rename(&image, &away)?;
    let began = event(world, "Warning", &handle).await;
    // Whatever was told: without its image the volume cannot be deleted with the namespace.
    fs::rename(&away, &image)?;
    began?;
    event(world, "Normal", &handle).await?;

    tenant.pod("after", "volume", STAY).await?;
    tenant.running("after", WAIT).await?;
    tenant.exec("after", "grep here /data/file").await.map(drop)
}

/// Waits for an Event of the Node that names the volume.
async fn event(world: &World, kind: &str, volume: &str) -> Result<()> {
    let node = world.cluster.node(0).name();
    let events: Api<Event> = Api::all(world.cluster.client());
    let sought = |event: &Event| {
        let regarding = event.regarding.as_ref();
        let of_node = regarding.is_some_and(|it| {
            it.kind.as_deref() == Some("Node") && it.name.as_deref() == Some(node)
        });
        let note = event.note.as_deref().unwrap_or_default();
        of_node && event.type_.as_deref() == Some(kind) && note.contains(volume)
    };
    let what = format!("{node} has a {kind} Event {REASON} of {volume}");
    eventually(&what, WAIT, async || {
        let only = ListParams::default().fields(&format!("reason={REASON}"));
        let found = events.list(&only).await?;
        let found = found.iter().find(|event| sought(event));
        found.map(drop).context("there is none")
    })
    .await
}
