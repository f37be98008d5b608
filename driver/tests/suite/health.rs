//! What is wrong with a volume or the pool is seen and said, and what is well is not complained of.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use csi::v1::node_get_storage_health_response::StorageBackendHealth;
use csi::v1::volume_health::VolumeHealthEntry;
use csi::v1::{
    ControllerGetVolumeHealthRequest, ControllerListVolumeHealthRequest,
    NodeGetStorageHealthRequest, NodeGetVolumeHealthRequest, StorageHealthErrorType,
    VolumeHealthErrorType,
};
use tonic::{Code, Status};

use crate::support::http::{free_address, get};
use crate::support::{Bench, Calls, Driver, PATIENCE};

use VolumeHealthErrorType::{DataLoss, Degraded, Inaccessible};

impl Calls {
    async fn health(&mut self, id: &str) -> Result<Vec<VolumeHealthEntry>, Status> {
        let request = ControllerGetVolumeHealthRequest {
            volume_id: id.into(),
            ..Default::default()
        };
        let response = self
            .controller
            .controller_get_volume_health(request)
            .await?;
        let health = response.into_inner().volume_health.unwrap();
        assert_eq!(health.volume_id, id);
        Ok(health.health_statuses)
    }

    async fn health_at(&mut self, id: &str, path: &str) -> Result<Vec<VolumeHealthEntry>, Status> {
        let request = NodeGetVolumeHealthRequest {
            volume_id: id.into(),
            volume_publish_path: path.into(),
            ..Default::default()
        };
        let response = self.node.node_get_volume_health(request).await?;
        Ok(response.into_inner().volume_health.unwrap().health_statuses)
    }

    async fn storage_health(&mut self) -> Vec<StorageBackendHealth> {
        let request = NodeGetStorageHealthRequest::default();
        let response = self.node.node_get_storage_health(request).await.unwrap();
        response.into_inner().backend_health
    }

    /// The ids of all volumes with which something is wrong, by pages of this size.
    async fn unhealthy(&mut self, max_entries: i32) -> Vec<String> {
        let mut ids = Vec::new();
        let mut starting_token = String::new();
        loop {
            let request = ControllerListVolumeHealthRequest {
                max_entries,
                starting_token,
                ..Default::default()
            };
            let page = self.controller.controller_list_volume_health(request).await;
            let page = page.unwrap().into_inner();
            for entry in page.entries {
                assert!(!entry.health_statuses.is_empty());
                ids.push(entry.volume_id);
            }
            if page.next_token.is_empty() {
                return ids;
            }
            starting_token = page.next_token;
        }
    }

    /// Asserts that this, and this alone, is said of the volume, and gives the words.
    async fn says(&mut self, id: &str, status: VolumeHealthErrorType, reason: &str) -> String {
        let found = self.health(id).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].status(), &*found[0].reason), (status, reason));
        assert_eq!(self.health_at(id, "").await.unwrap(), found);
        println!("{reason}: {}", found[0].message);
        found[0].message.clone()
    }
}

async fn staged(bench: &Bench, driver: &mut Driver, fs: &str, mib: i64) -> (String, String) {
    let id = driver.create(fs, fs, mib).await.unwrap().volume_id;
    let staging = bench.staging(fs);
    driver.stage(&id, fs, &staging).await.unwrap();
    (id, staging)
}

fn run(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
}

