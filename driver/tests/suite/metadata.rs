//! What SnapshotMetadata says, against a comparison byte by byte.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use csi::v1::{
    BlockMetadata, BlockMetadataType, GetMetadataAllocatedRequest, GetMetadataDeltaRequest,
    NodePublishVolumeRequest,
};
use tonic::{Code, Status};

use crate::support::{Bench, Calls, Driver, MIB, capability};

const BLOCK: usize = 4096;

/// A stream, as a caller that trusts nothing reads it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    ranges: Vec<(usize, usize)>,
    messages: usize,
    capacity: i64,
}

impl Told {
    fn add(&mut self, kind: BlockMetadataType, capacity: i64, blocks: &[BlockMetadata], most: i32) {
        assert_eq!(kind, BlockMetadataType::VariableLength);
        assert!(self.messages == 0 || capacity == self.capacity);
        assert!(most == 0 || blocks.len() <= usize::try_from(most).unwrap());
        (self.messages, self.capacity) = (self.messages + 1, capacity);
        for block in blocks {
            let start = usize::try_from(block.byte_offset).unwrap();
            let length = usize::try_from(block.size_bytes).unwrap();
            let before = self.ranges.last().map_or(0, |(_, end)| *end);
            assert!(start >= before && length > 0, "in order, without overlap");
            assert!(block.byte_offset + block.size_bytes <= capacity);
            self.ranges.push((start, start + length));
        }
    }

    fn bytes(&self) -> usize {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    fn holds(&self, offset: usize) -> bool {
        let next = self.ranges.partition_point(|(_, end)| *end <= offset);
        self.ranges
            .get(next)
            .is_some_and(|(start, _)| *start <= offset)
    }
}

impl Calls {
    async fn allocated(&mut self, id: &str, start: i64, most: i32) -> Result<Told, Status> {
        let request = GetMetadataAllocatedRequest {
            snapshot_id: id.into(),
            starting_offset: start,
            max_results: most,
            ..Default::default()
        };
        let mut stream = self
            .metadata
            .get_metadata_allocated(request)
            .await?
            .into_inner();
        let mut told = Told::default();
        while let Some(it) = stream.message().await? {
            let kind = it.block_metadata_type();
            told.add(kind, it.volume_capacity_bytes, &it.block_metadata, most);
        }
        Ok(told)
    }

    async fn delta(&mut self, ids: [&str; 2], start: i64, most: i32) -> Result<Told, Status> {
        let request = GetMetadataDeltaRequest {
            base_snapshot_id: ids[0].into(),
            target_snapshot_id: ids[1].into(),
            starting_offset: start,
            max_results: most,
            ..Default::default()
        };
        let mut stream = self
            .metadata
            .get_metadata_delta(request)
            .await?
            .into_inner();
        let mut told = Told::default();
        while let Some(it) = stream.message().await? {
            let kind = it.block_metadata_type();
            told.add(kind, it.volume_capacity_bytes, &it.block_metadata, most);
        }
        Ok(told)
    }
}

/// Numbers without order that are the same in every run.
struct Chaos(u64);

impl Chaos {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// One to sixteen blocks that are like no others.
    fn blocks(&mut self) -> Vec<u8> {
        let length = (usize::try_from(self.below(16)).unwrap() + 1) * BLOCK;
        let mut bytes = vec![0; length];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.below(u64::MAX >> 33).to_le_bytes());
        }
        bytes
    }
}

/// Compares what is told with the two images, byte by byte: a changed block must never be missing.
fn compare(what: &str, base: Option<&Path>, target: &Path, told: &Told) {
    let target = std::fs::read(target).unwrap();
    let base = base.map_or_else(Vec::new, |base| std::fs::read(base).unwrap());
    assert_eq!(target.len(), usize::try_from(told.capacity).unwrap());
    let nothing = [0; BLOCK];
    let mut changed = 0;
    for (number, block) in target.chunks(BLOCK).enumerate() {
        let offset = number * BLOCK;
        let before = base.get(offset..offset + BLOCK).unwrap_or(&nothing);
        if block != before {
            changed += BLOCK;
            assert!(
                told.holds(offset),
                "{what}: the block at {offset} is missing"
            );
        }
    }
    let (ranges, bytes) = (told.ranges.len(), told.bytes());
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let ratio = bytes as f64 / changed.max(1) as f64;
    println!("{what}: {ranges} ranges, {bytes} bytes told of {changed} changed: {ratio:.3}");
    assert!(bytes >= changed);
}

fn image(bench: &Bench, pool: &str, id: &str) -> PathBuf {
    bench.path(pool).join("snapshots").join(id).join("image")
}

