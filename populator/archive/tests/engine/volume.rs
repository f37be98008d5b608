//! Volumes that are small or of another kind: real file systems in loop devices, and tmpfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compare::assert_same;
use crate::pack;
use crate::support::{Random, restore};
use crate::tree::set_time;

/// A file system of its own, taken away again at the end.
struct Volume {
    scratch: tempfile::TempDir,
}

impl Volume {
    fn tmpfs(megabytes: u64) -> Self {
        let volume = Self {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(volume.path()).unwrap();
        let size = format!("size={megabytes}m");
        pack::output(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(volume.path()),
        );
        volume
    }

    fn loop_device(mkfs: &[&str], megabytes: u64) -> Self {
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
        pack::output(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(volume.path()),
        );
        volume
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("mount")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Unmounting releases the loop device too.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

fn tree_of(files: &[(&str, usize)]) -> tempfile::TempDir {
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
    does_not_fit(&Volume::tmpfs(8), large.path(), "large");
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
        Volume::tmpfs(64),
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
