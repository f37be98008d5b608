//! csi-driver-host-path, the driver of others that the machine may have: no module proxy offers its
//! program, nor that of node-driver-registrar, so environment variables name them.

use std::path::PathBuf;

use anyhow::Result;

use crate::image::Image;

/// The environment variable that names the driver's program.
pub const PLUGIN: &str = "HOSTPATH_PLUGIN";

/// The environment variable that names node-driver-registrar's program.
const REGISTRAR: &str = "CSI_NODE_DRIVER_REGISTRAR";

/// What it runs itself. Of some of them busybox has a form that lacks the options.
const RUNS: [&str; 7] = ["cp", "dd", "fallocate", "losetup", "mount", "tar", "umount"];

/// The programs of its pods that are not built here.
#[derive(Clone, Debug)]
pub struct HostPath {
    plugin: PathBuf,
    /// What tells kubelet of it.
    pub registrar: PathBuf,
}

impl HostPath {
    /// It, if both programs are named.
    pub fn found() -> Option<Self> {
        Some(Self {
            plugin: std::env::var_os(PLUGIN)?.into(),
            registrar: std::env::var_os(REGISTRAR)?.into(),
        })
    }

    /// The image of the driver itself.
    pub fn plugin_image(&self, name: &str) -> Result<Image> {
        Image::program_with(name, &self.plugin, &RUNS)
    }
}
