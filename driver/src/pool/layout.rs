//! Where things lie in a pool.

use std::path::{Path, PathBuf};

use crate::volume::VolumeId;

/// The paths of a pool: `volumes/<id>/{image,volume.json,staging.json}`.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A pool at this directory.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The pool's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of all volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The directory of one volume.
    pub fn folder(&self, id: &VolumeId) -> PathBuf {
        self.volumes().join(id.as_str())
    }

    /// A volume's data: the file system's image.
    pub fn image(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("image")
    }

    /// The end of [`Self::image`] that is the same in every mount namespace.
    pub fn image_tail(id: &VolumeId) -> PathBuf {
        Path::new(id.as_str()).join("image")
    }

    /// What is known of a volume. A volume exists exactly while this does.
    pub fn record(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("volume.json")
    }

    /// How a volume was staged last.
    pub fn staging(&self, id: &VolumeId) -> PathBuf {
        self.folder(id).join("staging.json")
    }
}
