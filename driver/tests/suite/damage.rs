//! What is damaged is named and kept, and harms nothing else.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use tonic::Code;

use crate::support::Bench;

#[tokio::test]
async fn a_damaged_record_is_kept_with_its_image_and_its_promise() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let room = driver.available().await;
    driver.kill();
    let folder = bench.path("pool/pool/volumes").join(&id);
    std::fs::write(folder.join("volume.json"), b"{\"format\": 1, \"na").unwrap();

    let mut driver = bench.start().await;
    assert_eq!(
        driver.available().await,
        room,
        "its space is not promised to others"
    );
    let path = bench.staging("a");
    for status in [
        driver.stage(&id, "ext4", &path).await.unwrap_err(),
        driver.delete(&id).await.unwrap_err(),
        driver.create("pvc-1", "ext4", 64).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(
            status.message().contains("volume.json is damaged"),
            "{status}"
        );
    }
    assert_eq!(folder.join("image").metadata().unwrap().len(), 64 << 20);
    let log = std::fs::read_to_string(bench.path("log")).unwrap();
    assert!(
        log.contains("ERROR") && log.contains("volume.json is damaged"),
        "{log}"
    );
    driver
        .create("pvc-2", "ext4", 64)
        .await
        .expect("others are not touched");
}

#[tokio::test]
async fn a_file_system_that_is_gone_is_not_made_again() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    let path = bench.staging("a");
    driver.stage(&id, "ext4", &path).await.unwrap();
    driver.unstage(&id, &path).await.unwrap();
    let image = bench.path("pool/pool/volumes").join(&id).join("image");
    OpenOptions::new()
        .write(true)
        .open(&image)
        .unwrap()
        .write_all_at(&[0; 4096], 0)
        .unwrap();
    let before = std::fs::read(&image).unwrap();

    let status = driver.stage(&id, "ext4", &path).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(status.message().contains("no usable ext4"), "{status}");
    assert!(
        std::fs::read(&image).unwrap() == before,
        "the image was left as it is"
    );
    assert_eq!(bench.loops().len(), 1, "and detached");
}

#[tokio::test]
async fn an_interrupted_mkfs_is_begun_anew() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "xfs", 300).await.unwrap().volume_id;
    let image = bench.path("pool/pool/volumes").join(&id).join("image");
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(&vec![0xAB; 1 << 20], 8 << 20).unwrap();
    file.write_all_at(b"XFSB", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let path = bench.staging("a");
    driver.stage(&id, "xfs", &path).await.unwrap();
    std::fs::write(format!("{path}/file"), b"words").unwrap();
    driver.unstage(&id, &path).await.unwrap();
}

#[tokio::test]
async fn leavings_go_at_the_start_and_what_is_no_volume_stays() {
    let bench = Bench::new();
    let mut driver = bench.start().await;
    let id = driver.create("pvc-1", "ext4", 64).await.unwrap().volume_id;
    driver.kill();
    let volumes = bench.path("pool/pool/volumes");
    std::fs::remove_file(volumes.join(&id).join("volume.json")).unwrap();
    let half = volumes.join(format!("vol-{}.node-1", "1".repeat(32)));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("image"), b"x").unwrap();
    std::fs::write(half.join("volume.json.new"), b"{").unwrap();
    let strange = volumes.join("lost+found");
    std::fs::create_dir(&strange).unwrap();
    let foreign = volumes.join(format!("vol-{}.node-1", "2".repeat(32)));
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("notes"), b"x").unwrap();

    let _driver = bench.start().await;
    assert!(!volumes.join(&id).exists() && !half.exists());
    assert!(strange.exists() && foreign.join("notes").exists());
}
