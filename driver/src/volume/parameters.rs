//! Parameters as people write them in a StorageClass, a VolumeSnapshotClass and a
//! VolumeAttributesClass, parsed once into types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FileSystem;
use super::mkfs_options::{MkfsOptionError, MkfsOptions};

/// What external-provisioner adds with `--extra-create-metadata`, and the file system, which it
/// takes out of CreateVolume's parameters but leaves in GetCapacity's (there it stands in the
/// capability). Taken, and of no effect.
const PROVISIONER: [&str; 4] = [
    "csi.storage.k8s.io/fstype",
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name",
];

/// What external-snapshotter adds with `--extra-create-metadata`, and a field of the class itself
/// that Kubernetes' end-to-end suite writes among the parameters as well.
const SNAPSHOTTER: [&str; 7] = [
    "csi.storage.k8s.io/volumesnapshot/name",
    "csi.storage.k8s.io/volumesnapshot/namespace",
    "csi.storage.k8s.io/volumesnapshotcontent/name",
    "csi.storage.k8s.io/volumegroupsnapshot/name",
    "csi.storage.k8s.io/volumegroupsnapshot/namespace",
    "csi.storage.k8s.io/volumegroupsnapshotcontent/name",
    "deletionPolicy",
];

const FILE_SYSTEM: &str = "fsType";
const PROVISIONING: &str = "provisioning";
const MKFS_OPTIONS: &str = "mkfsOptions";
const FREEZE: &str = "freeze";
const READ_AHEAD: &str = "readAheadKiB";
const RESERVED: &str = "reservedPercent";

/// The most that can be read ahead, in KiB.
const MOST_READ_AHEAD: u32 = 65_536;

/// The most of an ext4 volume that can be kept for root, in hundredths: what tune2fs takes.
const MOST_RESERVED: u32 = 50;

/// Why parameters are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A parameter that means nothing here. Passing over it would hide a typing mistake.
    #[error("the parameter {key:?} is unknown; {of} has {}", .known.join(", "))]
    Unknown {
        /// The parameter.
        key: String,
        /// Where it stands.
        of: &'static str,
        /// What may stand there.
        known: Vec<&'static str>,
    },
    /// A value that is none.
    #[error("the parameter {key} is {value:?}; {expected}")]
    Value {
        /// The parameter.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// Two parameters that contradict each other.
    #[error("the parameters fsType and csi.storage.k8s.io/fstype name two file systems; keep one")]
    TwoFileSystems,
    /// An option of mkfs.
    #[error(transparent)]
    Mkfs(#[from] MkfsOptionError),
}

/// How a volume's blocks are laid out. Its space is promised either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provisioning {
    /// Blocks are taken from the pool when they are first written.
    #[default]
    Thin,
    /// All blocks are taken at once, in as few extents as the pool has.
    Thick,
}

/// The parameters of a StorageClass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeParameters {
    /// The file system; `None` leaves it to the capability.
    pub file_system: Option<FileSystem>,
    /// The layout of the blocks.
    pub provisioning: Provisioning,
    /// Further options for mkfs.
    pub mkfs_options: MkfsOptions,
}

/// The parameters of a VolumeSnapshotClass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotParameters {
    /// Whether a mounted file system is frozen while it is cloned. Without, a snapshot is as a
    /// power cut would leave the volume.
    pub freeze: bool,
}

/// The parameters of a VolumeAttributesClass, which may change while a volume is in use. `None`
/// leaves a setting as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// How much the kernel reads ahead of sequential readers, in KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ahead_kib: Option<u32>,
    /// How much of an ext4 volume only root can fill, in hundredths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_percent: Option<u32>,
}

impl VolumeParameters {
    /// Reads the parameters of a StorageClass.
    pub fn parse(parameters: &BTreeMap<String, String>) -> Result<Self, ParameterError> {
        let mut parsed = Self::default();
        for (key, value) in parameters {
            match key.as_str() {
                FILE_SYSTEM => parsed.file_system = Some(file_system(value)?),
                PROVISIONING => {
                    parsed.provisioning = match value.as_str() {
                        "thin" => Provisioning::Thin,
                        "thick" => Provisioning::Thick,
                        _ => return Err(unusual(PROVISIONING, value, "use thin or thick")),
                    }
                }
                MKFS_OPTIONS => parsed.mkfs_options = MkfsOptions::parse(value)?,
                key if PROVISIONER.contains(&key) => {}
                _ => {
                    let own = [FILE_SYSTEM, PROVISIONING, MKFS_OPTIONS];
                    return Err(unknown(key, "a StorageClass", &own, &PROVISIONER));
                }
            }
        }
        let other = parameters
            .get(PROVISIONER[0])
            .filter(|name| !name.is_empty());
        match (parsed.file_system, other) {
            (Some(own), Some(other)) if own.name() != other => Err(ParameterError::TwoFileSystems),
            _ => Ok(parsed),
        }
    }
}

impl SnapshotParameters {
    /// Reads the parameters of a VolumeSnapshotClass or VolumeGroupSnapshotClass.
    pub fn parse(parameters: &BTreeMap<String, String>) -> Result<Self, ParameterError> {
        let mut freeze = true;
        for (key, value) in parameters {
            match key.as_str() {
                FREEZE => {
                    freeze = match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err(unusual(FREEZE, value, "use true or false")),
                    }
                }
                key if SNAPSHOTTER.contains(&key) => {}
                _ => {
                    let of = "a VolumeSnapshotClass";
                    return Err(unknown(key, of, &[FREEZE], &SNAPSHOTTER));
                }
            }
        }
        Ok(Self { freeze })
    }
}

