//! How a volume is to be used, from CSI's `VolumeCapability`.

use csi::v1::VolumeCapability;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessType, MountVolume};
use rustix::mount::MountAttrFlags;

use super::{Content, FileSystem};
use crate::kernel::mounting::{MountOptions, OptionError};

/// A use that this driver offers: on this one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// What users see of the volume.
    pub access: Access,
    /// Whether the volume may be shown at several targets at once.
    pub shared: bool,
    /// Whether nobody may write.
    pub read_only: bool,
}

/// What users see of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The device itself.
    Block,
    /// A mounted file system.
    Mount {
        /// Which; `None` leaves it to what the volume has, or to the default.
        file_system: Option<FileSystem>,
        /// The mount options, parsed.
        options: MountOptions,
        /// The mount options as they came, to tell later whether others are asked for.
        flags: Vec<String>,
    },
}

/// Why a use is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Neither block nor mount.
    #[error("the volume capability has no access type; set block or mount")]
    NoAccessType,
    /// A file system that is not offered.
    #[error("the file system {0:?} is not offered; use ext4 or xfs")]
    FileSystem(String),
    /// No access mode, or one of a later CSI version.
    #[error("the volume capability has no access mode that this driver knows ({0})")]
    UnknownMode(i32),
    /// A mode for several nodes.
    #[error("the access mode {0} is not offered: a volume lives on one node; use ReadWriteOnce")]
    Mode(&'static str),
    /// Needs VOLUME_MOUNT_GROUP, which is not announced.
    #[error("volume_mount_group is not offered; the fsGroup of a pod works without it")]
    MountGroup,
    /// A mount option.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// Why no volume can be used in all the ways that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommonError {
    /// Two file systems.
    #[error("a volume has one file system; {first} and {second} were asked for", first = .0.name(), second = .1.name())]
    TwoFileSystems(FileSystem, FileSystem),
    /// Block and mount.
    #[error("a volume is a block device or has a file system; both were asked for")]
    BlockAndMount,
}

impl Capability {
    /// Reads a capability.
    pub fn parse(capability: &VolumeCapability) -> Result<Self, CapabilityError> {
        let access = match &capability.access_type {
            None => return Err(CapabilityError::NoAccessType),
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => Access::parse(mount)?,
        };
        let mode = capability
            .access_mode
            .map(|mode| mode.mode)
            .unwrap_or_default();
        let (shared, reader) = sharing(mode)?;
        let read_only = reader || access.is_read_only();
        Ok(Self {
            access,
            shared,
            read_only,
        })
    }

    /// What a new volume has to have for all these uses. `default` is the file system that the
    /// StorageClass names, if it does.
    pub fn common(all: &[Self], default: Option<FileSystem>) -> Result<Content, CommonError> {
        let blocks = all
            .iter()
            .filter(|capability| capability.access == Access::Block);
        match blocks.count() {
            0 => {}
            // A class with fsType may serve block volumes too; nothing is mounted there.
            count if count == all.len() => return Ok(Content::Block),
            _ => return Err(CommonError::BlockAndMount),
        }
        let mut named = all
            .iter()
            .filter_map(|capability| match capability.access {
                Access::Mount { file_system, .. } => file_system,
                Access::Block => None,
            })
            .chain(default);
        let Some(first) = named.next() else {
            return Ok(Content::Mount(None));
        };
        match named.find(|other| *other != first) {
            Some(other) => Err(CommonError::TwoFileSystems(first, other)),
            None => Ok(Content::Mount(Some(first))),
        }
    }

    /// Whether a volume with this file system, or with none, can be used so.
    pub fn suits(&self, found: Option<FileSystem>) -> bool {
        match (&self.access, found) {
            (Access::Block, None) => true,
            (Access::Mount { file_system, .. }, Some(found)) => {
                file_system.is_none_or(|wanted| wanted == found)
            }
            (Access::Block, Some(_)) | (Access::Mount { .. }, None) => false,
        }
    }

    /// The mount options as they came; none for a block device.
    pub fn flags(&self) -> &[String] {
        match &self.access {
            Access::Block => &[],
            Access::Mount { flags, .. } => flags,
        }
    }
}

impl Access {
    fn parse(mount: &MountVolume) -> Result<Self, CapabilityError> {
        let file_system = match mount.fs_type.as_str() {
            "" => None,
            name => Some(
                FileSystem::named(name)
                    .ok_or_else(|| CapabilityError::FileSystem(name.chars().take(64).collect()))?,
            ),
        };
        if !mount.volume_mount_group.is_empty() {
            return Err(CapabilityError::MountGroup);
        }
        Ok(Self::Mount {
            file_system,
            options: MountOptions::parse(&mount.mount_flags)?,
            flags: mount.mount_flags.clone(),
        })
    }

