//! One event: a restore is brought to each step and held there, the event happens, the holds are
//! released, and each restore must come to one of its ends.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use crds::{VolumeRestore, volume_restore::Phase};
use k8s_openapi::api::{core::v1::Pod, storage::v1::StorageClass};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;
use strum::IntoEnumIterator as _;
use tests::{
    cluster::Node,
    original::{KEY, Original},
    s3::fault::Fault,
    shared::World,
    tenant::{Claim, Tenant, Use, Wish},
    wait::eventually,
};

use super::{
    event::Event,
    step::{Hold, Step, Way},
    stores::Stores,
    watch,
};

/// Longer than any pause after which something is tried again.
pub const WAIT: Duration = Duration::from_secs(180);

/// So slow that nothing more comes while a restore is held.
const STANDSTILL: Fault = Fault::Share(8 << 10);

/// Slow enough for a restore to be met midway.
const TRICKLE: Fault = Fault::Share(256 << 10);

/// Bytes of noise in an archive: more than what is asked for at once, so that a store which answers no
/// request any more is noticed.
const NOISE: u64 = 20 << 20;

/// The pod that asks for volumes before they are there, and the one that looks into the others.
const CONSUMER: &str = "consumer";
const READER: &str = "reader";

/// The archives that restores are made from.
pub struct Archives {
    /// The one that they begin with.
    pub original: Original,
    /// The one that takes its place.
    pub other: Original,
}

impl Archives {
    /// Both, large enough to be met midway.
    pub fn make() -> Result<Self> {
        Ok(Self {
            original: Original::make(NOISE)?,
            other: Original::make(NOISE)?,
        })
    }
}

/// The StorageClasses of the two ways.
pub struct Classes {
    direct: String,
    prime: String,
}

impl Classes {
    fn of(&self, way: Way) -> &str {
        match way {
            Way::Direct => &self.direct,
            Way::Prime => &self.prime,
        }
    }

    /// Both.
    pub fn all(&self) -> [&str; 2] {
        [&self.direct, &self.prime]
    }
}

/// What one event needs.
pub struct Round<'a> {
    /// Where it happens.
    pub world: &'a World,
    /// What happens.
    pub event: Event,
    /// The namespace of its restores.
    pub tenant: Tenant<'a>,
    /// What they read the store through.
    pub stores: Stores,
    /// What they are made from.
    pub archives: &'a Archives,
    /// The StorageClasses of their PVCs, which nobody else uses.
    pub classes: Classes,
    /// The access key in their Secret.
    pub user: String,
    /// Their PVCs.
    pub claims: BTreeMap<Step, Claim>,
}

impl<'a> Round<'a> {
    /// A namespace of its own with all that restores need.
    pub async fn prepare(world: &'a World, event: Event, archives: &'a Archives) -> Result<Self> {
        let name = event.namespace();
        let (tenant, stores) = (world.tenant(&name).await?, Stores::start(world).await?);
        let (user, secret) = world.server.add_user().await?;
        stores.write(&tenant, (&user, &secret)).await?;
        archives.original.upload(world, &tenant).await?;
        // One for each, and each another content: restores of the same one would wait for each other.
        for step in Step::iter() {
            let claim = step.claim();
            let choices = json!({
                "storeRef": {"name": Stores::name(step.way())},
                "exclude": [format!("nothing-for-{claim}")],
            });
            tenant.backup_as(&claim, KEY, choices).await?;
        }
        let classes = Classes {
            direct: copy_class(world, "fast-csi-storage", &name).await?,
            prime: copy_class(world, "other-immediate", &name).await?,
        };
        Ok(Self {
            world,
            event,
            tenant,
            stores,
            archives,
            classes,
            user,
            claims: BTreeMap::new(),
        })
    }

    /// The node that all volumes lie on, but those for which a pod asks later.
    pub fn node(&self) -> &Node {
        self.world.cluster.node(0)
    }

    /// Brings a restore to each step. Those that need a store that is slow come last.
    pub async fn arrange(&mut self) -> Result<()> {
        for step in Step::iter() {
            for path in self.paths(step, "hold") {
                fs::write(path, "")?;
            }
        }
        let (slow, others): (Vec<_>, Vec<_>) =
            Step::iter().partition(|step| step.hold() == Hold::SlowStore);
        for step in &others {
            let claim = self.claim(*step).await?;
            self.claims.insert(*step, claim);
        }
        for step in &others {
            let held = self.held(*step).await;
            held.with_context(|| format!("nothing is {}", step.claim()))?;
        }
        self.stores.set(TRICKLE).await?;
        for step in &slow {
            let claim = self.claim(*step).await?;
            self.claims.insert(*step, claim);
        }
        for step in &slow {
            // Until it has a checkpoint.
            self.tenant.written(&step.claim(), 1 << 20, WAIT).await?;
            self.stores.of(step.way()).set(STANDSTILL).await?;
        }
        for step in &slow {
            let held = self.held(*step).await;
            held.with_context(|| format!("{} is over already", step.claim()))?;
        }
        Ok(())
    }

