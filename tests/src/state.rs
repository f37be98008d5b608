//! What the harness leaves on a machine, under one name, so that it can be taken away again: by
//! the process that made it, or by a later one after everything was killed.
//!
//! A [`State`] is a folder, a lock held as long as its owner lives, and an index from which all
//! addresses follow. No list of processes is kept, because a process could die between starting
//! another and writing that down: every program is started with [`MARKER`] in its environment,
//! and containers are known from what their node's containerd keeps in the folder.

mod containers;
mod loops;
mod takedown;
mod traces;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};

pub(crate) use self::containers::container_ids;
pub use self::traces::traces;
use crate::addresses::{Addresses, MOST_CLUSTERS};
use crate::command::run_program;

/// The environment variable that every program started here has; its value is the state's folder.
pub const MARKER: &str = "VOLUME_POPULATOR_TESTS_STATE";

/// Everything under one name. Dropping it takes it down, unless [`State::leave`] was called.
#[derive(Debug)]
pub struct State {
    name: String,
    folder: PathBuf,
    addresses: Addresses,
    left: AtomicBool,
    lock: File,
}

/// The folder of all states: `VOLUME_POPULATOR_TESTS` or `/var/lib/volume-populator-tests`.
pub fn root() -> PathBuf {
    std::env::var_os("VOLUME_POPULATOR_TESTS").map_or_else(
        || PathBuf::from("/var/lib/volume-populator-tests"),
        PathBuf::from,
    )
}

impl State {
    /// Takes the name, and takes down what an earlier owner left under it. An error if its owner
    /// still lives.
    pub fn create(name: &str) -> Result<Self> {
        let lock = lock(name)?;
        takedown::take_down(name)?;
        let folder = root().join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let addresses = reserve(&folder)?;
        Ok(Self {
            name: name.to_owned(),
            folder,
            addresses,
            left: AtomicBool::new(false),
            lock,
        })
    }

    /// Takes down everything under the name, from any process. Nothing there is fine. An error if
    /// its owner still lives.
    pub fn take_down(name: &str) -> Result<()> {
        let lock = lock(name)?;
        takedown::take_down(name)?;
        unlock(name, &lock)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder, which goes with the state.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The addresses that are this state's own.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// A folder below [`State::folder`], made if need be.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// A command with the marker and nothing else of this process's environment: a proxy or a
    /// KUBECONFIG of the caller must not reach what is started here. It runs in a session of its
    /// own, so that neither Ctrl-C nor the end of a terminal reaches it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setsid");
        command
            .arg(program)
            .env_clear()
            .env(MARKER, &self.folder)
            .env("HOME", &self.folder)
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            );
        command
    }

    /// Detaches the loop devices of a node of it, whose folder this is, whoever attached them.
    pub(crate) fn detach_loops_of(&self, node: &Path) -> Result<()> {
        debug_assert!(
            node.starts_with(&self.folder),
            "others are not ours to detach"
        );
        takedown::detach_loops_of(node)
    }

    /// Leaves everything as it is when this value goes.
    pub fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }

    /// Whether it was left, or taken down already.
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// Takes everything down now, with an error for what could not be removed. A second call does
    /// nothing.
    pub fn stop(&self) -> Result<()> {
        if self.left.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        takedown::take_down(&self.name)?;
        unlock(&self.name, &self.lock)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(
                state = self.name,
                error = format!("{error:#}"),
                "not taken down"
            );
        }
    }
}

fn lock_path(name: &str) -> PathBuf {
    root().join(format!("{name}.lock"))
}

/// The lock of a name, or an error that names the process that has it.
fn lock(name: &str) -> Result<File> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty() && name.chars().all(plain),
        "{name:?} is no name for a state: use small letters, digits and dashes"
    );
    std::fs::create_dir_all(root()).with_context(|| root().display().to_string())?;
    let path = lock_path(name);
    loop {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) if file.metadata()?.nlink() == 0 => {} // its last owner removed it just now
            Ok(()) => {
                file.set_len(0)?;
                write!(file, "{}", std::process::id())?;
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner)?;
                bail!("{name} is in use by process {owner}: end that process first");
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| path.display().to_string());
            }
        }
    }
}

/// Removes a lock that this process holds, and the root if it was the last thing in it.
fn unlock(name: &str, _held: &File) -> Result<()> {
    let path = lock_path(name);
    std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
    let _ = std::fs::remove_dir(root()); // other states live on there
    Ok(())
}

/// Gives the state in `folder` an index that no other has, and writes it down there. The lock on
/// the root makes two processes choose one after the other.
fn reserve(folder: &Path) -> Result<Addresses> {
    let root = File::open(root())?;
    root.lock()?;
    let taken: Vec<u8> = states()?.iter().filter_map(|name| index(name)).collect();
    let links = run_program("ip", &["-brief", "link"])?;
    let free = (0..MOST_CLUSTERS).find(|index| {
        // A bridge of this name that is in no folder belongs to states under another root.
        let bridge = Addresses::new(*index).bridge();
        let up = links
            .lines()
            .any(|line| line.split_whitespace().next() == Some(&*bridge));
        !taken.contains(index) && !up
    });
    let Some(free) = free else {
        bail!("{MOST_CLUSTERS} clusters are up on this machine already: take one down");
    };
    std::fs::write(folder.join("index"), free.to_string())?;
    Ok(Addresses::new(free))
}

/// The index of the state of this name, if there is one and it got so far.
fn index(name: &str) -> Option<u8> {
    let text = std::fs::read_to_string(root().join(name).join("index")).ok()?;
    text.parse().ok().filter(|index| *index < MOST_CLUSTERS)
}

/// The names of all states.
fn states() -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(root()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("the folder of all states"),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