#[tokio::test]
async fn no_changed_block_of_a_file_system_is_missing_on_xfs() {
    let bench = Bench::new();
    let arguments = ["--pool-size=3Gi", "--pool-sparse", "--no-http"];
    let mut driver = bench.start_with(&arguments).await;
    for (fs, mib) in [("ext4", 64), ("xfs", 300)] {
        mounted(&bench, &mut driver, "pool/pool", fs, mib).await;
    }
    raw(&bench, &mut driver, "pool/pool").await;
}

#[tokio::test]
async fn no_changed_block_of_a_file_system_is_missing_on_btrfs() {
    let bench = Bench::new();
    let file = bench.path("btrfs.img");
    File::create_new(&file).unwrap().set_len(3 << 30).unwrap();
    let made = Command::new("mkfs.btrfs").arg("-q").arg(&file).status();
    assert!(made.unwrap().success());
    let pool = bench.path("mounts/btrfs");
    std::fs::create_dir(&pool).unwrap();
    let mounted_ = Command::new("mount")
        .args(["-o", "loop"])
        .arg(&file)
        .arg(&pool)
        .status();
    assert!(mounted_.unwrap().success());
    let mut driver = bench
        .start_with(&["--no-http", &format!("--pool={}", pool.display())])
        .await;
    mounted(&bench, &mut driver, "mounts/btrfs", "ext4", 64).await;
    raw(&bench, &mut driver, "mounts/btrfs").await;
}

/// Files are written, overwritten, punched and removed between snapshots of a mounted volume.
async fn mounted(bench: &Bench, driver: &mut Driver, pool: &str, fs: &str, mib: i64) {
    let id = driver.create(fs, fs, mib).await.unwrap().volume_id;
    let staging = bench.staging(fs);
    driver.stage(&id, fs, &staging).await.unwrap();
    let file = File::create_new(Path::new(&staging).join("file")).unwrap();
    let mut chaos = Chaos(1);
    let mut snapshots: Vec<String> = Vec::new();
    for round in 0..4 {
        for _ in 0..200 {
            let offset = chaos.below(20 << 20) / 512 * 512;
            file.write_all_at(&chaos.blocks(), offset).unwrap();
        }
        let other = Path::new(&staging).join(format!("other-{round}"));
        std::fs::write(other, vec![round; 1 << 20]).unwrap();
        if round > 0 {
            let last = Path::new(&staging).join(format!("other-{}", round - 1));
            std::fs::remove_file(last).unwrap();
        }
        let name = format!("{fs}-{round}");
        let snapshot = driver.snapshot(&name, &id).await.unwrap();
        snapshots.push(snapshot.snapshot_id);
    }
    drop(file);
    check(bench, driver, pool, fs, &snapshots).await;
    driver.unstage(&id, &staging).await.unwrap();
}

/// A raw block volume is written at random, parts of it are discarded, and it grows.
async fn raw(bench: &Bench, driver: &mut Driver, pool: &str) {
    let id = driver.create("raw", "block", 64).await.unwrap().volume_id;
    let (staging, target) = (bench.staging("raw"), bench.target("raw"));
    driver.stage(&id, "block", &staging).await.unwrap();
    let request = NodePublishVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: staging.clone(),
        target_path: target.clone(),
        volume_capability: Some(capability("block")),
        ..Default::default()
    };
    driver.node.node_publish_volume(request).await.unwrap();
    let device = File::options().write(true).open(&target).unwrap();
    let mut chaos = Chaos(2);
    let mut snapshots: Vec<String> = Vec::new();
    for round in 0..4 {
        for _ in 0..300 {
            let offset = chaos.below(60 << 20) / 4096 * 4096;
            device.write_all_at(&chaos.blocks(), offset).unwrap();
        }
        device.sync_all().unwrap();
        let offset = format!("{}", chaos.below(40) << 20);
        let discard = Command::new("blkdiscard")
            .args(["--offset", &offset, "--length", "4194304"])
            .arg(&target)
            .status();
        assert!(discard.unwrap().success());
        let name = format!("raw-{round}");
        let snapshot = driver.snapshot(&name, &id).await.unwrap();
        snapshots.push(snapshot.snapshot_id);
    }
    drop(device);
    check(bench, driver, pool, "raw", &snapshots).await;
    driver.unpublish(&id, &target).await.unwrap();
    driver.unstage(&id, &staging).await.unwrap();
}

async fn check(bench: &Bench, driver: &mut Driver, pool: &str, what: &str, snapshots: &[String]) {
    for (number, target) in snapshots.iter().enumerate() {
        let shown = image(bench, pool, target);
        let told = driver.allocated(target, 0, 0).await.unwrap();
        compare(
            &format!("{pool} {what} {number} allocated"),
            None,
            &shown,
            &told,
        );
        let short = driver.allocated(target, 0, 7).await.unwrap();
        assert_eq!(short.ranges, told.ranges);
        assert_eq!(short.messages, told.ranges.len().div_ceil(7).max(1));
        for base in &snapshots[..number] {
            let told = driver.delta([base, target], 0, 0).await.unwrap();
            let before = image(bench, pool, base);
            let from = snapshots.iter().position(|it| it == base).unwrap();
            let name = format!("{pool} {what} {from} to {number}");
            compare(&name, Some(&before), &shown, &told);
            resumes(driver, [base, target], &told).await;
        }
        let same = driver.delta([target, target], 0, 0).await.unwrap();
        assert_eq!((same.bytes(), same.messages), (0, 1));
    }
}

