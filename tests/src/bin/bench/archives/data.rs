//! What is restored, made from what the machine has, the same in every run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use tests::command::run;

/// A tree on the machine's disk.
pub struct Data {
    name: &'static str,
    folder: tempfile::TempDir,
    mebibytes: u64,
}

/// Large files of programs and libraries, one after the other, cut into four.
const DB: &str = "find /usr/lib /usr/bin \"$HOME/.rustup\" -xdev -type f -size +64k -print0 | \
    LC_ALL=C sort -z | xargs -0 cat | head -c 1G | split -b 256M - table-";

/// 60,000 small files of /usr and of Rust, as they are.
const TREE: &str = "(cd / && find usr/share usr/include usr/lib usr/local \"${HOME#/}/.rustup\" \
    \"${HOME#/}/.cargo/registry/src\" -xdev -type f -size -16k -print0 | LC_ALL=C sort -z | \
    head -z -n 60000 | tar c --null --files-from=-) | tar x";

/// 4,096 files of 256 KiB that do not compress: AES in counter mode of nothing, with a fixed key.
const WAL: &str = "openssl enc -aes-128-ctr -nosalt -pass pass:seed -pbkdf2 < /dev/zero 2> /dev/null | \
    head -c 1G | split -a 4 -d -b 256K - segment-";

/// 200 pieces of 1 MiB, 100 MiB apart.
const SPARSE: &str = "truncate -s 20G image && for i in $(seq 0 199); do \
    openssl enc -aes-128-ctr -nosalt -pass pass:$i -pbkdf2 < /dev/zero 2> /dev/null | head -c 1M | \
    dd of=image bs=1M seek=$((i * 102)) conv=notrunc status=none; done";

/// A file of 100 GiB, almost all of it a hole.
const HUGE: &str = "truncate -s 100G image && for i in 0 1 2 3; do \
    openssl enc -aes-128-ctr -nosalt -pass pass:$i -pbkdf2 < /dev/zero 2> /dev/null | head -c 1M | \
    dd of=image bs=1M seek=$((i * 34133)) conv=notrunc status=none; done";

/// More than the largest window, and nothing in it twice.
const LONG: &str = "openssl enc -aes-128-ctr -nosalt -pass pass:seed -pbkdf2 < /dev/zero 2> /dev/null | \
    head -c 300M > long";

impl Data {
    /// The data set of this name.
    pub fn make(name: &'static str) -> Result<Self> {
        let (script, mebibytes) = match name {
            "db" => (DB, 2048),
            "tree" => (TREE, 2048),
            "wal" => (WAL, 2048),
            "sparse" => (SPARSE, 21 * 1024),
            "huge" => (HUGE, 104 * 1024),
            "long" => (LONG, 1024),
            other => bail!("no such data: {other}"),
        };
        let folder = tempfile::Builder::new().prefix("bench-data-").tempdir()?;
        let tree = folder.path().join("tree");
        std::fs::create_dir(&tree)?;
        run(Command::new("bash").current_dir(&tree).args(["-c", script]))?;
        Ok(Self {
            name,
            folder,
            mebibytes,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// How large a volume has to be for it, in MiB.
    pub fn volume(&self) -> u64 {
        self.mebibytes
    }

    /// Where it lies.
    pub fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Packs it with GNU tar and a compressor.
    pub fn pack(&self, name: &str, compress: &str) -> Result<PathBuf> {
        let archive = self.folder.path().join(name);
        let script = format!(
            "set -o pipefail; tar c --format=posix --sparse --xattrs -C \"$1\" . | {compress} > \"$2\""
        );
        let mut shell = Command::new("bash");
        run(shell
            .args(["-c", &script, "pack"])
            .arg(self.tree())
            .arg(&archive))?;
        Ok(archive)
    }

    /// Whether a folder has the same files with the same contents, by the tools of the machine.
    pub fn is_same(&self, folder: &Path) -> Result<()> {
        let mut diff = Command::new("diff");
        diff.args(["--recursive", "--brief", "--no-dereference"]);
        diff.args(["--exclude", "lost+found"]);
        run(diff.arg(self.tree()).arg(folder)).map(drop)
    }
}
