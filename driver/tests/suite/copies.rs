//! Snapshots, clones and restores: what they show, how large they come up, and that they and
//! their sources live and go independently.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use csi::v1::{
    CreateSnapshotRequest, GetSnapshotRequest, ListSnapshotsRequest, ListVolumesRequest, Topology,
    TopologyRequirement,
};
use tonic::Code;

use crate::support::http::{free_address, get};
use crate::support::{Bench, Driver, MIB};

/// Writes a file of these bytes, durably.
fn write(directory: &str, name: &str, byte: u8, length: usize) {
    let mut file = File::create(Path::new(directory).join(name)).unwrap();
    file.write_all(&vec![byte; length]).unwrap();
    file.sync_all().unwrap();
}

fn read(directory: &str, name: &str) -> Vec<u8> {
    std::fs::read(Path::new(directory).join(name)).unwrap()
}

/// A volume, staged, with one file; its id and its staging path.
async fn volume(bench: &Bench, driver: &mut Driver, fs: &str, mib: i64) -> (String, String) {
    let id = driver.create("source", fs, mib).await.unwrap().volume_id;
    let staging = bench.staging("source");
    driver.stage(&id, fs, &staging).await.unwrap();
    write(&staging, "file", 1, 4 << 20);
    (id, staging)
}

#[tokio::test]
async fn a_snapshot_of_mounted_ext4_shows_its_moment_and_comes_up_larger() {
    snapshot_and_restore("ext4", 64, 128).await;
}

#[tokio::test]
async fn a_snapshot_of_mounted_xfs_shows_its_moment_and_comes_up_larger() {
    snapshot_and_restore("xfs", 320, 400).await;
}

async fn snapshot_and_restore(fs: &str, mib: i64, larger: i64) {
    let bench = Bench::new();
    let arguments = ["--pool-size=3Gi", "--pool-sparse", "--no-http"];
    let mut driver = bench.start_with(&arguments).await;
    let (id, staging) = volume(&bench, &mut driver, fs, mib).await;
    // In the page cache only: a frozen file system has it on its disk.
    std::fs::write(Path::new(&staging).join("unsynced"), [7; 8192]).unwrap();
    let snapshot = driver.snapshot("snapshot-1", &id).await.unwrap();
    assert_eq!(snapshot.size_bytes, mib * MIB);
    assert_eq!(snapshot.source_volume_id, id);
    assert!(snapshot.ready_to_use && snapshot.creation_time.is_some());
    let again = driver.snapshot("snapshot-1", &id).await.unwrap();
    assert_eq!(again, snapshot, "the same name is the same snapshot");
    write(&staging, "file", 2, 4 << 20);
    write(&staging, "later", 3, 4096);

    let restored = driver
        .copy("restored", &snapshot.snapshot_id, fs, larger)
        .await
        .unwrap();
    assert_eq!(restored.capacity_bytes, larger * MIB);
    assert!(restored.content_source.is_some());
    let path = bench.staging("restored");
    // Beside its mounted source: XFS has the same UUID twice.
    driver.stage(&restored.volume_id, fs, &path).await.unwrap();
    assert_eq!(read(&path, "file"), vec![1; 4 << 20]);
    assert_eq!(read(&path, "unsynced"), vec![7; 8192]);
    assert!(!Path::new(&path).join("later").exists());
    let space = rustix::fs::statvfs(&*path).unwrap();
    let size = space.f_blocks * space.f_frsize;
    let least = u64::try_from(mib * MIB).unwrap();
    assert!(size > least, "the file system grew: {size}");
    write(&path, "file", 4, 8 << 20);
    assert_eq!(read(&staging, "file"), vec![2; 4 << 20]);

    // The source is taken down and up again while the copy is in use.
    driver.unstage(&id, &staging).await.unwrap();
    driver.stage(&id, fs, &staging).await.unwrap();
    assert_eq!(read(&staging, "file"), vec![2; 4 << 20]);
    driver.unstage(&id, &staging).await.unwrap();
    driver.delete(&id).await.unwrap();
    driver.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    driver.delete_snapshot(&snapshot.snapshot_id).await.unwrap();
    assert_eq!(read(&path, "file"), vec![4; 8 << 20]);
    driver.unstage(&restored.volume_id, &path).await.unwrap();
    driver.delete(&restored.volume_id).await.unwrap();
    assert!(bench.volumes().is_empty() && bench.snapshots().is_empty());
}