/// A caller that was cut off anywhere goes on from there and misses nothing.
async fn resumes(driver: &mut Driver, ids: [&str; 2], all: &Told) {
    let middle = all.ranges.len() / 2;
    let rest = &all.ranges[middle..];
    let start = i64::try_from(rest[0].0).unwrap();
    assert_eq!(driver.delta(ids, start, 100).await.unwrap().ranges, rest);
    // Within a range: only its rest has to be told again.
    let within = start + 1;
    let told = driver.delta(ids, within, 0).await.unwrap();
    assert_eq!(told.ranges[0].1, rest[0].1);
    assert!(told.ranges[0].0 >= rest[0].0);
    assert_eq!(told.ranges[1..], rest[1..]);
    let end = driver.delta(ids, all.capacity, 0).await.unwrap();
    assert_eq!((end.bytes(), end.messages), (0, 1));
}

#[tokio::test]
async fn what_cannot_be_told_has_the_code_of_the_specification() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "ext4", 64).await.unwrap().volume_id;
    let other = driver.create("other", "ext4", 64).await.unwrap().volume_id;
    let first = driver.snapshot("first", &id).await.unwrap().snapshot_id;
    let second = driver.snapshot("second", &id).await.unwrap().snapshot_id;
    let stranger = driver
        .snapshot("stranger", &other)
        .await
        .unwrap()
        .snapshot_id;
    let unknown = first.replace("snap-", "snap-0")[..37].to_owned() + ".node-1";
    for (id, start, most, code) in [
        ("", 0, 0, Code::InvalidArgument),
        ("nothing", 0, 0, Code::NotFound),
        (&*unknown, 0, 0, Code::NotFound),
        (&first, -1, 0, Code::InvalidArgument),
        (&first, 0, -1, Code::InvalidArgument),
        (&first, 64 * MIB + 1, 0, Code::OutOfRange),
        (&first, i64::MAX, 0, Code::OutOfRange),
    ] {
        let status = driver.allocated(id, start, most).await.unwrap_err();
        assert_eq!(status.code(), code, "{id} {start} {most}: {status}");
    }
    for (ids, start, most, code) in [
        (["", &*second], 0, 0, Code::InvalidArgument),
        ([&*first, ""], 0, 0, Code::InvalidArgument),
        (["nothing", ""], 0, 0, Code::InvalidArgument),
        ([&*first, "nothing"], 0, 0, Code::NotFound),
        (["nothing", &*first], 0, 0, Code::NotFound),
        ([&*first, &*unknown], 0, 0, Code::NotFound),
        ([&*stranger, &*first], 0, 0, Code::InvalidArgument),
        ([&*first, &*second], -1, 0, Code::InvalidArgument),
        ([&*first, &*second], 0, -1, Code::InvalidArgument),
        ([&*first, &*second], 64 * MIB + 1, 0, Code::OutOfRange),
    ] {
        let status = driver.delta(ids, start, most).await.unwrap_err();
        assert_eq!(status.code(), code, "{ids:?} {start} {most}: {status}");
    }
    let nothing = driver.allocated(&first, 0, 0).await.unwrap();
    assert_eq!((nothing.messages, nothing.capacity), (1, 64 * MIB));
}

/// While an answer is on its way its snapshots cannot go; when its reader leaves, they can.
#[tokio::test]
async fn a_snapshot_that_is_being_read_stays() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc", "block", 64).await.unwrap().volume_id;
    let image = bench.volumes()[0].join("image");
    let image = File::options().write(true).open(image).unwrap();
    for number in 0..8192 {
        image
            .write_all_at(&[1; BLOCK], number * 2 * BLOCK as u64 % (64 << 20))
            .unwrap();
    }
    image.sync_all().unwrap();
    let snapshot = driver.snapshot("snapshot", &id).await.unwrap().snapshot_id;
    let request = GetMetadataAllocatedRequest {
        snapshot_id: snapshot.clone(),
        max_results: 1,
        ..Default::default()
    };
    let stream = driver
        .metadata
        .get_metadata_allocated(request)
        .await
        .unwrap();
    let mut stream = stream.into_inner();
    assert_eq!(
        stream
            .message()
            .await
            .unwrap()
            .unwrap()
            .block_metadata
            .len(),
        1
    );
    let status = driver.delete_snapshot(&snapshot).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    drop(stream);
    for _ in 0..200 {
        match driver.delete_snapshot(&snapshot).await {
            Ok(()) => return,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the snapshot is still read");
}
