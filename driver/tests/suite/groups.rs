//! Snapshots of several volumes at one moment.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use csi::v1::{
    CreateVolumeGroupSnapshotRequest, DeleteVolumeGroupSnapshotRequest,
    GetVolumeGroupSnapshotRequest, GroupControllerGetCapabilitiesRequest, ListSnapshotsRequest,
    VolumeGroupSnapshot,
};
use tonic::{Code, Status};

use crate::support::{Bench, Calls, Driver};

impl Calls {
    async fn group(&mut self, name: &str, of: &[&str]) -> Result<VolumeGroupSnapshot, Status> {
        let request = CreateVolumeGroupSnapshotRequest {
            name: name.into(),
            source_volume_ids: of.iter().map(|id| (*id).to_owned()).collect(),
            ..Default::default()
        };
        let response = self.groups.create_volume_group_snapshot(request).await?;
        Ok(response.into_inner().group_snapshot.unwrap())
    }

    async fn find_group(&mut self, id: &str, of: &[&str]) -> Result<VolumeGroupSnapshot, Status> {
        let request = GetVolumeGroupSnapshotRequest {
            group_snapshot_id: id.into(),
            snapshot_ids: of.iter().map(|id| (*id).to_owned()).collect(),
            ..Default::default()
        };
        let response = self.groups.get_volume_group_snapshot(request).await?;
        Ok(response.into_inner().group_snapshot.unwrap())
    }

    async fn delete_group(&mut self, id: &str, of: &[&str]) -> Result<(), Status> {
        let request = DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: id.into(),
            snapshot_ids: of.iter().map(|id| (*id).to_owned()).collect(),
            ..Default::default()
        };
        let response = self.groups.delete_volume_group_snapshot(request).await;
        response.map(drop)
    }

    async fn count_snapshots(&mut self) -> usize {
        let request = ListSnapshotsRequest::default();
        let response = self.controller.list_snapshots(request).await.unwrap();
        response.into_inner().entries.len()
    }
}

/// Staged volumes `a`, `b`, `c`: their ids and staging paths.
async fn volumes(bench: &Bench, driver: &mut Driver) -> Vec<(String, String)> {
    let mut volumes = Vec::new();
    for (name, fs, mib) in [("a", "ext4", 64), ("b", "xfs", 300), ("c", "ext4", 64)] {
        let id = driver.create(name, fs, mib).await.unwrap().volume_id;
        let staging = bench.staging(name);
        driver.stage(&id, fs, &staging).await.unwrap();
        volumes.push((id, staging));
    }
    volumes
}

