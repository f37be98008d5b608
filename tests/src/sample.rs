//! Archives of real files: what the machine has under `/usr` and, if that is too little, of Rust.

use std::{
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Real files and the folders they lie in, relative to `/`.
#[derive(Debug)]
pub struct Sample {
    /// Regular files and symbolic links.
    pub files: usize,
    /// Bytes of the regular files.
    pub bytes: u64,
    names: Vec<PathBuf>,
    regular: Vec<PathBuf>,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `gzip -1`.
    Gzip,
    /// `zstd -3`, one frame with a checksum, on all cores.
    Zstd,
}

/// The name, in the archive, of the list that `sha256sum -c` reads.
pub const SUMS: &str = "SHA256SUMS";

impl Sample {
    /// At least `files` files and `bytes` bytes of this machine. Once there are files enough, only
    /// large ones are added.
    pub fn collect(files: usize, bytes: u64) -> Result<Self> {
        let home = std::env::var_os("HOME")
            .map(PathBuf::from)
            .unwrap_or_default();
        let roots = [
            "/usr/share",
            "/usr/lib",
            "/usr/include",
            "/usr/local",
            "/usr/bin",
            "/opt",
        ]
        .map(PathBuf::from)
        .into_iter()
        .chain([".rustup", ".cargo/registry/src"].map(|name| home.join(name)));
        let mut sample = Self {
            files: 0,
            bytes: 0,
            names: Vec::new(),
            regular: Vec::new(),
        };
        for root in roots {
            if root.is_dir() && !sample.walk(&root, files, bytes)? {
                return Ok(sample);
            }
        }
        ensure!(
            sample.files >= files && sample.bytes >= bytes,
            "this machine has only {} files with {} bytes to make an archive of",
            sample.files,
            sample.bytes
        );
        Ok(sample)
    }

    /// Adds what lies below `folder`, names in order; false once there is enough.
    fn walk(&mut self, folder: &Path, files: usize, bytes: u64) -> Result<bool> {
        self.names.push(folder.strip_prefix("/")?.to_owned());
        let mut entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if self.files >= files && self.bytes >= bytes {
                return Ok(false);
            }
            let (path, kind) = (entry.path(), entry.file_type()?);
            // sha256sum escapes such names, and no archive of people has them.
            if path
                .as_os_str()
                .as_bytes()
                .iter()
                .any(|byte| matches!(byte, b'\n' | b'\\' | b'\r'))
            {
                continue;
            }
            if kind.is_dir() {
                if !self.walk(&path, files, bytes)? {
                    return Ok(false);
                }
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                if self.files >= files && size < 64 << 10 {
                    continue;
                }
                self.bytes += size;
                self.files += 1;
                self.regular.push(path.strip_prefix("/")?.to_owned());
                self.names.push(path.strip_prefix("/")?.to_owned());
            } else if kind.is_symlink() && self.files < files {
                self.files += 1;
                self.names.push(path.strip_prefix("/")?.to_owned());
            }
        }
        Ok(true)
    }

    /// How many checksums stand in the archive's [`SUMS`].
    pub fn checksums(&self) -> usize {
        self.regular.len()
    }

    /// Writes `archive` with GNU tar and the usual compressor; [`SUMS`] is its first entry.
    pub fn pack(&self, archive: &Path, compression: Compression) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let sums = fs::File::create(folder.path().join(SUMS))?;
        feed(
            Command::new("xargs")
                .args(["-0", "-n500", "sha256sum", "--"])
                .current_dir("/")
                .stdout(sums),
            &self.regular,
        )?;
        let compressor = match compression {
            Compression::Gzip => "gzip -1",
            Compression::Zstd => "zstd -q -3 -T0 --check",
        };
        let packing = format!(
            "set -o pipefail; tar --format=posix --null --no-recursion --directory=\"$1\" \
             --create --file=- {SUMS} --directory=/ --files-from=- | {compressor} > \"$2\""
        );
        feed(
            Command::new("bash")
                .args(["-c", &packing, "pack"])
                .arg(folder.path())
                .arg(archive),
            &self.names,
        )
    }
}

/// Runs a program that reads names, each ended by a NUL.
fn feed(command: &mut Command, names: &[PathBuf]) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("a pipe to the program")?;
    for name in names {
        input.write_all(name.as_os_str().as_bytes())?;
        input.write_all(b"\0")?;
    }
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
