//! Archives that mean harm, kept in `tests/corpus/hostile`: each gets its error, which names the entry,
//! or leaves what it should; and none makes or changes anything outside the root.
//!
//! The files are written by what is beside this: `HOSTILE_WRITE=1 cargo test -p archive hostile`.

// Tables are as long as they are.
#![allow(clippy::too_many_lines)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

use archive::{Devices, Outcome, RestoreError};
use tar::EntryType;

use crate::compare::assert_same;
use crate::forged::{Forged, forged_header};
use crate::pack;
use crate::support::{Memory, options, restore, restore_from};
use crate::tree::set_time;

mod headers;
mod links;
mod names;
mod numbers;
mod sparse;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/hostile");

/// What must come of an archive.
pub enum Fate {
    /// This reason, and these words in the message.
    Fails(&'static str, &'static [&'static str]),
    /// All of this and nothing else, and losses of these kinds.
    Leaves(&'static [Left], &'static [&'static str]),
    /// So many entries; too many or too odd to list.
    Entries(u64),
}

/// A path, and what is there.
pub type Left = (&'static [u8], What);

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    File(&'static str),
    Link(&'static str),
    Directory,
}

/// An archive of the corpus.
pub struct Specimen {
    /// Its name in the folder.
    pub file: &'static str,
    pub archive: Vec<u8>,
    pub fate: Fate,
}

/// One that fails with this reason.
pub fn fails(
    file: &'static str,
    archive: Forged,
    reason: &'static str,
    words: &'static [&'static str],
) -> Specimen {
    let fate = Fate::Fails(reason, words);
    let archive = archive.end();
    Specimen {
        file,
        archive,
        fate,
    }
}

/// One of whose entries one cannot be restored.
pub fn refused(file: &'static str, archive: Forged, words: &'static [&'static str]) -> Specimen {
    fails(file, archive, "EntryRefused", words)
}

/// One that contradicts itself.
pub fn corrupt(file: &'static str, archive: Forged, words: &'static [&'static str]) -> Specimen {
    fails(file, archive, "ArchiveCorrupt", words)
}

/// One that is restored to this.
pub fn leaves(
    file: &'static str,
    archive: Forged,
    left: &'static [Left],
    lost: &'static [&'static str],
) -> Specimen {
    let fate = Fate::Leaves(left, lost);
    let archive = archive.end();
    Specimen {
        file,
        archive,
        fate,
    }
}

fn specimens() -> Vec<Specimen> {
    let all = [
        names::specimens(),
        links::specimens(),
        numbers::specimens(),
        headers::specimens(),
        sparse::specimens(),
    ];
    all.into_iter().flatten().collect()
}

/// Files and a folder of which nothing may change, beside an empty root.
struct Surroundings(tempfile::TempDir);

impl Surroundings {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("victim"), "untouched").unwrap();
        fs::create_dir_all(outside.path().join("folder/root")).unwrap();
        fs::write(outside.path().join("folder/victim"), "untouched").unwrap();
        symlink("victim", outside.path().join("folder/link")).unwrap();
        let surroundings = Self(outside);
        surroundings.reset_times();
        surroundings
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("folder/root")
    }

    fn reset_times(&self) {
        for name in [
            "victim",
            "folder/victim",
            "folder/link",
            "folder/root",
            "folder",
            ".",
        ] {
            set_time(&self.0.path().join(name), 1_000_000_000, 1);
        }
    }

    /// Without what was restored, all is as it was.
    fn assert_unchanged(self) {
        // The standard library holds a descriptor for each directory on the way down.
        pack::output(Command::new("rm").arg("-rf").arg(self.root()));
        fs::create_dir(self.root()).unwrap();
        for name in ["folder/root", "folder"] {
            set_time(&self.0.path().join(name), 1_000_000_000, 1);
        }
        let before = Self::new();
        assert_same(before.0.path(), self.0.path());
        for path in ["/engine-test-victim", "/tmp/engine-test-victim"] {
            assert!(fs::symlink_metadata(path).is_err(), "{path} was made");
        }
    }
}

fn check(specimen: &Specimen, result: Result<Outcome, RestoreError>, root: &Path) {
    let name = specimen.file;
    match (&specimen.fate, result) {
        (Fate::Fails(reason, words), Err(error)) => {
            let said = error.to_string();
            assert_eq!(error.reason(), *reason, "{name}: {said}");
            for word in *words {
                assert!(said.contains(word), "{name}: no {word} in: {said}");
            }
            assert!(!said.contains(char::is_control), "{name}: {said}");
        }
        (Fate::Leaves(left, lost), Ok(outcome)) => {
            let mut found = BTreeSet::new();
            list(root, Path::new(""), &mut found);
            for (path, what) in *left {
                let path = Path::new(std::ffi::OsStr::from_bytes(path));
                assert!(found.remove(path), "{name}: {path:?} is missing");
                assert_is(name, &root.join(path), what);
            }
            assert!(found.is_empty(), "{name}: {found:?}");
            let kinds: Vec<_> = outcome.lost.iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, *lost, "{name}");
        }
        (Fate::Entries(entries), Ok(outcome)) => assert_eq!(outcome.entries, *entries, "{name}"),
        (Fate::Fails(reason, _), Ok(_)) => panic!("{name} was restored, and is {reason}"),
        (_, Err(error)) => panic!("{name}: {error}"),
    }
}

fn list(root: &Path, beneath: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(root.join(beneath)).unwrap() {
        let entry = entry.unwrap();
        let path = beneath.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            list(root, &path, found);
        }
        found.insert(path);
    }
}

fn assert_is(name: &str, path: &Path, what: &What) {
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    match what {
        What::File(content) => {
            assert!(kind.is_file(), "{name}: {path:?}");
            assert_eq!(
                fs::read_to_string(path).unwrap(),
                *content,
                "{name}: {path:?}"
            );
        }
        What::Link(target) => {
            assert_eq!(fs::read_link(path).unwrap(), Path::new(target), "{name}");
        }
        What::Directory => assert!(kind.is_dir(), "{name}: {path:?}"),
    }
}

#[test]
fn the_corpus() {
    let specimens = specimens();
    let names: BTreeSet<_> = specimens.iter().map(|specimen| specimen.file).collect();
    assert_eq!(names.len(), specimens.len(), "two of the same name");
    let failed: Vec<_> = specimens
        .iter()
        .filter(|it| catch_unwind(|| one(it)).is_err())
        .collect();
    let failed: Vec<_> = failed.iter().map(|specimen| specimen.file).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let kept = fs::read_dir(CORPUS).unwrap();
    for file in kept.map(|file| file.unwrap().file_name()) {
        assert!(
            names.contains(file.to_str().unwrap()),
            "{file:?} is in no table"
        );
    }
}

/// Writes an archive of the corpus, if that is what is asked for, and restores it.
fn one(specimen: &Specimen) {
    let kept = Path::new(CORPUS).join(specimen.file);
    let through = |arguments, bytes: &[u8]| match specimen.file.strip_suffix(".gz") {
        Some(_) => pack::filter("gzip", arguments, bytes),
        None => bytes.to_vec(),
    };
    if std::env::var_os("HOSTILE_WRITE").is_some() {
        fs::write(&kept, through(&["-9nc"], &specimen.archive)).unwrap();
    }
    let object = fs::read(&kept).unwrap();
    let unpacked = through(&["-dc"], &object);
    assert!(
        unpacked == specimen.archive,
        "{} is another file",
        specimen.file
    );

    let surroundings = Surroundings::new();
    let result = restore(object, &surroundings.root());
    check(specimen, result, &surroundings.root());
    surroundings.assert_unchanged();
}

/// The same when devices may be made and losses are failures: no other way leads out.
#[test]
fn the_corpus_with_everything_allowed() {
    for specimen in specimens() {
        let surroundings = Surroundings::new();
        let mut options = options();
        options.devices = Devices::Create;
        options.strict = true;
        let memory = Memory::new(specimen.archive);
        let _ = restore_from(memory, &surroundings.root(), &options);
        surroundings.assert_unchanged();
    }
}

#[test]
fn device_nodes_that_are_allowed() {
    let archive = |major| {
        let mut header = forged_header(EntryType::Char, b"dev/null", b"");
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        Forged(header.as_bytes().to_vec()).end()
    };
    let to = tempfile::tempdir().unwrap();
    let mut options = options();
    options.devices = Devices::Create;
    restore_from(Memory::new(archive(1)), to.path(), &options).unwrap();
    let made = fs::symlink_metadata(to.path().join("dev/null")).unwrap();
    assert!(made.file_type().is_char_device());
    assert_eq!((made.rdev(), made.mode() & 0o7777), (0x103, 0o644));

    // Cut to the kernel's width, this would be a device that the archive does not name.
    let to = tempfile::tempdir().unwrap();
    let memory = Memory::new(archive(4096 + 1));
    let error = restore_from(memory, to.path(), &options).unwrap_err();
    assert_eq!(error.reason(), "ArchiveCorrupt", "{error}");
}

#[test]
fn times_beyond_the_file_system_are_counted() {
    let mut archive = Forged::default();
    for (name, seconds) in [(b"far", 1 << 40), (b"now", 1_800_000_000)] {
        let mut header = forged_header(EntryType::Regular, name, b"");
        header.set_size(0);
        header.set_mtime(seconds);
        header.set_cksum();
        archive.0.extend_from_slice(header.as_bytes());
    }
    let to = tempfile::tempdir_in("/tmp").unwrap();
    let outcome = restore(archive.end(), to.path()).unwrap();
    let kept = fs::metadata(to.path().join("far")).unwrap().mtime() == 1 << 40;
    let lost = outcome.lost.get("time beyond what the file system keeps");
    assert_eq!(lost.map(|loss| loss.count), (!kept).then_some(1));
}

/// The root is a volume: what is mounted or lies in it is no business of the archive.
#[test]
fn a_root_that_is_not_empty_is_refused() {
    let to = tempfile::tempdir().unwrap();
    symlink("/etc", to.path().join("there")).unwrap();
    let error = restore(Forged::default().file("f", "").end(), to.path()).unwrap_err();
    assert_eq!(error.reason(), "VolumeNotEmpty");
    assert!(error.to_string().contains("there"));

    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("lost+found")).unwrap();
    let archive = Forged::default()
        .directory("./lost+found")
        .file("lost+found/f", "")
        .end();
    restore(archive, to.path()).unwrap();
    assert!(to.path().join("lost+found/f").exists());
}