#[tokio::test]
async fn groups_are_made_found_and_deleted_by_the_rules() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let offered = driver
        .groups
        .group_controller_get_capabilities(GroupControllerGetCapabilitiesRequest {})
        .await
        .unwrap();
    assert_eq!(offered.into_inner().capabilities.len(), 1);
    let volumes = volumes(&bench, &mut driver).await;
    let [a, b, c] = [0, 1, 2].map(|number| volumes[number].0.as_str());

    let group = driver.group("group-1", &[a, b]).await.unwrap();
    assert!(group.ready_to_use && group.creation_time.is_some());
    let shown: Vec<_> = group
        .snapshots
        .iter()
        .map(|it| it.source_volume_id.as_str())
        .collect();
    assert!(shown.len() == 2 && shown.contains(&a) && shown.contains(&b));
    for member in &group.snapshots {
        assert_eq!(member.group_snapshot_id, group.group_snapshot_id);
        assert_eq!(member.creation_time, group.creation_time);
    }
    let again = driver.group("group-1", &[b, a]).await.unwrap();
    assert_eq!(
        again, group,
        "the same name and the same volumes are the same group"
    );
    let id = group.group_snapshot_id.as_str();
    let members: Vec<_> = group
        .snapshots
        .iter()
        .map(|it| it.snapshot_id.as_str())
        .collect();
    assert_eq!(driver.find_group(id, &[]).await.unwrap(), group);
    assert_eq!(driver.find_group(id, &members).await.unwrap(), group);
    assert_eq!(driver.count_snapshots().await, 2);

    let stranger = a.replace("vol-", "vol-0")[..36].to_owned() + ".node-1";
    let elsewhere = a.replace("node-1", "node-2");
    for (name, of, code) in [
        ("", &[a][..], Code::InvalidArgument),
        ("group-2", &[], Code::InvalidArgument),
        ("group-2", &[a, a], Code::InvalidArgument),
        ("group-2", &[""], Code::InvalidArgument),
        ("group-2", &[a, "no-such-volume"], Code::NotFound),
        ("group-2", &[a, &stranger], Code::NotFound),
        ("group-2", &[a, &elsewhere], Code::FailedPrecondition),
        ("group-1", &[a], Code::AlreadyExists),
        ("group-1", &[a, b, c], Code::AlreadyExists),
        ("group-1", &[a, c], Code::AlreadyExists),
    ] {
        let status = driver.group(name, of).await.unwrap_err();
        assert_eq!(status.code(), code, "{name} {of:?}: {status}");
    }
    let unknown = id.replace("group-", "group-0")[..38].to_owned() + ".node-1";
    for (id, of, code) in [
        ("", &[][..], Code::InvalidArgument),
        ("nothing", &[], Code::NotFound),
        (&unknown, &[], Code::NotFound),
        (id, &members[..1], Code::InvalidArgument),
        (id, &[members[0], "other"], Code::InvalidArgument),
    ] {
        let status = driver.find_group(id, of).await.unwrap_err();
        assert_eq!(status.code(), code, "{id} {of:?}: {status}");
    }
    for of in [&members[..1], &["other"]] {
        let status = driver.delete_group(id, of).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let alone = driver.delete_snapshot(members[0]).await.unwrap_err();
    assert_eq!(alone.code(), Code::InvalidArgument, "{alone}");
    assert!(alone.message().contains(id), "{alone}");
    assert_eq!(
        driver.delete_group("", &[]).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    driver.delete_group("nothing", &[]).await.unwrap();

    // A member is restored like any snapshot, and outlived by what was made from it.
    let restored = driver.copy("restored", members[0], "", 0).await.unwrap();
    driver.delete_group(id, &members).await.unwrap();
    driver.delete_group(id, &members).await.unwrap();
    driver.delete_snapshot(members[0]).await.unwrap();
    assert_eq!(driver.count_snapshots().await, 0);
    assert!(bench.snapshots().is_empty(), "{:?}", bench.snapshots());
    let path = bench.staging("restored");
    driver.stage(&restored.volume_id, "", &path).await.unwrap();
    driver.unstage(&restored.volume_id, &path).await.unwrap();
    // The name is free for another set of volumes.
    driver.group("group-1", &[a, c]).await.unwrap();
}

/// One writer gives all three volumes one number after the other, in turn. Whatever moment a
/// group shows, the numbers are at most one apart and never rise from a volume to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_shows_all_volumes_at_one_moment() {
    const ROUNDS: usize = 5;
    let bench = Bench::new();
    let arguments = ["--pool-size=4Gi", "--pool-sparse", "--no-http"];
    let mut driver = bench.start_with(&arguments).await;
    let volumes = volumes(&bench, &mut driver).await;
    let end = AtomicBool::new(false);
    let files: Vec<File> = volumes
        .iter()
        .map(|(_, staging)| File::create_new(Path::new(staging).join("stamp")).unwrap())
        .collect();
    let mut groups = Vec::new();
    let ids: Vec<&str> = volumes.iter().map(|(id, _)| id.as_str()).collect();
    let stamps = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut stamp = 0_u64;
            while !end.load(Ordering::Relaxed) {
                stamp += 1;
                for file in &files {
                    file.write_all_at(&stamp.to_le_bytes(), 0).unwrap();
                }
            }
            stamp
        });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                for round in 0..ROUNDS {
                    let group = driver.group(&format!("group-{round}"), &ids).await;
                    groups.push(group.unwrap());
                }
            });
        });
        end.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let mut before = 0;
    for (round, group) in groups.iter().enumerate() {
        let mut shown = Vec::new();
        for (id, _) in &volumes {
            let member = group.snapshots.iter().find(|it| it.source_volume_id == *id);
            let name = format!("restored-{round}-{}", shown.len());
            let copy = driver
                .copy(&name, &member.unwrap().snapshot_id, "", 0)
                .await
                .unwrap();
            let path = bench.staging(&name);
            driver.stage(&copy.volume_id, "", &path).await.unwrap();
            let bytes = std::fs::read(Path::new(&path).join("stamp")).unwrap();
            shown.push(u64::from_le_bytes(bytes.try_into().unwrap()));
            driver.unstage(&copy.volume_id, &path).await.unwrap();
            driver.delete(&copy.volume_id).await.unwrap();
        }
        println!("group {round}: {shown:?} of {stamps}");
        assert!(shown.is_sorted_by(|a, b| a >= b), "{shown:?}");
        assert!(shown[0] - shown[2] <= 1, "{shown:?}");
        assert!(shown[2] >= before, "{shown:?} after {before}");
        before = shown[0];
    }
    assert!(before > 0 && stamps > before, "{stamps}");
}

