//! The events, and how they come about.

use std::time::Duration;

use anyhow::{Result, ensure};
use crds::VolumeBackup;
use k8s_openapi::api::{core::v1::Node as NodeObject, storage::v1::StorageClass};
use kube::{Api, api::DeleteParams};
use strum::IntoEnumIterator as _;
use tests::{
    process,
    product::{self, NAMESPACE},
    s3::fault::Fault,
};

use super::{
    round::{Round, WAIT},
    step::{Progress, Step, Way},
};

/// What happens while restores are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter)]
pub enum Event {
    /// `kill -9` of the controller.
    ControllerKilled,
    /// `kill -9` of the agents.
    AgentKilled,
    /// `kill -9` of both drivers.
    DriverKilled,
    /// `kill -9` of kube-apiserver, which is started again.
    ApiServerRestarted,
    /// Nobody listens at the store's address, until that is told.
    StoreDown,
    /// The store sends little, and goes on so.
    StoreSlow,
    /// The store answers 503, until that is told.
    StoreBusy,
    /// Another archive takes the place of the one that is restored.
    ArchiveReplaced,
    /// The Secret has other keys, and the old ones are good for nothing.
    SecretRotated,
    /// The PVC is deleted.
    ClaimDeleted,
    /// The VolumeBackup is deleted.
    BackupDeleted,
    /// The StorageClass is deleted.
    ClassDeleted,
    /// No pod is scheduled to the node any more.
    NodeCordoned,
    /// The node's plug is pulled, and its Node object deleted.
    NodeGone,
}

/// Slow for all restores of a way together, and yet so that they end.
const LITTLE: Fault = Fault::Share(3 << 20);