    async fn claim(&self, step: Step) -> Result<Claim> {
        let name = step.claim();
        let wish = Wish {
            class: self.classes.of(step.way()),
            backup: Some(&name),
            ..Wish::BACKUP
        };
        match (step.hold(), step.way()) {
            (Hold::NoConsumer, _) | (_, Way::Prime) => self.tenant.claim(&name, &wish).await,
            (_, Way::Direct) => {
                let node = self.node().name();
                self.tenant.claim_on(&name, &wish, node).await
            }
        }
    }

    async fn held(&self, step: Step) -> Result<()> {
        let claim = step.claim();
        match step.hold() {
            Hold::NoConsumer => {
                eventually("it waits for a pod", WAIT, async || {
                    let restore = self.tenant.api::<VolumeRestore>().get(&claim).await?;
                    let told = watch::ready(&restore).context("it says nothing")?;
                    ensure!(told == "WaitingForFirstConsumer", "it says {told}");
                    Ok(())
                })
                .await
            }
            Hold::Place(_) => {
                eventually("it comes to its place", WAIT, async || {
                    let held = self.paths(step, "held").iter().any(|path| path.exists());
                    let restore = self.tenant.api::<VolumeRestore>().get(&claim).await;
                    let told = restore.ok().and_then(|restore| watch::ready(&restore));
                    ensure!(held, "its VolumeRestore says {told:?}");
                    Ok(())
                })
                .await
            }
            Hold::Done => self.tenant.completed(&claim, WAIT).await.map(drop),
            Hold::SlowStore => {
                eventually("it is being filled", WAIT, async || {
                    let restore = self.tenant.api::<VolumeRestore>().get(&claim).await?;
                    let phase = restore.status.unwrap_or_default().phase;
                    ensure!(phase == Phase::Restoring, "it is {phase:?}");
                    Ok(())
                })
                .await
            }
        }
    }

    /// The files by which a restore is held at `step`, one on each node.
    fn paths(&self, step: Step, kind: &str) -> Vec<PathBuf> {
        let Hold::Place(place) = step.hold() else {
            return Vec::new();
        };
        let file = format!("{place}.{}.{}.{kind}", self.tenant.name, step.claim());
        let up = self.world.cluster.nodes().iter().filter(|it| it.is_up());
        up.map(|node| node.root().join("var/lib/fail-points").join(&file))
            .collect()
    }

    /// Lets the event happen, and everything go on.
    pub async fn strike(&self) -> Result<Instant> {
        self.event.strike(self).await?;
        let struck = Instant::now();
        for step in Step::iter() {
            for path in self.paths(step, "hold") {
                fs::remove_file(path)?;
            }
        }
        if !self.event.is_of_store() {
            self.stores.set(Fault::None).await?;
        }
        self.event.follow(self).await?;
        let wanted = self.of_consumer();
        if !wanted.is_empty() {
            self.pod(CONSUMER, &wanted).await?;
        }
        Ok(struck)
    }

    fn of_consumer(&self) -> Vec<Step> {
        let steps = self.claims.keys().copied();
        steps
            .filter(|step| self.event.brings_consumer(*step))
            .collect()
    }

    async fn pod(&self, name: &str, steps: &[Step]) -> Result<()> {
        let claims: Vec<_> = steps.iter().map(|step| step.claim()).collect();
        let paths: Vec<_> = claims.iter().map(|claim| format!("/{claim}")).collect();
        let uses = claims.iter().zip(&paths);
        let uses: Vec<_> = uses.map(|(claim, path)| Use::Files(claim, path)).collect();
        self.tenant.pod_using(name, "sleep 1000000", &uses).await
    }

    /// Has a pod mount the PVCs of these steps, but those that one has already asked for.
    pub async fn read(&self, steps: &[Step]) -> Result<()> {
        let theirs = |step: &&Step| !self.event.brings_consumer(**step);
        let steps: Vec<Step> = steps.iter().filter(theirs).copied().collect();
        if steps.is_empty() {
            return Ok(());
        }
        self.pod(READER, &steps).await
    }

    /// Compares what a pod sees with the archive that it must have come from.
    pub async fn compare(&self, step: Step, archive: &Original) -> Result<()> {
        let pod = if self.event.brings_consumer(step) {
            CONSUMER
        } else {
            READER
        };
        let mounted = self.tenant.mounted(pod, &step.claim(), WAIT).await?;
        archive.equals(&mounted)
    }

    /// Deletes the pods that there are.
    pub async fn delete_pods(&self) -> Result<()> {
        for pod in [CONSUMER, READER] {
            if self.tenant.api::<Pod>().get_opt(pod).await?.is_some() {
                self.tenant.delete_pod(pod).await?;
            }
        }
        Ok(())
    }
}

/// A StorageClass as `class`, for one namespace alone.
async fn copy_class(world: &World, class: &str, namespace: &str) -> Result<String> {
    let classes: Api<StorageClass> = Api::all(world.cluster.client());
    let name = format!("{class}-{namespace}");
    let copy = StorageClass {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        ..classes.get(class).await?
    };
    classes.create(&PostParams::default(), &copy).await?;
    Ok(name)
}