    fn is_read_only(&self) -> bool {
        match self {
            Self::Block => false,
            Self::Mount { options, .. } => options
                .attributes
                .contains(MountAttrFlags::MOUNT_ATTR_RDONLY),
        }
    }
}

/// Whether a mode lets several targets show the volume, and whether it is for reading only.
///
/// Kubelet asks for `SINGLE_NODE_MULTI_WRITER` for ReadWriteOnce, and for
/// `SINGLE_NODE_SINGLE_WRITER` for ReadWriteOncePod, from a driver that announces the former.
fn sharing(mode: i32) -> Result<(bool, bool), CapabilityError> {
    match Mode::try_from(mode) {
        Ok(Mode::SingleNodeWriter | Mode::SingleNodeSingleWriter) => Ok((false, false)),
        Ok(Mode::SingleNodeMultiWriter) => Ok((true, false)),
        Ok(Mode::SingleNodeReaderOnly) => Ok((false, true)),
        Ok(
            mode @ (Mode::MultiNodeReaderOnly
            | Mode::MultiNodeSingleWriter
            | Mode::MultiNodeMultiWriter),
        ) => Err(CapabilityError::Mode(mode.as_str_name())),
        Ok(Mode::Unknown) | Err(_) => Err(CapabilityError::UnknownMode(mode)),
    }
}

#[cfg(test)]
mod tests {
    use csi::v1::volume_capability::{AccessMode, BlockVolume};

    use super::*;

    fn mount(fs_type: &str, mode: Mode, flags: &[&str]) -> VolumeCapability {
        let mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mount = MountVolume {
            fs_type: fs_type.into(),
            mount_flags,
            ..Default::default()
        };
        with(AccessType::Mount(mount), mode)
    }

    fn with(access: AccessType, mode: Mode) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access),
        }
    }

    #[test]
    fn file_systems_and_devices_on_one_node_are_offered() {
        let writer = Capability::parse(&mount("", Mode::SingleNodeWriter, &["noatime"])).unwrap();
        assert!(!writer.read_only && !writer.shared);
        assert_eq!(writer.flags(), ["noatime"]);
        assert!(writer.suits(Some(FileSystem::Ext4)) && writer.suits(Some(FileSystem::Xfs)));
        assert!(!writer.suits(None));
        let xfs = Capability::parse(&mount("xfs", Mode::SingleNodeReaderOnly, &[])).unwrap();
        assert!(xfs.read_only && xfs.suits(Some(FileSystem::Xfs)));
        assert!(!xfs.suits(Some(FileSystem::Ext4)));
        let option =
            Capability::parse(&mount("xfs", Mode::SingleNodeMultiWriter, &["ro"])).unwrap();
        assert!(option.read_only && option.shared);
        let block = with(
            AccessType::Block(BlockVolume {}),
            Mode::SingleNodeSingleWriter,
        );
        let block = Capability::parse(&block).unwrap();
        assert!(block.suits(None) && !block.suits(Some(FileSystem::Ext4)) && !block.shared);
    }

    #[test]
    fn the_rest_is_refused_in_words() {
        let parse = |capability| Capability::parse(&capability).unwrap_err();
        for mode in [
            Mode::MultiNodeReaderOnly,
            Mode::MultiNodeSingleWriter,
            Mode::MultiNodeMultiWriter,
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
        let mut nothing = mount("", Mode::SingleNodeWriter, &[]);
        nothing.access_type = None;
        assert_eq!(parse(nothing), CapabilityError::NoAccessType);
        let option = parse(mount("", Mode::SingleNodeWriter, &["bind"]));
        assert!(matches!(option, CapabilityError::Option(_)));
    }

    #[test]
    fn all_uses_of_a_volume_have_one_thing_in_common() {
        let of = |names: &[&str], default| {
            let parsed = names.iter().map(|name| match *name {
                "block" => with(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter),
                name => mount(name, Mode::SingleNodeWriter, &[]),
            });
            let parsed = parsed.map(|capability| Capability::parse(&capability).unwrap());
            Capability::common(&parsed.collect::<Vec<_>>(), default)
        };
        let xfs = Content::Mount(Some(FileSystem::Xfs));
        assert_eq!(of(&[""], None), Ok(Content::Mount(None)));
        assert_eq!(of(&[""], Some(FileSystem::Xfs)), Ok(xfs));
        assert_eq!(of(&["", "xfs"], None), Ok(xfs));
        assert_eq!(of(&["block"], Some(FileSystem::Xfs)), Ok(Content::Block));
        assert_eq!(
            of(&["xfs", "ext4"], None),
            Err(CommonError::TwoFileSystems(
                FileSystem::Xfs,
                FileSystem::Ext4
            ))
        );
        assert!(of(&["ext4"], Some(FileSystem::Xfs)).is_err());
        assert_eq!(of(&["block", ""], None), Err(CommonError::BlockAndMount));
    }
}
