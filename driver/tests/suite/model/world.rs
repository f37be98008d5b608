//! A real pool with its model beside it: operations go on until a cut falls, and afterwards the
//! pool is what the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use csi::v1::{ListSnapshotsRequest, ListVolumesRequest};
use driver::kernel::DeviceNumber;
use driver::kernel::freezing::{self, Target};

use super::objects::{self, Kind, Model, Volume};
use super::operation::{Caller, Operation, content_at, places};
use super::random::Random;
use crate::support::{Bench, MIB};

/// How long a repetition may be refused, while a tool that a dead driver started ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a pool's own file system may come to need for names that are gone again.
const SLACK: i64 = 16 * MIB;

/// Something that falls at a random moment, from a thread of its own.
pub struct Cut {
    fallen: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Cut {
    pub fn after(delay: Duration, cut: impl FnOnce() + Send + 'static) -> Self {
        let fallen = Arc::new(AtomicBool::new(false));
        let tell = fallen.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(delay);
            tell.store(true, Ordering::SeqCst);
            cut();
        });
        Self { fallen, thread }
    }

    fn has_fallen(&self) -> bool {
        self.fallen.load(Ordering::SeqCst)
    }

    /// Waits until it is over.
    pub fn end(self) {
        self.thread.join().unwrap();
    }
}

/// What an answer says that comes after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// That it was done before: only the driver died.
    Counts,
    /// Nothing: the disk stopped, or was copied, before.
    IsNothing,
}

pub struct World {
    pub bench: Bench,
    pub model: Model,
    pub random: Random,
    names: &'static str,
    number: u64,
    operations: u64,
    cuts: BTreeMap<&'static str, u64>,
    /// What could be promised of the empty pool.
    room: Option<i64>,
}

impl World {
    /// `names` is what names begin with: ids follow from names, and an id is part of the paths by
    /// which a device is taken into consideration, also while another test's pool is broken.
    pub fn new(bench: Bench, names: &'static str) -> Self {
        Self {
            bench,
            names,
            model: Model::default(),
            random: Random::seeded(),
            number: 0,
            operations: 0,
            cuts: BTreeMap::new(),
            room: None,
        }
    }

    /// Has operations done until the cut falls. Returns the one that was under way.
    pub async fn work(&mut self, caller: &mut Caller, cut: &Cut, late: Late) -> Option<Operation> {
        if self.room.is_none() {
            self.room = Some(caller.calls().available().await);
        }
        while !cut.has_fallen() {
            self.number += 1;
            let operation = caller.draw(
                &self.model,
                &mut self.random,
                &format!("{}-{}", self.names, self.number),
                self.number,
            );
            let result = caller.perform(&operation, &self.model, &self.bench).await;
            match (result, cut.has_fallen()) {
                (Err(status), false) => panic!("{operation:?}: {status}"),
                (Ok(()), fallen) if !fallen || late == Late::Counts => {
                    self.operations += 1;
                    self.model.apply(&operation);
                }
                _ => {
                    *self.cuts.entry(operation.word()).or_default() += 1;
                    return Some(operation);
                }
            }
        }
        *self.cuts.entry("nothing").or_default() += 1;
        None
    }

    /// After a restart: takes what became of the operation that was under way, and makes sure that
    /// lists and folders have all else as it was acknowledged.
    pub async fn settle(&mut self, caller: &mut Caller, under_way: Option<&Operation>) {
        let (sizes, shown) = self.lists(caller).await;
        if let Some(operation) = under_way
            && became(&self.model, operation, &sizes, &shown)
        {
            self.model.apply(operation);
        }
        assert_eq!(sizes, self.model.sizes(), "volumes after {under_way:?}");
        assert_eq!(shown, self.model.shown(), "snapshots after {under_way:?}");
        self.check_folders(under_way);
    }

    /// Repeats what was under way on the node, or takes it back, as its caller would.
    pub async fn finish(&mut self, caller: &mut Caller, under_way: Option<Operation>) {
        let Some(operation) = under_way else { return };
        let Some(inverse) = operation.inverse() else {
            return;
        };
        let taken = if self.random.once_in(2) {
            operation
        } else {
            inverse
        };
        self.insist(caller, &taken).await;
    }

