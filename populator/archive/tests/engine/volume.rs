//! Volumes that are small or of another kind: real file systems in loop devices, and tmpfs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::compare::assert_same;
use crate::forged::Forged;
use crate::pack;
use crate::support::{Random, restore};
use crate::tree::set_time;

/// A file system of its own, taken away again at the end.
pub struct Volume {
    scratch: tempfile::TempDir,
}

impl Volume {
    fn tmpfs(options: &str) -> Self {
        let volume = Self {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(volume.path()).unwrap();
        pack::output(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(volume.path()),
        );
        volume
    }

    pub fn loop_device(mkfs: &[&str], megabytes: u64) -> Self {
        let volume = Self {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(volume.path()).unwrap();
        let image = volume.scratch.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        pack::output(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        volume.mount();
        volume
    }

    /// The file that the loop device is of.
    pub fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    pub fn mount(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.image());
        pack::output(mount.arg(self.path()));
    }

    pub fn unmount(&self) {
        pack::output(Command::new("umount").arg(self.path()));
    }

    /// Something by which what is not on its disk yet never comes there, as by a power cut.
    pub fn shutdown(&self) -> Shutdown {
        let mut xfs_io = Command::new("xfs_io");
        let xfs_io = xfs_io.arg("-x").arg(self.path()).stdin(Stdio::piped());
        Shutdown(xfs_io.stdout(Stdio::null()).spawn().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("mount")
    }
}

/// A program that waits for the word.
pub struct Shutdown(Child);

impl Shutdown {
    pub fn go(mut self) {
        self.0
            .stdin
            .take()
            .unwrap()
            .write_all(b"shutdown\n")
            .unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Unmounting releases the loop device too.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// A directory with files of these sizes.
pub fn tree_of(files: &[(&str, usize)]) -> tempfile::TempDir {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(40);
    for (name, size) in files {
        fs::write(original.path().join(name), random.bytes(*size)).unwrap();
        set_time(&original.path().join(name), 1_000_000, 0);
    }
    set_time(original.path(), 1_000_000, 0);
    original
}

fn does_not_fit(volume: &Volume, original: &Path, entry: &str) {
    let error = restore(pack::tar(original, &["--format=gnu"]), &volume.path()).unwrap_err();
    assert_eq!(error.reason(), "DoesNotFit", "{error}");
    assert!(error.to_string().contains(entry), "{error}");
}

#[test]
fn what_does_not_fit_is_told() {
    let large = tree_of(&[("large", 30 << 20)]);
    does_not_fit(&Volume::tmpfs("size=8m"), large.path(), "large");
    let ext4 = ["mkfs.ext4", "-q", "-b", "4096"];
    does_not_fit(&Volume::loop_device(&ext4, 16), large.path(), "large");
    let names: Vec<String> = (0..40).map(|index| format!("small-{index}")).collect();
    let small: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 500_000)).collect();
    does_not_fit(
        &Volume::loop_device(&ext4, 16),
        tree_of(&small).path(),
        "small-",
    );
}

#[test]
fn no_more_inodes_is_no_room() {
    let names: Vec<String> = (0..60).map(|index| format!("file-{index}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let volume = Volume::tmpfs("size=8m,nr_inodes=30");
    does_not_fit(&volume, tree_of(&files).path(), "file-");
}

/// A full volume is told from an attribute that ext4 never takes.
#[test]
fn attributes_that_do_not_fit() {
    let archive = |size: usize, files: usize| {
        let mut archive = Forged::default();
        for index in 0..files {
            let value = format!("{index:06}{}", "v".repeat(size - 6));
            let records = [("SCHILY.xattr.user.large", value.as_str())];
            archive = archive.pax(&records).file(&format!("{index}"), "");
        }
        archive.end()
    };
    let ext4 = ["mkfs.ext4", "-q", "-b", "4096", "-N", "5000"];
    let volume = Volume::loop_device(&ext4, 16);
    let error = restore(archive(3000, 4500), &volume.path()).unwrap_err();
    assert_eq!(error.reason(), "DoesNotFit", "{error}");
    let volume = Volume::loop_device(&ext4, 16);
    let outcome = restore(archive(9000, 3), &volume.path()).unwrap();
    assert_eq!(outcome.lost.get("xattr user").unwrap().count, 3);
}

#[test]
fn link_targets_that_the_file_system_does_not_take() {
    let target = "x".repeat(2000);
    let archive = Forged::default()
        .pax(&[("linkpath", &target)])
        .link("link", "")
        .end();
    let volume = Volume::loop_device(&["mkfs.ext4", "-q", "-b", "4096"], 16);
    restore(archive.clone(), &volume.path()).unwrap();
    let made = fs::read_link(volume.path().join("link")).unwrap();
    assert_eq!(made.as_os_str().len(), 2000);
    let volume = Volume::loop_device(&["mkfs.xfs", "-q"], 320);
    let error = restore(archive, &volume.path()).unwrap_err();
    assert_eq!(error.reason(), "EntryRefused");
    assert!(error.to_string().contains("target of the link"), "{error}");
}

/// Direct writes and their tail on other block sizes, `lost+found`, and memory.
#[test]
fn other_file_systems() {
    let files = [
        ("a", (1 << 20) + 1),
        ("b", 5 << 20),
        ("c", (3 << 20) + 4097),
        ("d", 9_999_999),
        ("e", 7),
    ];
    let original = tree_of(&files);
    let packed = pack::tar(original.path(), &["--format=gnu"]);
    for volume in [
        Volume::tmpfs("size=64m"),
        Volume::loop_device(&["mkfs.ext4", "-q", "-b", "4096"], 64),
        Volume::loop_device(&["mkfs.ext4", "-q", "-b", "1024"], 64),
        Volume::loop_device(&["mkfs.xfs", "-q"], 320),
    ] {
        restore(packed.clone(), &volume.path()).unwrap();
        let _ = fs::remove_dir(volume.path().join("lost+found"));
        set_time(&volume.path(), 1_000_000, 0);
        assert_same(original.path(), &volume.path());
    }
}