#[tokio::test]
async fn what_is_well_is_not_complained_of() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    for (fs, mib) in [("ext4", 64), ("xfs", 300), ("block", 64)] {
        let (id, staging) = staged(&bench, &mut driver, fs, mib).await;
        assert_eq!(driver.health(&id).await.unwrap(), []);
        let at = if fs == "block" { "" } else { &*staging };
        assert_eq!(driver.health_at(&id, at).await.unwrap(), []);
        driver.unstage(&id, &staging).await.unwrap();
        assert_eq!(driver.health(&id).await.unwrap(), []);
    }
    assert!(driver.unhealthy(0).await.is_empty());
    assert_eq!(driver.storage_health().await, []);
    for (id, code) in [("", Code::InvalidArgument), ("nothing", Code::NotFound)] {
        assert_eq!(driver.health(id).await.unwrap_err().code(), code);
        assert_eq!(driver.health_at(id, "").await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn images_and_records_that_are_gone_or_damaged_are_named() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let volume = driver
            .create(&format!("pvc-{number}"), "ext4", 32)
            .await
            .unwrap();
        ids.push(volume.volume_id);
    }
    ids.sort_unstable();
    let folder = |id: &str| bench.path("pool/pool/volumes").join(id);
    std::fs::remove_file(folder(&ids[0]).join("image")).unwrap();
    let short = OpenOptions::new()
        .write(true)
        .open(folder(&ids[1]).join("image"))
        .unwrap();
    short.set_len(1 << 20).unwrap();
    std::fs::write(folder(&ids[3]).join("volume.json"), b"{\"format\":1,").unwrap();
    let words = driver.says(&ids[0], DataLoss, "ImageMissing").await;
    assert!(words.contains("restore"), "{words}");
    driver.says(&ids[1], DataLoss, "ImageShort").await;
    let words = driver.says(&ids[3], Inaccessible, "RecordDamaged").await;
    assert!(words.contains("volume.json is damaged"), "{words}");
    for page in [0, 1, 2, 100] {
        let wrong = [&ids[0], &ids[1], &ids[3]];
        assert!(
            driver.unhealthy(page).await.iter().eq(wrong),
            "pages of {page}"
        );
    }
}

/// For those who watch and do not ask.
#[tokio::test]
async fn what_is_wrong_is_counted_until_it_is_mended() {
    let bench = Bench::new();
    let address = free_address();
    let http = format!("--http-address={address}");
    let often = "--monitor-interval=1";
    let mut driver = bench
        .start_with(&["--pool-size=1Gi", "--pool-sparse", &http, often])
        .await;
    for name in ["well", "one", "two"] {
        driver.create(name, "ext4", 32).await.unwrap();
    }
    let counts = async |wanted: Option<&str>| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, metrics) = get(&address, "/metrics");
            let mut lines = metrics.lines();
            let found = lines.find(|line| line.starts_with("fastcopy_troubles{"));
            if found == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?} instead of {wanted:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    counts(None).await;
    let images = bench.volumes().into_iter().map(|it| it.join("image"));
    let images: Vec<_> = images.take(2).collect();
    let pool = bench.path("pool/pool");
    let aside = |image: &Path| pool.join(image.parent().unwrap().file_name().unwrap());
    for image in &images {
        std::fs::rename(image, aside(image)).unwrap();
    }
    counts(Some("fastcopy_troubles{reason=\"ImageMissing\"} 2")).await;
    // It is told when it was seen for a second time.
    let log = || std::fs::read_to_string(bench.path("log")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while log().matches("reason=\"ImageMissing\"").count() < 2 {
        assert!(Instant::now() < deadline, "{}", log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for image in &images {
        std::fs::rename(aside(image), image).unwrap();
    }
    counts(None).await;
}

#[tokio::test]
async fn an_image_that_is_removed_under_its_user_is_named() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = staged(&bench, &mut driver, "ext4", 64).await;
    let image = bench.volumes()[0].join("image");
    std::fs::rename(&image, bench.path("aside")).unwrap_err();
    std::fs::rename(&image, bench.path("pool/pool/aside")).unwrap();
    let found = driver.health(&id).await.unwrap();
    let reasons: Vec<_> = found.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["ImageMissing", "ImageReplaced"]);
    std::fs::rename(bench.path("pool/pool/aside"), &image).unwrap();
    assert_eq!(driver.health(&id).await.unwrap(), []);
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn file_systems_that_stopped_are_named_until_they_are_staged_anew() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = staged(&bench, &mut driver, "xfs", 300).await;
    let mut file = File::create_new(Path::new(&staging).join("file")).unwrap();
    std::io::Write::write_all(&mut file, b"words").unwrap();
    file.sync_all().unwrap();
    drop(file);
    run("xfs_io", &["-x", "-c", "shutdown -f", &staging]);
    let words = driver.says(&id, Inaccessible, "FileSystemShutDown").await;
    assert!(words.contains(&staging), "{words}");
    assert_eq!(driver.unhealthy(0).await, [&*id]);
    driver.unstage(&id, &staging).await.unwrap();
    driver.stage(&id, "xfs", &staging).await.unwrap();
    assert_eq!(driver.health(&id).await.unwrap(), []);
    let read = std::fs::read(Path::new(&staging).join("file")).unwrap();
    assert_eq!(read, b"words");

    let (id, staging) = staged(&bench, &mut driver, "ext4", 64).await;
    run("mount", &["-o", "remount,ro", &staging]);
    driver.says(&id, Degraded, "FileSystemReadOnly").await;
    run("mount", &["-o", "remount,rw", &staging]);
    assert_eq!(driver.health(&id).await.unwrap(), []);
    let elsewhere = bench.staging("elsewhere");
    let found = driver.health_at(&id, &elsewhere).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].status(), &*found[0].reason),
        (Inaccessible, "NotMounted")
    );
    run("xfs_io", &["-x", "-c", "shutdown -f", &staging]);
    driver.says(&id, Inaccessible, "FileSystemShutDown").await;
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn errors_that_ext4_has_noted_are_told_before_it_is_staged() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, staging) = staged(&bench, &mut driver, "ext4", 64).await;
    driver.unstage(&id, &staging).await.unwrap();
    // What the kernel writes there when it meets an error: s_state, EXT2_ERROR_FS.
    let image = bench.volumes()[0].join("image");
    let image = File::options().write(true).open(image).unwrap();
    image.write_all_at(&[3, 0], 1024 + 0x3A).unwrap();
    image.sync_all().unwrap();
    driver.says(&id, Degraded, "FileSystemErrors").await;
}