    async fn insist(&mut self, caller: &mut Caller, operation: &Operation) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(status) = caller.perform(operation, &self.model, &self.bench).await {
            assert!(Instant::now() < deadline, "{operation:?}: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.model.apply(operation);
    }

    /// All volumes with their sizes, and all snapshots, by pages.
    async fn lists(&mut self, caller: &mut Caller) -> (BTreeMap<String, i64>, BTreeSet<String>) {
        let (mut sizes, mut shown) = (BTreeMap::new(), BTreeSet::new());
        let controller = &mut caller.calls().controller;
        let max_entries = 1 + i32::try_from(self.random.below(4)).unwrap();
        let mut starting_token = String::new();
        loop {
            let request = ListVolumesRequest {
                max_entries,
                starting_token,
            };
            let page = controller.list_volumes(request).await.unwrap().into_inner();
            for volume in page.entries.into_iter().filter_map(|it| it.volume) {
                let twice = sizes.insert(volume.volume_id, volume.capacity_bytes);
                assert_eq!(twice, None);
            }
            starting_token = page.next_token;
            if starting_token.is_empty() {
                break;
            }
        }
        loop {
            let request = ListSnapshotsRequest {
                max_entries,
                starting_token,
                ..Default::default()
            };
            let page = controller.list_snapshots(request).await.unwrap();
            let page = page.into_inner();
            for snapshot in page.entries.into_iter().filter_map(|it| it.snapshot) {
                assert!(snapshot.ready_to_use && shown.insert(snapshot.snapshot_id));
            }
            starting_token = page.next_token;
            if starting_token.is_empty() {
                return (sizes, shown);
            }
        }
    }

    /// There is a folder for each object, with its image and its records, and no other.
    fn check_folders(&self, under_way: Option<&Operation>) {
        let pool = self.bench.path("pool/pool");
        let volumes: BTreeSet<_> = self.model.volumes.keys().cloned().collect();
        let groups: BTreeSet<_> = self.model.groups.keys().cloned().collect();
        assert_eq!(names(&pool.join("volumes")), volumes, "{under_way:?}");
        assert_eq!(
            names(&pool.join("snapshots")),
            self.model.shown(),
            "{under_way:?}"
        );
        if pool.join("groups").exists() {
            assert_eq!(names(&pool.join("groups")), groups, "{under_way:?}");
        }
        for (id, volume) in &self.model.volumes {
            let folder = pool.join("volumes").join(id);
            only(&folder, &["image", "volume.json", "staging.json"]);
            let length = folder.join("image").metadata().unwrap().len();
            assert_eq!(i64::try_from(length).unwrap(), volume.mib * MIB, "{id}");
        }
        for id in self.model.snapshots.keys() {
            only(
                &pool.join("snapshots").join(id),
                &["image", "snapshot.json"],
            );
        }
        for id in &groups {
            only(&pool.join("groups").join(id), &["group.json"]);
        }
    }

    /// What is staged is mounted, and what is published; nothing else is, no other image is
    /// attached, nothing is frozen, and nobody waits to thaw it.
    pub fn check_node(&self) {
        let within = |path: &Path, folder: &str| path.starts_with(self.bench.path(folder));
        let images = self.model.volumes.iter().filter(|(_, it)| it.staged);
        let images: BTreeSet<_> = images
            .map(|(id, _)| self.bench.path("pool/pool/volumes").join(id).join("image"))
            .collect();
        let attached = self.bench.loops().into_iter().map(|it| it.file);
        let attached: Vec<_> = attached.filter(|it| within(it, "pool/pool")).collect();
        assert_eq!(attached.len(), images.len(), "{attached:?}");
        assert_eq!(BTreeSet::from_iter(attached), images);

        let (mut mounts, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for volume in self.model.volumes.values() {
            let (staging, target) = places(&self.bench, volume);
            if volume.staged && volume.kind != Kind::Block {
                mounts.insert(PathBuf::from(staging));
            }
            if volume.published {
                mounts.insert(PathBuf::from(&target));
                targets.insert(PathBuf::from(target));
            }
        }
        let mounted = self.bench.mounts().into_iter();
        let mounted: Vec<_> = mounted.filter(|it| within(it, "mounts")).collect();
        assert_eq!(mounted.len(), mounts.len(), "{mounted:?}");
        assert_eq!(BTreeSet::from_iter(mounted), mounts);
        let folder = self.bench.path("mounts");
        let shown = names(&folder)
            .into_iter()
            .filter(|it| it.ends_with("-target"));
        let shown: BTreeSet<_> = shown.map(|name| folder.join(name)).collect();
        assert_eq!(shown, targets);

        for volume in self.model.volumes.values() {
            if volume.staged && volume.kind != Kind::Block {
                let point = content_at(&self.bench, volume);
                let device = rustix::fs::stat(&point).unwrap().st_dev;
                let device = DeviceNumber::from_dev(device);
                let thawed = freezing::thaw(&Target { point, device }).unwrap();
                assert!(!thawed, "{volume:?} was left frozen");
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.guards().is_empty() {
            assert!(Instant::now() < deadline, "guards: {:?}", self.guards());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The processes that would thaw something here.
    fn guards(&self) -> Vec<String> {
        let processes = std::fs::read_dir("/proc").unwrap();
        let lines = processes.filter_map(|it| {
            let line = std::fs::read(it.ok()?.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        });
        let here = self.bench.path("mounts").display().to_string();
        lines
            .filter(|it| it.contains(freezing::GUARD) && it.contains(&here))
            .collect()
    }

    /// Compares the content of some volumes, and of some snapshots by restoring them.
    pub async fn check_content(&mut self, caller: &mut Caller, volumes: usize, snapshots: usize) {
        let all = self.model.volumes.clone().into_iter().collect();
        for (id, volume) in self.random.some(all, volumes) {
            caller.check(&self.bench, &id, &volume).await;
        }
        let all = self.model.snapshots.clone().into_iter().collect();
        for (id, snapshot) in self.random.some(all, snapshots) {
            self.number += 1;
            let name = format!("{}-check-{}", self.names, self.number);
            let kind = snapshot.kind.name();
            let copied = caller.calls().copy(&name, &id, kind, snapshot.mib);
            let copied = copied.await.unwrap().volume_id;
            let volume = Volume {
                name,
                kind: snapshot.kind,
                mib: snapshot.mib,
                content: snapshot.content,
                staged: false,
                published: false,
            };
            caller.check(&self.bench, &copied, &volume).await;
            caller.calls().delete(&copied).await.unwrap();
        }
    }

    /// Compares everything, deletes everything, and finds the pool as it was at the beginning.
    pub async fn close(&mut self, caller: &mut Caller) {
        self.check_content(caller, usize::MAX, usize::MAX).await;
        let mut last = Vec::new();
        for (id, it) in &self.model.volumes {
            let volume = |make: fn(String) -> Operation| make(id.clone());
            if it.published {
                last.push(volume(|volume| Operation::Unpublish { volume }));
            }
            if it.staged {
                last.push(volume(|volume| Operation::Unstage { volume }));
            }
            last.push(volume(|volume| Operation::Delete { volume }));
        }
        let groups = self.model.groups.keys().cloned();
        last.extend(groups.map(|group| Operation::DeleteGroup { group }));
        let single = self
            .model
            .snapshots
            .iter()
            .filter(|(_, it)| it.group.is_none());
        last.extend(single.map(|(id, _)| Operation::DeleteSnapshot {
            snapshot: id.clone(),
        }));
        for operation in &last {
            self.insist(caller, operation).await;
        }
        self.settle(caller, None).await;
        self.check_node();
        let (room, left) = (self.room.unwrap(), caller.calls().available().await);
        assert!(left >= room - SLACK, "{left} bytes are left of {room}");
    }
}

/// Whether an operation without an answer was done, as far as lists tell.
fn became(
    model: &Model,
    operation: &Operation,
    sizes: &BTreeMap<String, i64>,
    shown: &BTreeSet<String>,
) -> bool {
    match operation {
        Operation::Create { name, .. } | Operation::Copy { name, .. } => {
            sizes.contains_key(&objects::volume_id(name))
        }
        Operation::Delete { volume } => !sizes.contains_key(volume),
        Operation::Expand { volume, mib } => sizes.get(volume) == Some(&(mib * MIB)),
        Operation::Snapshot { name, .. } => shown.contains(&objects::snapshot_id(name)),
        Operation::DeleteSnapshot { snapshot } => !shown.contains(snapshot),
        Operation::Group { name, volumes } => {
            let members = objects::members(name, volumes);
            members.iter().all(|member| shown.contains(member))
        }
        Operation::DeleteGroup { group } => {
            let members = &model.groups[group];
            !members.iter().any(|member| shown.contains(member))
        }
        // Lists say nothing of these.
        Operation::Stage { .. }
        | Operation::Unstage { .. }
        | Operation::Publish { .. }
        | Operation::Unpublish { .. }
        | Operation::Write { .. } => false,
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A folder has no other files than these, or what was being written in place of one.
fn only(folder: &Path, files: &[&str]) {
    for name in names(folder) {
        let known = files.contains(&name.trim_end_matches(".new"));
        assert!(known, "{} is left in {}", name, folder.display());
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cuts: u64 = self.cuts.values().sum();
        writeln!(
            f,
            "{} operations acknowledged, {cuts} cuts during:",
            self.operations
        )?;
        for (word, count) in &self.cuts {
            writeln!(f, "  {count:>5} {word}")?;
        }
        Ok(())
    }
}
