//! Mount options as users write them in a StorageClass or a PersistentVolume.

use rustix::mount::MountAttrFlags;

/// Options that name further devices or files, which a volume's user must not choose.
const FOREIGN: [&str; 6] = [
    "journal_path",
    "journal_dev",
    "logdev",
    "rtdev",
    "source",
    "usrjquota",
];

/// Options that are for mount(8), or that change what is mounted altogether.
const NOT_FOR_VOLUMES: [&str; 9] = [
    "bind",
    "rbind",
    "remount",
    "move",
    "loop",
    "offset",
    "sizelimit",
    "subdir",
    "X-mount.subdir",
];

/// Bytes of all options together.
const TOTAL_MAX: usize = 4096;

/// Mount options, split by who reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Those of the mount itself.
    pub attributes: MountAttrFlags,
    /// Those of the file system: a key, and mostly no value.
    pub file_system: Vec<(String, Option<String>)>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            attributes: MountAttrFlags::empty(),
            file_system: Vec::new(),
        }
    }
}

/// Why a mount option is not taken. Names its key only: a value may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not letters, digits and a few signs.
    #[error("the mount option {0:?} has characters that no mount option has")]
    Characters(String),
    /// Not for a volume's user to choose.
    #[error("the mount option {0:?} is not allowed for volumes; remove it")]
    Forbidden(String),
    /// Too many of them.
    #[error("the mount options have {0} bytes together, and 4096 are taken; leave some out")]
    TooLong(usize),
}

impl MountOptions {
    /// Parses options one by one; each may be several with commas between. All together have no more
    /// than 4 KiB (CSI specification, `MountVolume.mount_flags`).
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, OptionError> {
        let total = options.iter().map(|option| option.as_ref().len()).sum();
        if total > TOTAL_MAX {
            return Err(OptionError::TooLong(total));
        }
        let mut parsed = Self::default();
        for option in options.iter().flat_map(|option| option.as_ref().split(',')) {
            if !option.is_empty() {
                parsed.add(option)?;
            }
        }
        Ok(parsed)
    }

    /// The later of two contrary options wins, as with mount(8).
    fn add(&mut self, option: &str) -> Result<(), OptionError> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-=.:/+@".contains(c);
        if !option.chars().all(plain) || option.starts_with(['=', '-']) {
            return Err(OptionError::Characters(key.to_owned()));
        }
        let attributes = &mut self.attributes;
        let mut atime = |wanted| {
            attributes.remove(MountAttrFlags::MOUNT_ATTR__ATIME);
            attributes.insert(wanted);
        };
        match option {
            "defaults" => {}
            "atime" | "relatime" => atime(MountAttrFlags::MOUNT_ATTR_RELATIME),
            "noatime" => atime(MountAttrFlags::MOUNT_ATTR_NOATIME),
            "strictatime" => atime(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            "diratime" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            "nodiratime" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            "suid" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOSUID),
            "nosuid" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOSUID),
            "dev" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NODEV),
            "nodev" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NODEV),
            "exec" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            "noexec" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            "symfollow" => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
            "nosymfollow" => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
            "rw" => attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY),
            "ro" => attributes.insert(MountAttrFlags::MOUNT_ATTR_RDONLY),
            _ => {
                if FOREIGN.contains(&key) || NOT_FOR_VOLUMES.contains(&key) {
                    return Err(OptionError::Forbidden(key.to_owned()));
                }
                self.file_system
                    .push((key.to_owned(), value.map(str::to_owned)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_to_the_mount_or_to_the_file_system() {
        let options = ["noatime,nosuid", "discard", "", "commit=30", "rw"];
        let parsed = MountOptions::parse(&options).unwrap();
        let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NOSUID;
        assert_eq!(parsed.attributes, attributes);
        let file_system = [
            ("discard".into(), None),
            ("commit".into(), Some("30".into())),
        ];
        assert_eq!(parsed.file_system, file_system);
    }

    #[test]
    fn the_later_of_two_contrary_options_wins() {
        let parsed = MountOptions::parse(&["ro", "noatime", "rw", "strictatime"]).unwrap();
        assert_eq!(parsed.attributes, MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        assert_eq!(
            MountOptions::parse(&["noexec,exec"]).unwrap(),
            MountOptions::default()
        );
    }

    #[test]
    fn what_reaches_beyond_the_volume_is_refused() {
        for option in [
            "logdev=/dev/sda",
            "journal_path=/x",
            "bind",
            "remount",
            "offset=4096",
        ] {
            let error = MountOptions::parse(&[option]).unwrap_err();
            let key = option.split('=').next().unwrap().to_owned();
            assert_eq!(error, OptionError::Forbidden(key), "{option}");
        }
        for option in ["a b", "x\n", "data=\"x\"", "--bind", "é"] {
            let error = MountOptions::parse(&[option]).unwrap_err();
            let key = option.split('=').next().unwrap().to_owned();
            assert_eq!(error, OptionError::Characters(key), "{option}");
        }
    }
}
