//! How a volume is to be used, from CSI's `VolumeCapability`.

use csi::v1::VolumeCapability;
use csi::v1::volume_capability::AccessType;
use csi::v1::volume_capability::access_mode::Mode;
use rustix::mount::MountAttrFlags;

use super::FileSystem;
use crate::kernel::mounting::{MountOptions, OptionError};

/// A use that this driver offers: a mounted file system, on this one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The file system; `None` leaves it to what the volume has, or to the default.
    pub file_system: Option<FileSystem>,
    /// The mount options, parsed.
    pub options: MountOptions,
    /// The mount options as they came, to tell later whether others are asked for.
    pub flags: Vec<String>,
    /// Whether nobody may write.
    pub read_only: bool,
}

/// Why a use is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Neither block nor mount.
    #[error("the volume capability has no access type; set mount")]
    NoAccessType,
    /// Raw block.
    #[error("raw block volumes are not offered; use volumeMode: Filesystem")]
    Block,
    /// A file system that is not offered.
    #[error("the file system {0:?} is not offered; use ext4 or xfs")]
    FileSystem(String),
    /// No access mode, or one of a later CSI version.
    #[error("the volume capability has no access mode that this driver knows ({0})")]
    UnknownMode(i32),
    /// A mode for several nodes, or one that is not announced.
    #[error("the access mode {0} is not offered: a volume lives on one node; use ReadWriteOnce")]
    Mode(&'static str),
    /// Needs VOLUME_MOUNT_GROUP, which is not announced.
    #[error("volume_mount_group is not offered; the fsGroup of a pod works without it")]
    MountGroup,
    /// A mount option.
    #[error(transparent)]
    Option(#[from] OptionError),
}

impl Capability {
    /// Reads a capability.
    pub fn parse(capability: &VolumeCapability) -> Result<Self, CapabilityError> {
        let mount = match &capability.access_type {
            None => return Err(CapabilityError::NoAccessType),
            Some(AccessType::Block(_)) => return Err(CapabilityError::Block),
            Some(AccessType::Mount(mount)) => mount,
        };
        let file_system = match mount.fs_type.as_str() {
            "" => None,
            "ext4" => Some(FileSystem::Ext4),
            "xfs" => Some(FileSystem::Xfs),
            other => return Err(CapabilityError::FileSystem(other.to_owned())),
        };
        if !mount.volume_mount_group.is_empty() {
            return Err(CapabilityError::MountGroup);
        }
        let mode = capability
            .access_mode
            .map(|mode| mode.mode)
            .unwrap_or_default();
        let options = MountOptions::parse(&mount.mount_flags)?;
        let read_only = is_read_only(mode)?
            || options
                .attributes
                .contains(MountAttrFlags::MOUNT_ATTR_RDONLY);
        Ok(Self {
            file_system,
            options,
            flags: mount.mount_flags.clone(),
            read_only,
        })
    }

    /// The file system of a new volume that is to be used in all these ways.
    pub fn common_file_system(all: &[Self]) -> Result<FileSystem, (FileSystem, FileSystem)> {
        let mut named = all.iter().filter_map(|capability| capability.file_system);
        let first = named.next().unwrap_or(FileSystem::Ext4);
        named
            .find(|other| *other != first)
            .map_or(Ok(first), |other| Err((first, other)))
    }

    /// Whether a volume with this file system can be used so.
    pub fn suits(&self, file_system: FileSystem) -> bool {
        self.file_system.is_none_or(|wanted| wanted == file_system)
    }
}

fn is_read_only(mode: i32) -> Result<bool, CapabilityError> {
    match Mode::try_from(mode) {
        Ok(Mode::SingleNodeWriter) => Ok(false),
        Ok(Mode::SingleNodeReaderOnly) => Ok(true),
        Ok(
            mode @ (Mode::MultiNodeReaderOnly
            | Mode::MultiNodeSingleWriter
            | Mode::MultiNodeMultiWriter
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter),
        ) => Err(CapabilityError::Mode(mode.as_str_name())),
        Ok(Mode::Unknown) | Err(_) => Err(CapabilityError::UnknownMode(mode)),
    }
}

#[cfg(test)]
mod tests {
    use csi::v1::volume_capability::{AccessMode, BlockVolume, MountVolume};

    use super::*;

    fn mount(fs_type: &str, mode: Mode, flags: &[&str]) -> VolumeCapability {
        let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mount = MountVolume {
            fs_type: fs_type.into(),
            mount_flags,
            ..Default::default()
        };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(mount)),
        }
    }

    #[test]
    fn file_systems_on_one_node_are_offered() {
        let writer = Capability::parse(&mount("", Mode::SingleNodeWriter, &["noatime"])).unwrap();
        assert!(!writer.read_only);
        assert_eq!(writer.flags, ["noatime"]);
        assert!(writer.suits(FileSystem::Ext4) && writer.suits(FileSystem::Xfs));
        let xfs = Capability::parse(&mount("xfs", Mode::SingleNodeReaderOnly, &[])).unwrap();
        assert!(xfs.read_only && xfs.suits(FileSystem::Xfs) && !xfs.suits(FileSystem::Ext4));
        let option = Capability::parse(&mount("xfs", Mode::SingleNodeWriter, &["ro"])).unwrap();
        assert!(option.read_only);
    }

    #[test]
    fn the_rest_is_refused_in_words() {
        let parse = |capability| Capability::parse(&capability).unwrap_err();
        for mode in [
            Mode::MultiNodeReaderOnly,
            Mode::MultiNodeSingleWriter,
            Mode::MultiNodeMultiWriter,
            Mode::SingleNodeSingleWriter,
            Mode::SingleNodeMultiWriter,
        ] {
            let error = parse(mount("", mode, &[]));
            assert_eq!(error, CapabilityError::Mode(mode.as_str_name()));
        }
        assert_eq!(
            parse(mount("", Mode::Unknown, &[])),
            CapabilityError::UnknownMode(0)
        );
        let btrfs = parse(mount("btrfs", Mode::SingleNodeWriter, &[]));
        assert_eq!(btrfs, CapabilityError::FileSystem("btrfs".into()));
        let mut block = mount("", Mode::SingleNodeWriter, &[]);
        block.access_type = Some(AccessType::Block(BlockVolume {}));
        assert_eq!(parse(block.clone()), CapabilityError::Block);
        block.access_type = None;
        assert_eq!(parse(block), CapabilityError::NoAccessType);
        let option = parse(mount("", Mode::SingleNodeWriter, &["bind"]));
        assert!(matches!(option, CapabilityError::Option(_)));
    }

    #[test]
    fn all_uses_of_a_volume_share_one_file_system() {
        let of = |names: &[&str]| {
            let parsed = names
                .iter()
                .map(|name| Capability::parse(&mount(name, Mode::SingleNodeWriter, &[])).unwrap());
            Capability::common_file_system(&parsed.collect::<Vec<_>>())
        };
        assert_eq!(of(&[""]), Ok(FileSystem::Ext4));
        assert_eq!(of(&["", "xfs"]), Ok(FileSystem::Xfs));
        assert_eq!(
            of(&["xfs", "ext4"]),
            Err((FileSystem::Xfs, FileSystem::Ext4))
        );
    }
}
