//! Where the pinned programs are that `tests/tools` builds and unpacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The folders that `tests/tools/build` and `tests/tools/debian` print.
#[derive(Clone, Debug)]
pub struct Tools {
    built: PathBuf,
    debian: PathBuf,
}

impl Tools {
    /// Finds the programs. The error tells how to get them.
    pub fn locate() -> Result<Self> {
        Ok(Self {
            built: folder("build")?,
            debian: folder("debian")?,
        })
    }

    /// A program built by `tests/tools/build`: `kubectl`, `etcd`, `versitygw` and their like.
    pub fn built(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }

    /// Where `containerd`, its shim and `ctr` are.
    pub fn containerd_folder(&self) -> PathBuf {
        self.debian.join("usr/bin")
    }

    /// The container runtime below containerd.
    pub fn runc(&self) -> PathBuf {
        self.debian.join("usr/sbin/runc")
    }

    /// Where the CNI plugins are.
    pub fn cni_folder(&self) -> PathBuf {
        self.debian.join("usr/lib/cni")
    }

    /// The program that holds a pod's namespaces, and a node's.
    pub fn pause(&self) -> PathBuf {
        self.debian.join("pause")
    }
}

fn folder(script: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools")
        .join(script);
    let Ok(printed) = command::run(Command::new(&script).arg("--check")) else {
        bail!(
            "the pinned programs are not there yet: run `make tools` ({})",
            script.display()
        );
    };
    let folder = PathBuf::from(printed.trim());
    folder
        .is_dir()
        .then_some(folder)
        .with_context(|| format!("{} names no folder: run `make tools`", script.display()))
}

/// A program of this workspace (`driver`, `populator`), built beside the running test or demo.
pub fn product(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe().context("the path of the running program")?;
    running
        .ancestors()
        .skip(1)
        .take(2) // tests lie one folder deeper than programs
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("`{name}` is not built: run `cargo build --release` in the project's folder")
        })
}