#[tokio::test]
async fn a_clone_lives_beside_its_mounted_source() {
    for (fs, mib) in [("ext4", 64), ("xfs", 300)] {
        let bench = Bench::new();
        let mut driver = bench.start().await;
        let (id, staging) = volume(&bench, &mut driver, fs, mib).await;
        let clone = driver.copy("clone", &id, "", mib).await.unwrap();
        let again = driver.copy("clone", &id, "", mib).await.unwrap();
        assert_eq!(again.volume_id, clone.volume_id);
        write(&staging, "file", 2, 1 << 20);
        let path = bench.staging("clone");
        driver.stage(&clone.volume_id, fs, &path).await.unwrap();
        assert_eq!(read(&path, "file"), vec![1; 4 << 20]);
        write(&path, "file", 3, 1 << 20);
        driver.unstage(&id, &staging).await.unwrap();
        driver.stage(&id, fs, &staging).await.unwrap();
        assert_eq!(read(&staging, "file"), vec![2; 1 << 20]);
        assert_eq!(read(&path, "file"), vec![3; 1 << 20]);
        for (id, path) in [(&id, &staging), (&clone.volume_id, &path)] {
            driver.unstage(id, path).await.unwrap();
            driver.delete(id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_never_used_is_copied_too() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("source", "ext4", 64).await.unwrap().volume_id;
    let snapshot = driver.snapshot("snapshot", &id).await.unwrap().snapshot_id;
    let copy = driver.copy("copy", &snapshot, "ext4", 64).await.unwrap();
    let path = bench.staging("copy");
    driver.stage(&copy.volume_id, "ext4", &path).await.unwrap();
    write(&path, "file", 1, 4096);
    driver.unstage(&copy.volume_id, &path).await.unwrap();
}

#[tokio::test]
async fn copies_that_cannot_be_are_refused_in_words() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = volume(&bench, &mut driver, "ext4", 64).await;
    let other = driver.create("other", "ext4", 64).await.unwrap().volume_id;
    let snapshot = driver.snapshot("snapshot", &id).await.unwrap().snapshot_id;
    let taken = driver.snapshot("snapshot", &other).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken}");
    let nothing = id.replace("vol-", "vol-0")[..36].to_owned() + ".node-1";
    for (from, fs, mib, code) in [
        (&*snapshot, "xfs", 300, Code::InvalidArgument),
        (&*snapshot, "block", 1 << 30, Code::ResourceExhausted),
        (
            &*id.replace("node-1", "node-2"),
            "ext4",
            64,
            Code::ResourceExhausted,
        ),
        (
            &*snapshot.replace("node-1", "node-2"),
            "ext4",
            64,
            Code::ResourceExhausted,
        ),
        ("vol-x", "ext4", 64, Code::NotFound),
        ("snap-x", "ext4", 64, Code::NotFound),
        (&*nothing, "ext4", 64, Code::NotFound),
    ] {
        let refused = driver.copy("copy", from, fs, mib).await.unwrap_err();
        assert_eq!(refused.code(), code, "{from}: {refused}");
    }
    let request = csi::v1::CreateVolumeRequest {
        name: "small".into(),
        capacity_range: Some(csi::v1::CapacityRange {
            required_bytes: 0,
            limit_bytes: 32 * MIB,
        }),
        volume_capabilities: vec![crate::support::capability("")],
        volume_content_source: Some(crate::support::source(&snapshot)),
        ..Default::default()
    };
    let small = driver.controller.create_volume(request).await.unwrap_err();
    assert_eq!(small.code(), Code::OutOfRange, "{small}");
    driver.copy("copy", &snapshot, "ext4", 64).await.unwrap();
    let other_source = driver.copy("copy", &id, "ext4", 64).await.unwrap_err();
    assert_eq!(other_source.code(), Code::AlreadyExists, "{other_source}");
    assert_eq!(bench.volumes().len(), 3);
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_says_where_it_is_usable_and_is_taken_only_there() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("source", "ext4", 64).await.unwrap().volume_id;
    let on = |node: &str| {
        let segments = [("topology.fastcopy.csi.example.com/node".into(), node.into())];
        Topology {
            segments: segments.into(),
        }
    };
    let request = |node| CreateSnapshotRequest {
        name: "snapshot".into(),
        source_volume_id: id.clone(),
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![on(node)],
            preferred: vec![on(node)],
        }),
        ..Default::default()
    };
    let elsewhere = driver.controller.create_snapshot(request("node-2")).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::ResourceExhausted);
    let taken = driver.controller.create_snapshot(request("node-1")).await;
    let taken = taken.unwrap().into_inner().snapshot.unwrap();
    assert_eq!(taken.accessible_topology, [on("node-1")]);
}

