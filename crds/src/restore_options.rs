//! How an archive is restored: what people choose in a VolumeBackup, and what an order passes on.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The highest number of a user or group; the one above it means "no change" to chown(2).
const ID_MAX: i64 = u32::MAX as i64 - 1;

/// How an archive is restored. Everything may be left out: then all of it is, with the owners that it
/// has, and whatever the volume's file system does not take is told.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreOptions {
    /// What the stored object must be. One that is not is never restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,

    /// How far the data must be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_verified: Option<RequireVerified>,

    /// Only what one of these globs matches is restored, for example `data/**/*.db`: whole names from the
    /// archive's root, where `*` matches no `/` and `**` does. One that matches a directory stands
    /// for all that is beneath it. Default: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub include: Vec<String>,

    /// What one of these globs matches is left out, whatever is included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub exclude: Vec<String>,

    /// So many leading parts are taken off each name, after `subPath`. Entries that have no more are
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub strip_components: Option<i64>,

    /// Only what is beneath this directory of the archive is restored, as if it were its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("!self.matches('(^|/)[.][.](/|$)')")
            .message("subPath must be a directory of the archive, without .. in it, for example var/lib/data"),
    )]
    #[schemars(length(min = 1, max = 4096))]
    pub sub_path: Option<String>,

    /// The archive is the image of a disk, and becomes the one file of this name in the volume, of volumeMode
    /// Filesystem, with mode 0660: `disk.img`, where virtual machines on KubeVirt look for it. It is root's, or
    /// whose `ownership.all` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self.matches('^[0-9A-Za-z][0-9A-Za-z._-]*$')")
            .message("imageFile must be the name of a file, of letters, digits, dots, dashes and underscores, for example disk.img"),
    )]
    #[schemars(length(min = 1, max = 255))]
    pub image_file: Option<String>,

    /// Who owns what is restored. Default: whose number the archive has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,

    /// What to do about metadata that cannot be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_policy: Option<MetadataPolicy>,

    /// The most that the archive may have, where it comes from strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,

    /// When the restore is given up, where time could still cure what it fails for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

impl RestoreOptions {
    /// Whether only a part of the archive is wanted.
    pub fn is_partial(&self) -> bool {
        !self.include.is_empty()
            || !self.exclude.is_empty()
            || self.sub_path.is_some()
            || self.strip_components.is_some_and(|parts| parts > 0)
    }

    /// The first field that says something about files, which the image of a disk does not have.
    pub fn about_files(&self) -> Option<&'static str> {
        let given = [
            (!self.include.is_empty(), "include"),
            (!self.exclude.is_empty(), "exclude"),
            (self.strip_components.is_some(), "stripComponents"),
            (self.sub_path.is_some(), "subPath"),
            (self.ownership.is_some(), "ownership"),
            (self.metadata_policy.is_some(), "metadataPolicy"),
        ];
        given.iter().find(|(is, _)| *is).map(|(_, field)| *field)
    }
}

/// What the stored object must be.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Checksum {
    /// Its SHA-256 in hexadecimal, as sha256sum(1) prints it.
    #[x_kube(
        validation = Rule::new("self.matches('^[0-9a-fA-F]{64}$')")
            .message("checksum.sha256 must be 64 hexadecimal digits, as sha256sum prints them"),
    )]
    #[schemars(length(max = 64))]
    pub sha256: String,
}

/// How far the data must be verified at least; a restore that cannot do so fails. `Stream`: by the format's
/// own checksums. `PerFile`: by the digests in an archive that `populator pack` made. `Sha256`: by `checksum.sha256`. Default: `None`.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum RequireVerified {
    /// Not at all.
    None,
    /// By the format's own checksums.
    Stream,
    /// By the digests in an archive that `populator pack` made.
    PerFile,
    /// By `checksum.sha256`.
    Sha256,
}

/// What to do where the volume's file system does not take something, such as an attribute. `Warn` (the
/// default) tells it in the VolumeRestore, `Strict` fails the restore.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum MetadataPolicy {
    /// Tell it.
    Warn,
    /// Fail.
    Strict,
}

/// Who owns what is restored. Exactly one of the fields is given; ACLs follow `map` and `all`.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("[has(self.names), has(self.map), has(self.all)].filter(given, given).size() == 1")
        .message("ownership must have exactly one of names, map and all; leave ownership out to keep the archive's numbers"),
)]
pub struct Ownership {
    /// By the names in the archive, as these tables have them. A name that is in none keeps its number,
    /// which is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Names>,

    /// Other numbers in place of some of the archive's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,

    /// One user and one group for everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Owner>,
}

/// Who has which name.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Names {
    /// Users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub users: Vec<Name>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub groups: Vec<Name>,
}

/// A user's or group's name and number.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Name {
    /// The name in the archive.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The number in the volume.
    #[schemars(range(min = 0, max = ID_MAX))]
    pub id: i64,
}

/// Which numbers take the place of which; all others stay.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Map {
    /// Users: `FROM:TO`, or `FIRST-LAST:TO` for a range that moves as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(
        validation = Rule::new("self.all(rule, rule.matches('^[0-9]{1,10}(-[0-9]{1,10})?:[0-9]{1,10}$'))")
            .message("ownership.map.users must have FROM:TO or FIRST-LAST:TO, for example 1000-1999:5000"),
    )]
    #[schemars(length(max = 64), inner(length(max = 32)))]
    pub users: Vec<String>,
    /// Groups, in the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(
        validation = Rule::new("self.all(rule, rule.matches('^[0-9]{1,10}(-[0-9]{1,10})?:[0-9]{1,10}$'))")
            .message("ownership.map.groups must have FROM:TO or FIRST-LAST:TO, for example 1000-1999:5000"),
    )]
    #[schemars(length(max = 64), inner(length(max = 32)))]
    pub groups: Vec<String>,
}

/// A user and a group.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    #[schemars(range(min = 0, max = ID_MAX))]
    pub uid: i64,
    /// The group's number.
    #[schemars(range(min = 0, max = ID_MAX))]
    pub gid: i64,
}

/// When a restore is given up. What is over can be asked for again, by a change of the VolumeBackup or the
/// PVC's annotation `backup.example.com/retry`. All of it counts anew on another node, where the first has no
/// room or is gone.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts at filling the volume, the first one included. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempts: Option<i64>,
    /// Seconds in which it must be complete, from when a node has it, or from the end of a pause. Default:
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Bytes that may be fetched over all attempts, as a quantity, for example `300Gi`. Default: three times
    /// the archive and 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
            .message("retry.maxBytesFetched must be a quantity above 0, for example 300Gi"),
    )]
    #[schemars(length(max = 32))]
    pub max_bytes_fetched: Option<String>,
}

/// The most that an archive may have.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Limits {
    /// Entries of any kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub entries: Option<i64>,
    /// Bytes of the unpacked archive, as a quantity, for example `100Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
            .message("limits.unpacked must be a quantity above 0, for example 100Gi"),
    )]
    #[schemars(length(max = 32))]
    pub unpacked: Option<String>,
    /// Unpacked bytes for each stored one, from 16 MiB on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ratio: Option<i64>,
}
