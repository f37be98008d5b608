//! Power cuts at random moments during random operations, with a model beside the real pool.
//!
//! The pool's file lies on an XFS of its own, and there are three ways to cut: the pool's file
//! system is shut down, so that what is not yet on its disk never comes there; a volume's file
//! system is; or the pool's file is cloned while all goes on, and the clone put in its place.
//! Then everything is taken down, as a reboot does, and started again.
//!
//! `POWER_ROUNDS` sets how often, `CRASH_SEED` has the same operations again.

use std::fs::{DirBuilder, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use driver::kernel::mounting::{self, MountOptions};
use driver::kernel::{loop_device, reflink, tools};

use crate::model::objects::Kind;
use crate::model::operation::{Caller, Operation, content_at};
use crate::model::random::variable;
use crate::model::world::{Cut, Late, World};
use crate::support::Bench;

/// How often the power goes, unless `POWER_ROUNDS` says otherwise.
const ROUNDS: u64 = 6;

/// The latest moment of a round at which it goes.
const LATEST: Duration = Duration::from_millis(600);

const POOL: [&str; 3] = ["--pool-size=4Gi", "--pool-sparse", "--no-http"];

/// The disk that the pool's file is on. It has holes, and never takes what it seems to have.
const DISK: u64 = 16 << 30;

/// The disk is mounted where the pool's directory is to be.
fn mount_disk(bench: &Bench) {
    let (disk, point) = (bench.path("disk.img"), bench.path("pool"));
    if !disk.exists() {
        File::create(&disk).unwrap().set_len(DISK).unwrap();
        tools::make_xfs_pool(&disk, "disk").unwrap();
        DirBuilder::new().create(&point).unwrap();
    }
    let device = loop_device::attach(&disk).unwrap();
    mounting::mount_device(device.path(), "xfs", &point, &MountOptions::default()).unwrap();
}

/// A way to cut the power.
#[derive(Debug, Clone)]
enum Way {
    /// The file system at this place loses what is not on its disk.
    ShutDown(PathBuf),
    /// The disk at this moment: its first name, and its second.
    Clone(PathBuf, PathBuf),
}

impl Way {
    fn choose(world: &mut World) -> Self {
        let bench = &world.bench;
        let open = world.model.volumes.values();
        let open = open.filter(|it| it.staged && it.kind != Kind::Block);
        let open: Vec<_> = open.map(|it| content_at(bench, it)).collect();
        let pool = Self::ShutDown(bench.path("pool/pool"));
        let clone = Self::Clone(bench.path("pool/pool.img"), bench.path("pool/clone.img"));
        match world.random.below(5) {
            0 if !open.is_empty() => Self::ShutDown(world.random.one(&open)),
            0..=2 => pool,
            _ => clone,
        }
    }

    fn go(&self) {
        match self {
            Self::ShutDown(point) => shut_down(point),
            Self::Clone(pool, clone) => drop(reflink::copy(pool, clone).unwrap()),
        }
    }
}

/// As `XFS_IOC_GOINGDOWN` does it, without the log; ext4 knows the same call. A volume may have
/// been unmounted meanwhile: then there is nothing to lose.
fn shut_down(point: &Path) {
    let status = Command::new("xfs_io")
        .args(["-x", "-c", "shutdown"])
        .arg(point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut_and_nothing_else() {
    let rounds = variable("POWER_ROUNDS").unwrap_or(ROUNDS);
    let began = Instant::now();
    let mut world = World::new(Bench::new(), "power");
    mount_disk(&world.bench);
    let mut driver = world.bench.start_with(&POOL).await;
    let mut ways = [0; 2];
    for round in 1..=rounds {
        let mut caller = Caller::of(&driver).await;
        let way = Way::choose(&mut world);
        let chosen = way.clone();
        let cut = Cut::after(world.random.moment(LATEST), move || chosen.go());
        let under_way = world.work(&mut caller, &cut, Late::IsNothing).await;
        cut.end();
        driver.kill();
        world.bench.reboot();
        let left = (world.bench.mounts(), world.bench.loops());
        assert!(left.0.is_empty() && left.1.is_empty(), "{way:?}: {left:?}");
        mount_disk(&world.bench);
        match &way {
            Way::Clone(pool, clone) => std::fs::rename(clone, pool).unwrap(),
            Way::ShutDown(_) => {}
        }
        ways[usize::from(matches!(way, Way::Clone(..)))] += 1;

        driver = world.bench.start_with(&POOL).await;
        let mut caller = Caller::of(&driver).await;
        forget_uses(&mut world, &mut caller, under_way.as_ref()).await;
        world.settle(&mut caller, under_way.as_ref()).await;
        world.check_node();
        world.check_content(&mut caller, 2, 1).await;
        if round % 50 == 0 {
            println!("{round} power cuts, {:?}", began.elapsed());
        }
    }
    let mut caller = Caller::of(&driver).await;
    world.close(&mut caller).await;
    println!(
        "power cuts: {rounds} rounds in {:?}, {world}",
        began.elapsed()
    );
    println!(
        "  {} by shutting down, {} by cloning the disk",
        ways[0], ways[1]
    );
    println!("  everything acknowledged was there, and nothing else");
}

/// After a reboot nothing is in use, and kubelet takes back what it had published.
async fn forget_uses(world: &mut World, caller: &mut Caller, under_way: Option<&Operation>) {
    for (id, volume) in &mut world.model.volumes {
        let target = world.bench.target(&volume.name);
        if Path::new(&target).exists() {
            caller.calls().unpublish(id, &target).await.unwrap();
        }
        (volume.staged, volume.published) = (false, false);
    }
    // What the write left behind is right, whatever it is.
    if let Some(Operation::Write { volume, slot, .. }) = under_way {
        world.model.volume(volume).content.tear(*slot);
    }
}