#[tokio::test]
async fn lists_go_by_pages_that_stand_deletions() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let mut volumes = Vec::new();
    for number in 0..7 {
        let volume = driver
            .create(&format!("v{number}"), "ext4", 16)
            .await
            .unwrap();
        volumes.push(volume.volume_id);
    }
    volumes.sort();
    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let request = ListVolumesRequest {
            max_entries: 2,
            starting_token: token,
        };
        let page = driver
            .controller
            .list_volumes(request)
            .await
            .unwrap()
            .into_inner();
        let ids = page
            .entries
            .into_iter()
            .map(|it| it.volume.unwrap().volume_id);
        let ids: Vec<_> = ids.collect();
        // The last of a page goes before the next page is asked for.
        driver.delete(ids.last().unwrap()).await.unwrap();
        seen.extend(ids);
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, volumes, "each once, in order");
    let strange = ListVolumesRequest {
        max_entries: 0,
        starting_token: "rubbish".into(),
    };
    let refused = driver.controller.list_volumes(strange).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);

    let left = seen[0].clone();
    for name in ["a", "b", "c"] {
        driver.snapshot(name, &left).await.unwrap();
    }
    let list = |request: ListSnapshotsRequest| {
        let mut controller = driver.controller.clone();
        async move {
            controller
                .list_snapshots(request)
                .await
                .unwrap()
                .into_inner()
        }
    };
    let all = list(ListSnapshotsRequest::default()).await.entries;
    assert_eq!(all.len(), 3);
    let one = all[0].snapshot.clone().unwrap();
    for (snapshot_id, source_volume_id, count) in [
        (&*one.snapshot_id, "", 1),
        ("", &*left, 3),
        ("", "vol-unknown", 0),
        ("snap-unknown", "", 0),
        (&*one.snapshot_id, &*seen[1], 0),
    ] {
        let request = ListSnapshotsRequest {
            snapshot_id: snapshot_id.into(),
            source_volume_id: source_volume_id.into(),
            ..Default::default()
        };
        assert_eq!(list(request).await.entries.len(), count, "{snapshot_id}");
    }
    let request = GetSnapshotRequest {
        snapshot_id: one.snapshot_id.clone(),
        ..Default::default()
    };
    let got = driver.controller.get_snapshot(request).await.unwrap();
    assert_eq!(got.into_inner().snapshot, Some(one));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_under_a_writer_show_a_prefix_of_what_was_written() {
    for (fs, mib) in [("ext4", 128), ("xfs", 300)] {
        let bench = Bench::new();
        let arguments = ["--pool-size=3Gi", "--pool-sparse", "--no-http"];
        let mut driver = bench.start_with(&arguments).await;
        let id = driver.create("source", fs, mib).await.unwrap().volume_id;
        let staging = bench.staging("source");
        driver.stage(&id, fs, &staging).await.unwrap();
        let journal = Writer::start(&staging);
        let mut taken = Vec::new();
        for number in 0..5 {
            journal.wait_for(20 * (number + 1));
            let acknowledged = journal.acknowledged();
            let name = format!("snapshot-{number}");
            let snapshot = driver.snapshot(&name, &id).await.unwrap();
            taken.push((acknowledged, snapshot.snapshot_id));
        }
        journal.stop();
        for (number, (acknowledged, snapshot)) in taken.into_iter().enumerate() {
            let name = format!("restored-{number}");
            let copy = driver
                .copy(&name, &snapshot, fs, mib)
                .await
                .unwrap()
                .volume_id;
            let path = bench.staging(&name);
            driver.stage(&copy, fs, &path).await.unwrap();
            let records = read(&path, "journal");
            assert_eq!(records.len() % RECORD, 0, "whole records only");
            let records: Vec<_> = records.chunks(RECORD).collect();
            assert!(
                records.len() as u64 >= acknowledged,
                "{} of {acknowledged}",
                records.len()
            );
            for (index, record) in records.iter().enumerate() {
                assert_eq!(**record, self::record(index as u64), "record {index}");
            }
            driver.unstage(&copy, &path).await.unwrap();
            driver.delete(&copy).await.unwrap();
        }
        driver.unstage(&id, &staging).await.unwrap();
    }
}