#[tokio::test]
async fn a_pool_that_promises_more_than_it_has_says_when_it_nears_its_end() {
    let bench = Bench::new();
    let arguments = [
        "--pool-size=512Mi",
        "--pool-sparse",
        "--no-http",
        "--overcommit=3",
        "--stop-percent=70",
    ];
    let mut driver = bench.start_with(&arguments).await;
    let id = driver.create("large", "ext4", 900).await.unwrap().volume_id;
    let staging = bench.staging("large");
    driver.stage(&id, "ext4", &staging).await.unwrap();
    assert_eq!(driver.storage_health().await, []);
    assert_eq!(driver.health(&id).await.unwrap(), []);
    let mut file = File::create_new(Path::new(&staging).join("file")).unwrap();
    std::io::Write::write_all(&mut file, &vec![1; 380 << 20]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let health = driver.storage_health().await;
    assert_eq!(health.len(), 1, "{health:?}");
    assert_eq!(health[0].status(), StorageHealthErrorType::StorageDegraded);
    assert_eq!(health[0].reason, "PoolNearlyFull");
    driver.says(&id, Degraded, "PoolNearlyFull").await;
    driver.unstage(&id, &staging).await.unwrap();
}

#[tokio::test]
async fn a_pool_that_takes_no_writes_is_out_of_reach() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let pool = bench.path("pool/pool").display().to_string();
    run("mount", &["-o", "remount,ro", &pool]);
    let health = driver.storage_health().await;
    assert_eq!(health.len(), 1, "{health:?}");
    assert_eq!(
        health[0].status(),
        StorageHealthErrorType::StorageUnreachable
    );
    assert_eq!(health[0].reason, "PoolNotWritable");
    println!("{}", health[0].message);
    run("mount", &["-o", "remount,rw", &pool]);
    assert_eq!(driver.storage_health().await, []);
}

#[tokio::test]
async fn a_device_whose_pool_is_gone_is_named() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let (id, _) = staged(&bench, &mut driver, "block", 64).await;
    let pool = bench.path("pool/pool").display().to_string();
    let device = bench
        .loops()
        .into_iter()
        .find(|it| it.file.ends_with("image"))
        .unwrap();
    run("xfs_io", &["-x", "-c", "shutdown -f", &pool]);
    let read = Command::new("dd")
        .args(["iflag=direct", "bs=4096", "count=1", "of=/dev/null"])
        .arg(format!("if=/dev/{}", device.name))
        .output();
    assert!(!read.unwrap().status.success(), "its user gets errors");
    let health = driver.storage_health().await;
    assert_eq!(
        health[0].status(),
        StorageHealthErrorType::StorageUnreachable
    );
    // The records are on the same disk, so nothing better can be said of the volume than that.
    let said = driver.health(&id).await.map_or_else(
        |status| status.message().to_owned(),
        |found| found[0].message.clone(),
    );
    println!("{said}");
    assert!(said.contains("cannot read"), "{said}");
    // The driver could not tell whose device it is any more, and so would never detach it.
    driver.kill();
    run("losetup", &["--detach", &format!("/dev/{}", device.name)]);
}