impl Attributes {
    /// Reads the parameters of a VolumeAttributesClass.
    pub fn parse(parameters: &BTreeMap<String, String>) -> Result<Self, ParameterError> {
        let mut parsed = Self::default();
        for (key, value) in parameters {
            match key.as_str() {
                READ_AHEAD => {
                    parsed.read_ahead_kib = Some(number(READ_AHEAD, value, MOST_READ_AHEAD)?);
                }
                RESERVED => parsed.reserved_percent = Some(number(RESERVED, value, MOST_RESERVED)?),
                _ => {
                    let of = "a VolumeAttributesClass";
                    return Err(unknown(key, of, &[READ_AHEAD, RESERVED], &[]));
                }
            }
        }
        Ok(parsed)
    }

    /// These, with `changes` over them.
    #[must_use]
    pub fn changed(self, changes: Self) -> Self {
        Self {
            read_ahead_kib: changes.read_ahead_kib.or(self.read_ahead_kib),
            reserved_percent: changes.reserved_percent.or(self.reserved_percent),
        }
    }
}

fn file_system(value: &str) -> Result<FileSystem, ParameterError> {
    FileSystem::named(value).ok_or_else(|| unusual(FILE_SYSTEM, value, "use ext4 or xfs"))
}

fn number(key: &'static str, value: &str, most: u32) -> Result<u32, ParameterError> {
    let parsed = value.parse().ok().filter(|number| *number <= most);
    parsed.ok_or_else(|| unusual(key, value, &format!("use a whole number from 0 to {most}")))
}

fn unusual(key: &'static str, value: &str, expected: &str) -> ParameterError {
    ParameterError::Value {
        key,
        value: value.to_owned(),
        expected: expected.to_owned(),
    }
}

fn unknown(
    key: &str,
    of: &'static str,
    own: &[&'static str],
    added: &[&'static str],
) -> ParameterError {
    ParameterError::Unknown {
        key: key.to_owned(),
        of,
        known: own.iter().chain(added).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn a_storage_class_is_parsed_and_metadata_is_taken() {
        let mut parameters = BTreeMap::from(PROVISIONER.map(|key| (key.to_owned(), "xfs".into())));
        assert_eq!(
            VolumeParameters::parse(&parameters),
            Ok(VolumeParameters::default())
        );
        parameters.insert("fsType".into(), "xfs".into());
        parameters.insert("provisioning".into(), "thick".into());
        let parsed = VolumeParameters::parse(&parameters).unwrap();
        assert_eq!(parsed.file_system, Some(FileSystem::Xfs));
        assert_eq!(parsed.provisioning, Provisioning::Thick);
        parameters.insert("fsType".into(), "ext4".into());
        assert_eq!(
            VolumeParameters::parse(&parameters),
            Err(ParameterError::TwoFileSystems)
        );
    }

    #[test]
    fn the_unknown_is_named_with_all_that_is_known() {
        let error = VolumeParameters::parse(&map(&[("fsTyp", "xfs")])).unwrap_err();
        for words in [
            "\"fsTyp\"",
            "fsType",
            "provisioning",
            "mkfsOptions",
            "pvc/name",
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(VolumeParameters::parse(&map(&[("provisioning", "thik")])).is_err());
        assert!(VolumeParameters::parse(&map(&[("fsType", "ntfs")])).is_err());
        assert!(SnapshotParameters::parse(&map(&[("freeze", "yes")])).is_err());
        assert!(SnapshotParameters::parse(&map(&[("x", "")])).is_err());
        let error = Attributes::parse(&map(&[("XXX_FakeKey", "1")])).unwrap_err();
        assert!(error.to_string().contains("readAheadKiB"), "{error}");
    }

    #[test]
    fn snapshots_freeze_unless_told_not_to() {
        let metadata = map(&[
            ("csi.storage.k8s.io/volumesnapshot/name", "x"),
            ("deletionPolicy", "Delete"),
        ]);
        assert!(SnapshotParameters::parse(&metadata).unwrap().freeze);
        let parsed = SnapshotParameters::parse(&map(&[("freeze", "false")])).unwrap();
        assert!(!parsed.freeze);
    }

    #[test]
    fn attributes_have_bounds_and_change_one_by_one() {
        let parsed = Attributes::parse(&map(&[("readAheadKiB", "4096")])).unwrap();
        assert_eq!(parsed.read_ahead_kib, Some(4096));
        let changed = parsed.changed(Attributes::parse(&map(&[("reservedPercent", "5")])).unwrap());
        assert_eq!(
            (changed.read_ahead_kib, changed.reserved_percent),
            (Some(4096), Some(5))
        );
        for (key, value) in [
            ("readAheadKiB", "65537"),
            ("readAheadKiB", "-1"),
            ("readAheadKiB", ""),
            ("reservedPercent", "51"),
            ("reservedPercent", "5%"),
        ] {
            assert!(
                Attributes::parse(&map(&[(key, value)])).is_err(),
                "{key}={value}"
            );
        }
    }
}