const RECORD: usize = 4096;

fn record(number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    for chunk in record.chunks_mut(8) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    record
}

/// Appends records one after another, each synced before it counts as acknowledged.
struct Writer {
    state: std::sync::Arc<(std::sync::atomic::AtomicU64, std::sync::atomic::AtomicBool)>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    fn start(directory: &str) -> Self {
        use std::sync::atomic::Ordering;
        let state = std::sync::Arc::new((
            std::sync::atomic::AtomicU64::new(0),
            std::sync::atomic::AtomicBool::new(false),
        ));
        let file = File::create(Path::new(directory).join("journal")).unwrap();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !shared.1.load(Ordering::Relaxed) {
                file.write_all_at(&record(number), number * RECORD as u64)
                    .unwrap();
                file.sync_data().unwrap();
                number += 1;
                shared.0.store(number, Ordering::SeqCst);
            }
        });
        Self { state, thread }
    }

    fn acknowledged(&self) -> u64 {
        self.state.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn wait_for(&self, records: u64) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.acknowledged() < records {
            assert!(std::time::Instant::now() < deadline, "the writer is stuck");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn stop(self) {
        self.state
            .1
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_lie_in_few_extents_and_random_writes_after_a_snapshot_in_many() {
    let bench = Bench::new();
    let address = free_address();
    let http = format!("--http-address={address}");
    let arguments = ["--pool-size=1Gi", "--pool-sparse", &http];
    let mut driver = bench.start_with(&arguments).await;
    let (id, staging) = volume(&bench, &mut driver, "ext4", 64).await;
    let shown = || {
        let line = format!("fastcopy_volume_extents{{volume=\"{id}\"}} ");
        let (_, text) = get(&address, "/metrics");
        text.lines()
            .find_map(|it| it.strip_prefix(&line))
            .map(|it| it.parse::<u64>().unwrap())
    };
    let mut log = File::create(Path::new(&staging).join("log")).unwrap();
    for _ in 0..500 {
        log.write_all(&[3; 4096]).unwrap();
        log.sync_data().unwrap();
    }
    drop(log);
    driver.snapshot("before", &id).await.unwrap();
    let whole = shown().expect("it was looked at for the snapshot");
    assert!(
        whole < 100,
        "a file and a journal written in turn lie in {whole} extents"
    );
    let file = File::options()
        .write(true)
        .open(Path::new(&staging).join("file"))
        .unwrap();
    for block in 0..256 {
        file.write_all_at(&[2; 4096], block * 16384).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    driver.snapshot("after", &id).await.unwrap();
    let scattered = shown().unwrap();
    assert!(
        scattered >= whole + 256,
        "{whole} extents before, {scattered} after"
    );
    driver.unstage(&id, &staging).await.unwrap();
    driver.delete(&id).await.unwrap();
    assert_eq!(shown(), None, "what is gone has no extents");
}
