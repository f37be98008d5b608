//! Reading an archive from the administrator's directory.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

mod agent_fakes;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent_fakes::{access, nearby};
use archive::{Source as _, SourceErrorKind};
use crds::volume_backup::ResolvedArchive;
use populator::agent::source::{Clients, FileSource, Intake, Limits};
use populator::store::FileRoot;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

const URL: &str = "file:///team/a.tar";

fn intake() -> Intake {
    let clients = Clients::new(Limits::default(), nearby(), None).unwrap();
    let (_, receiver) = watch::channel(access(URL, 600));
    Intake::new(Arc::new(clients), "store", receiver, Counter::default())
}

fn pinned(root: &Path) -> (FileSource, ResolvedArchive) {
    let root = FileRoot::from(root.to_owned());
    let pinned = root.open(URL).unwrap();
    let archive = ResolvedArchive {
        url: "file:///a.tar".into(),
        etag: Some(pinned.etag.clone()),
        size: i64::try_from(pinned.size).unwrap(),
        ..ResolvedArchive::default()
    };
    (FileSource::new(root, &archive, intake()).unwrap(), archive)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("team")).unwrap();
    fs::write(folder.path().join("team/a.tar"), b"0123456789").unwrap();
    // The kernel's clock of files ticks now and then only.
    std::thread::sleep(Duration::from_millis(20));
    folder
}

#[tokio::test]
async fn a_file_is_read_in_ranges_and_counted() {
    let folder = folder();
    let root = FileRoot::from(folder.path().to_owned());
    let (_, archive) = pinned(folder.path());
    let intake = intake();
    let fetched = intake.fetched();
    let source = FileSource::new(root, &archive, intake).unwrap();
    assert_eq!(source.length(), 10);
    assert_eq!(&source.read_at(3..7).await.unwrap()[..], b"3456");
    assert_eq!(fetched.load(Ordering::Relaxed), 4);
    assert!(source.identity().is_some());
}

#[tokio::test]
async fn another_in_its_place_is_never_read() {
    type Change = fn(&Path);
    let changes: [(Change, SourceErrorKind); 4] = [
        (
            |path| fs::write(path, b"9876543210").unwrap(),
            SourceErrorKind::Changed,
        ),
        (
            |path| fs::write(path, b"012").unwrap(),
            SourceErrorKind::Changed,
        ),
        (
            |path| {
                let other = path.with_file_name("b.tar");
                fs::write(&other, b"0123456789").unwrap();
                fs::rename(other, path).unwrap();
            },
            SourceErrorKind::Changed,
        ),
        (
            |path| fs::remove_file(path).unwrap(),
            SourceErrorKind::NotFound,
        ),
    ];
    for (change, kind) in changes {
        let folder = folder();
        let path = folder.path().join("team/a.tar");
        let (late, _) = pinned(folder.path());
        change(&path);
        assert_eq!(late.read_at(0..10).await.unwrap_err().kind, kind);
    }
    // While it is read, too.
    let folder = folder();
    let (source, _) = pinned(folder.path());
    source.read_at(0..5).await.unwrap();
    fs::write(folder.path().join("team/a.tar"), b"9876543210").unwrap();
    let error = source.read_at(5..10).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Changed, "{error}");
}