/// Leavings of a group whose members are not those of the next attempt must not come back with it.
#[tokio::test]
async fn a_group_that_was_cut_off_is_gone_after_the_start() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let volumes = volumes(&bench, &mut driver).await;
    let [a, b, c] = [0, 1, 2].map(|number| volumes[number].0.as_str());
    let group = driver.group("group", &[a, b, c]).await.unwrap();
    let record = bench
        .path("pool/pool/groups")
        .join(&group.group_snapshot_id)
        .join("group.json");
    driver.kill();
    std::fs::remove_file(&record).unwrap();
    let mut driver = bench.start().await;
    assert!(bench.snapshots().is_empty(), "{:?}", bench.snapshots());
    let group = driver.group("group", &[a, b]).await.unwrap();
    assert_eq!(driver.count_snapshots().await, 2);

    // Cut off while the driver runs on: what the folder still says is enough to clear the rest.
    std::fs::remove_file(&record).unwrap();
    assert_eq!(driver.count_snapshots().await, 0);
    driver.group("group", &[a, c]).await.unwrap();
    assert_eq!(driver.count_snapshots().await, 2);
    assert_eq!(bench.snapshots().len(), 2, "{:?}", bench.snapshots());
    std::fs::remove_file(&record).unwrap();
    driver
        .delete_group(&group.group_snapshot_id, &[])
        .await
        .unwrap();
    assert!(bench.snapshots().is_empty(), "{:?}", bench.snapshots());
}

/// What one call is busy with, the other is told to retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_share_a_volume_never_wait_for_one_another() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let volumes = volumes(&bench, &mut driver).await;
    let ids: Vec<String> = volumes.iter().map(|(id, _)| id.clone()).collect();
    let tasks = (0..8).map(|number| {
        let mut calls = driver.calls();
        let ids = ids.clone();
        tokio::spawn(async move {
            let of: Vec<_> = ids.iter().map(String::as_str).skip(number % 2).collect();
            let name = format!("group-{number}");
            let mut aborted = 0;
            loop {
                match calls.group(&name, &of).await {
                    Ok(group) => return (group.group_snapshot_id, aborted),
                    Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
                }
                aborted += 1;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        let (id, aborted) = task.await.unwrap();
        println!("{id}: {aborted} times aborted");
        driver.delete_group(&id, &[]).await.unwrap();
    }
    assert!(bench.snapshots().is_empty());
    for (_, staging) in &volumes {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(Path::new(staging).join("after"))
            .unwrap()
            .sync_all()
            .unwrap();
    }
}

/// The steps of a group.
#[cfg(feature = "failpoints")]
pub const STEPS: [&str; 7] = [
    "copy.freeze",
    "copy.clone",
    "copy.thaw",
    "group.members",
    "group.record",
    "group.forget",
    "group.clear",
];

/// A group's whole life for each place, with one crash there; what was under way is repeated.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_crash_at_every_step_of_a_group_is_made_good_by_repetition() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("failpoints")).unwrap();
    let mut driver = bench.start().await;
    let volumes = volumes(&bench, &mut driver).await;
    let [a, b, c] = [0, 1, 2].map(|number| volumes[number].0.as_str());
    for place in STEPS
        .iter()
        .flat_map(|step| ["before", "after"].map(|it| format!("{step}.{it}")))
    {
        let folder = bench.path("failpoints");
        std::fs::write(folder.join(format!("{place}.abort")), b"").unwrap();
        let mut crashes = 0;
        let mut id = String::new();
        let mut step = 0;
        while step < 2 {
            let result = match step {
                0 => driver
                    .group("group", &[a, b, c])
                    .await
                    .map(|group| id = group.group_snapshot_id),
                _ => driver.delete_group(&id, &[]).await,
            };
            match result {
                Ok(()) => step += 1,
                Err(status) => {
                    assert!(driver.has_aborted(), "{place}: {status}");
                    crashes += 1;
                    driver = bench.start().await;
                }
            }
            // Whatever happened, nothing stays frozen, and a group is there whole or not at all.
            for (_, staging) in &volumes {
                std::fs::write(Path::new(staging).join("file"), place.as_bytes()).unwrap();
            }
            assert_eq!(bench.snapshots().len() % 3, 0, "{place}");
        }
        assert_eq!(crashes, 1, "{place} was reached");
        assert!(folder.join(format!("{place}.hit")).exists(), "{place}");
        assert!(bench.snapshots().is_empty(), "{place}");
        let groups = std::fs::read_dir(bench.path("pool/pool/groups")).unwrap();
        assert_eq!(groups.count(), 0, "{place}");
    }
}
