//! A pool that is promised to its last byte, with snapshots: every volume can still be overwritten
//! in full, at random, and no write of any of them ever finds the pool full.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;

use tonic::Code;

use crate::support::{Bench, Driver, MIB, capability};

/// The unit of writing, as databases have it.
const BLOCK: usize = 4096;

#[tokio::test]
async fn a_full_pool_on_xfs_is_never_a_volumes_trouble() {
    let bench = Bench::new();
    let driver = bench
        .start_with(&["--pool-size=512Mi", "--pool-sparse", "--no-http"])
        .await;
    overwrite_everything(&bench, driver).await;
}

#[tokio::test]
async fn a_full_pool_on_btrfs_is_never_a_volumes_trouble() {
    let bench = Bench::new();
    let file = bench.path("btrfs.img");
    File::create(&file).unwrap().set_len(768 << 20).unwrap();
    run("mkfs.btrfs", &["-q"], &file);
    let pool = bench.path("pool");
    std::fs::create_dir(&pool).unwrap();
    let mounted = Command::new("mount")
        .args(["-o", "loop"])
        .args([&file, &pool])
        .status();
    assert!(mounted.unwrap().success());
    let driver = bench.start_with(&["--no-http"]).await;
    overwrite_everything(&bench, driver).await;
}

fn run(tool: &str, arguments: &[&str], target: &Path) {
    let output = Command::new(tool)
        .args(arguments)
        .arg(target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{tool}: {output:?}");
}

async fn overwrite_everything(bench: &Bench, mut driver: Driver) {
    // One volume that is full, in large extents, and one that is half full.
    let first = Volume::new(bench, &mut driver, "first", 64).await;
    first.fill(1, 64);
    let second = Volume::new(bench, &mut driver, "second", 48).await;
    second.fill(2, 24);
    let one = driver.snapshot("one", &first.id).await.unwrap().snapshot_id;
    let two = driver
        .snapshot("two", &second.id)
        .await
        .unwrap()
        .snapshot_id;
    // Fragments it: half of the snapshot's blocks are the volume's no more.
    first.overwrite(3, 2);
    let three = driver
        .snapshot("three", &first.id)
        .await
        .unwrap()
        .snapshot_id;
    let clone = driver
        .copy("clone", &one, "block", 128)
        .await
        .unwrap()
        .volume_id;
    let clone = Volume::with(bench, &mut driver, "clone", clone, 64).await;

    // What it has for itself again, a further snapshot would pin.
    first.overwrite(4, 4);

    let room = driver.available().await / MIB;
    assert!(room > 16, "{room} MiB are left to fill");
    let last = Volume::new(bench, &mut driver, "last", room).await;
    assert_eq!(driver.available().await, 0);
    for refused in [
        driver.create("more", "block", 1).await.map(drop),
        driver.copy("more", &one, "block", 64).await.map(drop),
        driver.snapshot("more", &first.id).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("left to promise"), "{refused}");
    }
    for (number, volume) in [&first, &second, &clone, &last].into_iter().enumerate() {
        volume.overwrite(10 + u8::try_from(number).unwrap(), 1);
    }
    for (number, volume) in [&first, &second, &clone, &last].into_iter().enumerate() {
        volume.holds(10 + u8::try_from(number).unwrap());
    }
    let volumes = [first, second, clone, last];
    for volume in &volumes {
        driver.unpublish(&volume.id, &volume.target).await.unwrap();
        driver.unstage(&volume.id, &volume.staging).await.unwrap();
        driver.delete(&volume.id).await.unwrap();
    }
    for id in [one, two, three] {
        driver.delete_snapshot(&id).await.unwrap();
    }
    // All of it comes back.
    driver
        .create("everything", "block", room + 64)
        .await
        .unwrap();
}

/// A block volume, published.
struct Volume {
    id: String,
    staging: String,
    target: String,
    blocks: u64,
}

impl Volume {
    async fn new(bench: &Bench, driver: &mut Driver, name: &str, mib: i64) -> Self {
        let id = driver.create(name, "block", mib).await.unwrap().volume_id;
        Self::with(bench, driver, name, id, mib).await
    }

    async fn with(bench: &Bench, driver: &mut Driver, name: &str, id: String, mib: i64) -> Self {
        let (staging, target) = (bench.staging(name), bench.target(name));
        driver.stage(&id, "block", &staging).await.unwrap();
        driver
            .publish_as(&id, &staging, &target, false, capability("block"))
            .await
            .unwrap();
        Self {
            id,
            staging,
            target,
            blocks: u64::try_from(mib * MIB).unwrap() / BLOCK as u64,
        }
    }

    /// Writes its first MiBs in order.
    fn fill(&self, byte: u8, mib: u64) {
        let aligned = Aligned([byte; BLOCK]);
        let device = self.open();
        for number in 0..mib {
            for part in 0..256 {
                device
                    .write_all_at(&aligned.0, (number << 20) + part * BLOCK as u64)
                    .unwrap();
            }
        }
        device.sync_all().unwrap();
    }

    /// Writes one of every `part` blocks, in no order.
    fn overwrite(&self, byte: u8, part: u64) {
        let device = self.open();
        let aligned = Aligned([byte; BLOCK]);
        // A step that has no divisor in common with the number of blocks comes to each once.
        let step = (self.blocks / 2..self.blocks)
            .find(|step| gcd(*step, self.blocks) == 1)
            .unwrap();
        let mut block = 0;
        for _ in 0..self.blocks / part {
            block = (block + step) % self.blocks;
            let offset = block * BLOCK as u64;
            device.write_all_at(&aligned.0, offset).unwrap();
        }
        device.sync_all().unwrap();
    }

    fn holds(&self, byte: u8) {
        let device = File::open(&self.target).unwrap();
        let mut chunk = vec![0; 1 << 20];
        for number in 0..(self.blocks * BLOCK as u64) >> 20 {
            device.read_exact_at(&mut chunk, number << 20).unwrap();
            assert!(chunk.iter().all(|it| *it == byte), "{byte} at {number} MiB");
        }
    }

    /// Past the page cache, so that each write is one of the pool's own.
    fn open(&self) -> File {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc_o_direct());
        options.open(&self.target).unwrap()
    }
}

fn libc_o_direct() -> i32 {
    i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap()
}

/// What direct I/O wants of memory.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
