//! Power cuts in the middle of a restore, on real file systems: what a checkpoint covers is there, and all
//! else is made again.
//!
//! `POWER_ROUNDS` sets how often, `POWER_SEED` has the same moments again.

use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use archive::RestoreError;

use crate::compare::assert_same;
use crate::pack;
use crate::resume::{Counted, attempt, everything, objects, with_checkpoints};
use crate::support::Random;
use crate::volume::{Volume, tree_of};

/// How often the power goes, unless `POWER_ROUNDS` says otherwise.
const ROUNDS: u64 = 6;

/// The latest moment at which it goes, in microseconds; later with every attempt, so that one ends.
const LATEST: u64 = 400_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Without a sync of the whole file system, ext4 would have the names after a second, with the checkpoint's
/// stamp among them, and the data of small files half a minute later.
#[test]
fn what_a_checkpoint_covers_is_durable() {
    let volume = Volume::loop_device(&["mkfs.ext4", "-q", "-b", "4096"], 64);
    let often = ["-o", "remount,commit=1"];
    pack::output(Command::new("mount").args(often).arg(volume.path()));
    let to = volume.path().join("to");
    fs::create_dir(&to).unwrap();
    rustix::fs::syncfs(File::open(&to).unwrap()).unwrap();
    let mut files: Vec<_> = (0..200).map(|it| (format!("{it:03}"), 3000)).collect();
    files.push(("large".to_owned(), 4 << 20));
    let names: Vec<_> = files
        .iter()
        .map(|(name, size)| (name.as_str(), *size))
        .collect();
    let original = tree_of(&names);
    let archive = pack::tar(original.path(), &["--format=pax", "--sort=name"]).into();
    let scratch = tempfile::tempdir().unwrap();
    let options = with_checkpoints(&scratch.path().join("state"), 300_000);
    let source = Arc::new(Counted::up_to(&archive, 1 << 20));
    let ended = attempt(&source, &to, &options, u64::MAX);
    assert!(matches!(ended, Err(RestoreError::ArchiveDenied(_))));
    std::thread::sleep(Duration::from_secs(3));
    volume.shutdown().go();
    volume.unmount();
    volume.mount();
    let source = Arc::new(Counted::new(&archive));
    let outcome = attempt(&source, &to, &options, u64::MAX).unwrap();
    assert!(
        outcome.resumed_at.is_some_and(|at| at > 300_000),
        "{outcome:?}"
    );
    assert_same(original.path(), &to);
}

#[test]
fn what_is_there_after_a_power_cut_is_enough_to_go_on() {
    let rounds = variable("POWER_ROUNDS").unwrap_or(ROUNDS);
    let mut random = Random(variable("POWER_SEED").unwrap_or(70));
    let (original, packed) = everything(70);
    let objects = objects(original.path(), &packed);
    let (mut cuts, mut passed_over) = (0, 0);
    for round in 0..rounds {
        let mkfs: &[&str] = if round % 2 == 0 {
            &["mkfs.ext4", "-q", "-b", "4096"]
        } else {
            &["mkfs.xfs", "-q"]
        };
        let volume = Volume::loop_device(mkfs, 320);
        // Beneath the root, where ext4 has lost+found.
        let to = volume.path().join("to");
        fs::create_dir(&to).unwrap();
        rustix::fs::syncfs(File::open(&to).unwrap()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let interval = random.pick(&[300_000, 1 << 20, 4 << 20]);
        let options = with_checkpoints(&scratch.path().join("state"), interval);
        let source = Arc::new(Counted::new(&objects[random.index(objects.len())].1));
        let record = scratch.path().join("state/record");
        for attempts in 1.. {
            let moment = Duration::from_micros(2_000 + random.below(LATEST * attempts));
            let (ended, before) = std::thread::scope(|scope| {
                let shutdown = volume.shutdown();
                let record = &record;
                let cut = scope.spawn(move || {
                    std::thread::sleep(moment);
                    let before = fs::read(record);
                    shutdown.go();
                    before
                });
                let ended = attempt(&source, &to, &options, u64::MAX);
                (ended, cut.join().unwrap())
            });
            volume.unmount();
            volume.mount();
            cuts += 1;
            match ended {
                Ok(outcome) => {
                    passed_over += outcome.resumed_at.unwrap_or(0);
                    break;
                }
                Err(RestoreError::VolumeError { .. }) => {}
                Err(error) => panic!("round {round}, {moment:?}: {error}"),
            }
            // Nobody writes a record when the power is gone.
            match before {
                Ok(before) => fs::write(&record, before).unwrap(),
                Err(_) => fs::remove_file(&record).unwrap_or_default(),
            }
        }
        // All of it was durable before the power went for the last time.
        assert_same(original.path(), &to);
    }
    println!("{cuts} power cuts in {rounds} restores, {passed_over} bytes not fetched again");
}