impl Event {
    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControllerKilled => "controller killed",
            Self::AgentKilled => "agent killed",
            Self::DriverKilled => "driver killed",
            Self::ApiServerRestarted => "API server restarted",
            Self::StoreDown => "S3 down",
            Self::StoreSlow => "S3 slow",
            Self::StoreBusy => "S3 answers 503",
            Self::ArchiveReplaced => "archive replaced",
            Self::SecretRotated => "Secret rotated",
            Self::ClaimDeleted => "PVC deleted",
            Self::BackupDeleted => "VolumeBackup deleted",
            Self::ClassDeleted => "StorageClass deleted",
            Self::NodeCordoned => "node cordoned",
            Self::NodeGone => "node gone",
        }
    }

    /// What `TABLE_EVENTS` calls it.
    pub fn key(self) -> String {
        self.name().to_lowercase().replace(' ', "-")
    }

    /// The namespace of the restores that are met by it.
    pub fn namespace(self) -> String {
        format!("table-{}", self.key())
    }

    /// Whether only the restores of its own namespace notice it, so that others may go on beside it.
    pub fn is_private(self) -> bool {
        match self {
            Self::ControllerKilled
            | Self::AgentKilled
            | Self::DriverKilled
            | Self::ApiServerRestarted
            | Self::NodeCordoned
            | Self::NodeGone => false,
            Self::StoreDown
            | Self::StoreSlow
            | Self::StoreBusy
            | Self::ArchiveReplaced
            | Self::SecretRotated
            | Self::ClaimDeleted
            | Self::BackupDeleted
            | Self::ClassDeleted => true,
        }
    }

    /// Whether the store is not as it was, so that it is not for the round to say that it is well again.
    pub fn is_of_store(self) -> bool {
        matches!(self, Self::StoreDown | Self::StoreSlow | Self::StoreBusy)
    }

    /// Whether a pod asks for the PVC at `step` after the event; until then none does.
    pub fn brings_consumer(self, step: Step) -> bool {
        match self {
            // The scheduler has to choose another node.
            Self::NodeGone => step.way() == Way::Direct && step.progress() != Progress::Published,
            Self::ClaimDeleted => false,
            _ => step == Step::Waiting,
        }
    }

    /// Lets it happen, while every restore is held.
    pub async fn strike(self, round: &Round<'_>) -> Result<()> {
        let (world, tenant) = (round.world, &round.tenant);
        match self {
            Self::ControllerKilled => kill(round, &["controller"]).await,
            Self::AgentKilled => kill(round, &["agent"]).await,
            Self::DriverKilled => kill(round, &["driver", "other-driver"]).await,
            Self::ApiServerRestarted => world.cluster.pause_api_server(),
            Self::StoreDown => round.stores.set(Fault::Refuse).await,
            Self::StoreSlow => round.stores.set(LITTLE).await,
            Self::StoreBusy => round.stores.set(Fault::Answer(503)).await,
            Self::ArchiveReplaced => round.archives.other.upload(world, tenant).await,
            Self::SecretRotated => {
                let (access, secret) = world.server.add_user().await?;
                let keys = (access.as_str(), secret.as_str());
                round.stores.write(tenant, keys).await?;
                world.server.remove_user(&round.user).await
            }
            Self::ClaimDeleted => {
                for claim in round.claims.values() {
                    tenant.delete_claim(&claim.name).await?;
                }
                Ok(())
            }
            Self::BackupDeleted => {
                let backups = tenant.api::<VolumeBackup>();
                for step in Step::iter() {
                    let name = step.claim();
                    backups.delete(&name, &DeleteParams::default()).await?;
                }
                Ok(())
            }
            Self::ClassDeleted => {
                let classes: Api<StorageClass> = Api::all(world.cluster.client());
                for class in round.classes.all() {
                    classes.delete(class, &DeleteParams::default()).await?;
                }
                Ok(())
            }
            Self::NodeCordoned => {
                let node = round.node().name();
                world.cluster.kubectl(&["cordon", node]).await.map(drop)
            }
            Self::NodeGone => {
                round.node().pull_plug()?;
                let nodes: Api<NodeObject> = Api::all(world.cluster.client());
                let name = round.node().name();
                nodes.delete(name, &DeleteParams::default()).await?;
                Ok(())
            }
        }
    }

    /// What follows once the restores go on, where it is over by then.
    pub async fn follow(self, round: &Round<'_>) -> Result<()> {
        match self {
            Self::ApiServerRestarted => {
                // Long enough for everyone to notice.
                tokio::time::sleep(Duration::from_secs(2)).await;
                round.world.cluster.resume_api_server().await
            }
            Self::StoreDown | Self::StoreBusy => {
                for step in [Step::Streaming, Step::PrimeStreaming] {
                    let claim = &round.claims[&step];
                    let told = round.tenant.was_told(claim, "StoreUnavailable", WAIT);
                    told.await?;
                }
                round.stores.set(Fault::None).await
            }
            Self::NodeGone => move_other_driver(round).await,
            Self::ControllerKilled
            | Self::AgentKilled
            | Self::DriverKilled
            | Self::StoreSlow
            | Self::ArchiveReplaced
            | Self::SecretRotated
            | Self::ClaimDeleted
            | Self::BackupDeleted
            | Self::ClassDeleted
            | Self::NodeCordoned => Ok(()),
        }
    }

    /// What is taken back once all restores have ended.
    pub async fn end(self, round: &Round<'_>) -> Result<()> {
        if self == Self::NodeCordoned {
            let node = round.node().name();
            round.world.cluster.kubectl(&["uncordon", node]).await?;
        }
        Ok(())
    }
}

async fn kill(round: &Round<'_>, names: &[&str]) -> Result<()> {
    let mut containers = product::containers(&round.world.cluster).await?;
    containers.retain(|container| names.contains(&container.name.as_str()));
    ensure!(
        containers.len() >= names.len(),
        "of {names:?} run {containers:?}"
    );
    for container in containers {
        process::kill(container.pid);
    }
    Ok(())
}

/// Its controller is on one node at a time.
async fn move_other_driver(round: &Round<'_>) -> Result<()> {
    let patch =
        r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node-2"}}}}}"#;
    let words = [
        "patch",
        "daemonset/other-driver",
        "-n",
        NAMESPACE,
        "-p",
        patch,
    ];
    round.world.cluster.kubectl(&words).await.map(drop)
}
