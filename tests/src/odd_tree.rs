//! A small tree with everything that a tar archive of a real database carries, and archives of it
//! made by GNU tar and the usual compressors.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::command::run;

/// Makes the tree in `root`, which must not exist.
pub fn make(root: &Path) -> Result<()> {
    fs::create_dir(root)?;
    let folders = ["base", "base/1", "base/2", "empty", "closed"];
    for folder in folders {
        fs::create_dir(root.join(folder))?;
    }
    // From nothing to some megabytes, so that each way of writing is taken.
    for (index, size) in [0, 1, 511, 512, 4096, 100_000, 1 << 20, (5 << 20) + 17]
        .iter()
        .enumerate()
    {
        let path = root.join(format!("base/1/{index}"));
        fs::write(&path, bytes(*size, index))?;
        chown(&path, Some(70), Some(1000 + u32::try_from(index)?))?;
    }
    for index in 0..300 {
        fs::write(
            root.join(format!("base/2/small-{index}")),
            format!("file {index}\n"),
        )?;
    }
    let long = root
        .join("base")
        .join("a-name-of-some-length".repeat(8))
        .join("deeper".repeat(20));
    fs::create_dir_all(&long)?;
    fs::write(long.join("end"), "reached")?;
    fs::write(
        root.join("name with \u{fc}mlaut, space and \"quotes\""),
        "odd",
    )?;

    let mode =
        |path: &str, mode| fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode));
    mode("base/1/0", 0o4755)?;
    mode("base/1/1", 0o2711)?;
    mode("base/1/2", 0o000)?;
    mode("empty", 0o1777)?;
    mode("closed", 0o500)?;

    fs::hard_link(root.join("base/1/5"), root.join("twin"))?;
    fs::hard_link(root.join("base/1/5"), root.join("base/2/triplet"))?;
    symlink("base/1/5", root.join("link"))?;
    symlink("/nowhere/at/all", root.join("dangling"))?;
    lchown(root.join("link"), Some(12), Some(34))?;
    mknodat(
        CWD,
        root.join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o640),
        0,
    )?;
    rustix::fs::setxattr(
        root.join("base/1/6"),
        "user.origin",
        b"tests",
        rustix::fs::XattrFlags::empty(),
    )?;

    for name in [
        "base/1/3", "base/1/5", "link", "fifo", "closed", "base/1", "base", "",
    ] {
        let time = Timespec {
            tv_sec: 1_600_000_000,
            tv_nsec: 123_456_789,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Bytes that neither compress to nothing nor repeat in 512s.
fn bytes(size: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 0x9e37_79b9_7f4a_7c15;
    let step = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        b"abcdefghijklmnop"[usize::try_from(state >> 60).unwrap_or(0)]
    };
    (0..size).map(step).collect()
}

/// A file of random bytes.
pub fn noise(file: &Path, bytes: u64) -> Result<()> {
    let mut random = std::io::Read::take(fs::File::open("/dev/urandom")?, bytes);
    std::io::copy(&mut random, &mut fs::File::create(file)?)?;
    Ok(())
}

/// Packs `root` with GNU tar as POSIX archive with attributes; `suffix` is `tar`, `tar.gz`, `tar.zst`,
/// `tar.xz`, `tar.bz2` or `tar.lz4`.
pub fn pack(root: &Path, archive: &Path, suffix: &str) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--format=posix", "--xattrs", "--create", "--file"])
        .arg(archive);
    match suffix {
        "tar" => {}
        "tar.gz" => drop(tar.arg("--gzip")),
        "tar.zst" => drop(tar.arg("--use-compress-program=zstd -q --check")),
        "tar.xz" => drop(tar.arg("--xz")),
        "tar.bz2" => drop(tar.arg("--bzip2")),
        "tar.lz4" => drop(tar.arg("--use-compress-program=lz4 -q")),
        other => anyhow::bail!("no such format here: {other}"),
    }
    run(tar.arg("--directory").arg(root).arg("."))
        .context("tar")
        .map(drop)
}
