//! What is mounted where, from `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::{Attempt as _, DeviceNumber, Failed};

/// One mount of this process's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// The device of its file system.
    pub device: DeviceNumber,
    /// What of its file system is seen there: `/` for all of it.
    pub root: PathBuf,
    /// The file system's type.
    pub file_system: String,
    /// Its own attributes, apart from the file system's.
    pub attributes: MountAttrFlags,
    /// Whether mounts beneath it show in other mount namespaces too.
    pub shared: bool,
    /// Whether the file system itself takes no writes, whichever of its mounts they come by: so
    /// it was mounted, or so it made itself when it met an error.
    pub file_system_read_only: bool,
    /// Whether the file system says that it was shut down. Not all do.
    pub shut_down: bool,
}

/// All mounts, in the order in which they were made.
#[derive(Debug, Default)]
pub struct MountTable(Vec<Mount>);

impl MountTable {
    /// The table of this moment.
    pub fn read() -> Result<Self, Failed> {
        let text = std::fs::read("/proc/self/mountinfo").attempt(|| "read the mount table")?;
        Ok(Self::parse(&text))
    }

    /// Lines of a form that no kernel writes are left out.
    fn parse(text: &[u8]) -> Self {
        Self(
            text.split(|byte| *byte == b'\n')
                .filter_map(parse_line)
                .collect(),
        )
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is mounted at just this path: the last, where several lie on one another.
    ///
    /// The path must be free of symbolic links, as the table is.
    pub fn at(&self, point: &Path) -> Option<&Mount> {
        self.0.iter().rfind(|mount| mount.point == point)
    }

    /// The mount that holds this path, which need not be a mount point.
    pub fn holding(&self, path: &Path) -> Option<&Mount> {
        path.ancestors().find_map(|ancestor| self.at(ancestor))
    }

    /// All mounts of file systems on this device.
    pub fn of(&self, device: DeviceNumber) -> impl Iterator<Item = &Mount> {
        self.0.iter().filter(move |mount| mount.device == device)
    }

    /// All mounts that show a device: its file system, or, as a file, its node.
    pub fn showing<'a>(
        &'a self,
        node: &'a Path,
        device: DeviceNumber,
    ) -> impl Iterator<Item = &'a Mount> {
        let shows = move |mount: &&Mount| {
            mount.device == device
                || (mount.root.file_name() == node.file_name() && is_node(&mount.point, device))
        };
        self.0.iter().filter(shows)
    }
}

/// Whether the file at a path is the node of this block device.
pub fn is_node(path: &Path, device: DeviceNumber) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| {
        metadata.file_type().is_block_device() && DeviceNumber::from_dev(metadata.rdev()) == device
    })
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let (_id, _parent, device, root, point) = (next()?, next()?, next()?, next()?, next()?);
    let options = std::str::from_utf8(next()?).ok()?;
    let optional: Vec<_> = fields.by_ref().take_while(|field| field != b"-").collect();
    let file_system = String::from_utf8_lossy(fields.next()?).into_owned();
    let says = |word: &[u8]| {
        let mut options = fields
            .clone()
            .skip(1)
            .flat_map(|it| it.split(|it| *it == b','));
        options.any(|option| option == word)
    };
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        device: DeviceNumber::parse(std::str::from_utf8(device).ok()?)?,
        root: PathBuf::from(OsString::from_vec(unescape(root))),
        file_system_read_only: says(b"ro") || says(b"emergency_ro"),
        shut_down: says(b"shutdown"),
        file_system,
        attributes: attributes(options),
        shared: optional.iter().any(|field| field.starts_with(b"shared:")),
    })
}

/// Space, tab, newline and backslash stand in the table as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = code {
            plain.push(byte);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

/// The table says `relatime` or `noatime`, and nothing for access times that are always kept.
fn attributes(options: &str) -> MountAttrFlags {
    let mut flags = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    for option in options.split(',') {
        match option {
            "relatime" => flags.remove(MountAttrFlags::MOUNT_ATTR__ATIME),
            "noatime" => {
                flags.remove(MountAttrFlags::MOUNT_ATTR__ATIME);
                flags.insert(MountAttrFlags::MOUNT_ATTR_NOATIME);
            }
            "ro" => flags.insert(MountAttrFlags::MOUNT_ATTR_RDONLY),
            "nosuid" => flags.insert(MountAttrFlags::MOUNT_ATTR_NOSUID),
            "nodev" => flags.insert(MountAttrFlags::MOUNT_ATTR_NODEV),
            "noexec" => flags.insert(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            "nodiratime" => flags.insert(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            "nosymfollow" => flags.insert(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
            // `rw`, and what later kernels may add.
            _ => {}
        }
    }
    flags
}

/// The path with all symbolic links resolved, its last part excepted, as the table has it. The
/// last part need not exist.
pub fn resolved(path: &Path) -> Result<PathBuf, Failed> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    let parent = parent
        .canonicalize()
        .attempt(|| format!("find {}", parent.display()))?;
    Ok(parent.join(name))
}

/// As [`resolved`]; `None` when not even its directory is there.
pub fn existing(path: &Path) -> Result<Option<PathBuf>, Failed> {
    match resolved(path) {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 22 7:3 / /var/lib/a\\040b rw,nosuid,noatime shared:5 master:2 - xfs /dev/loop3 rw,nouuid
41 22 7:4 / /mnt rw - ext4 /dev/loop4 rw
42 41 7:5 / /mnt ro,nodev,relatime - ext4 /dev/loop5 ro
43 22 7:6 / /srv/a rw,relatime - ext4 /dev/loop6 rw,shutdown,emergency_ro
rubbish
";

    #[test]
    fn lines_are_read_with_escapes_optional_fields_and_attributes() {
        let table = MountTable::parse(TABLE);
        assert_eq!(table.0.len(), 5);
        let mount = table.at(Path::new("/var/lib/a b")).unwrap();
        assert_eq!(mount.device, DeviceNumber { major: 7, minor: 3 });
        assert_eq!(mount.file_system, "xfs");
        let noatime = MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NOSUID;
        assert_eq!(mount.attributes, noatime);
        assert!(mount.shared);
    }

    #[test]
    fn the_last_of_several_mounts_is_the_one_that_is_seen() {
        let table = MountTable::parse(TABLE);
        let top = table.at(Path::new("/mnt")).unwrap();
        assert_eq!(top.device.minor, 5);
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
        assert_eq!(top.attributes, read_only);
        assert!(!top.shared);
        assert!(top.file_system_read_only && !top.shut_down);
        let stopped = table.at(Path::new("/srv/a")).unwrap();
        assert!(stopped.file_system_read_only && stopped.shut_down);
        assert!(!table.at(Path::new("/")).unwrap().file_system_read_only);
        assert_eq!(table.of(DeviceNumber { major: 7, minor: 4 }).count(), 1);
        assert_eq!(table.at(Path::new("/mnt/x")), None);
        assert_eq!(
            table.holding(Path::new("/mnt/x/y")).unwrap().device.minor,
            5
        );
        assert_eq!(
            table.holding(Path::new("/srv")).unwrap().point,
            Path::new("/")
        );
    }

    #[test]
    fn access_times_that_are_always_kept_are_said_by_silence() {
        assert_eq!(attributes("rw"), MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        assert_eq!(attributes("rw,relatime"), MountAttrFlags::empty());
    }
}
