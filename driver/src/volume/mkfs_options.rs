//! Options for mkfs as a StorageClass may give them.
//!
//! The tools run as root on the node, so only options are passed on that shape the file system
//! itself; one that names a file, a device or a place on the device would reach beyond it.

use serde::{Deserialize, Serialize};

use super::FileSystem;

/// The options of mke2fs(8) that take a value and shape the file system.
const EXT4: [&str; 9] = ["-C", "-E", "-G", "-I", "-N", "-O", "-T", "-g", "-i"];

/// The extended options of mke2fs(8) (`-E`) that are passed on.
const EXT4_EXTENDED: [&str; 8] = [
    "lazy_itable_init",
    "lazy_journal_init",
    "no_copy_xattrs",
    "num_backup_sb",
    "packed_meta_blocks",
    "resize",
    "stride",
    "stripe_width",
];

/// The options of mkfs.xfs(8), and for each its suboptions, that are passed on.
const XFS: [(&str, &[&str]); 4] = [
    (
        "-d",
        &[
            "agcount",
            "agsize",
            "cowextsize",
            "extszinherit",
            "noalign",
            "su",
            "sunit",
            "sw",
            "swidth",
        ],
    ),
    (
        "-i",
        &[
            "align", "attr", "exchange", "maxpct", "nrext64", "perblock", "size", "sparse",
        ],
    ),
    ("-l", &["lazy-count", "size", "su", "sunit", "version"]),
    (
        "-m",
        &[
            "bigtime",
            "crc",
            "finobt",
            "inobtcount",
            "reflink",
            "rmapbt",
        ],
    ),
];

/// Checked options, in pairs of an option and its value. Which file system they are for shows
/// only when they are used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MkfsOptions(Vec<String>);

/// Why options are not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MkfsOptionError {
    /// Signs that no such option has.
    #[error("mkfsOptions has {0:?}; options are letters, digits and ,=_^.- separated by spaces")]
    Characters(String),
    /// Not in the list.
    #[error("mkfsOptions has {option:?}, which is not passed on to mkfs for {file_system}")]
    NotAllowed {
        /// The option.
        option: String,
        /// The file system.
        file_system: &'static str,
    },
    /// An option without its value.
    #[error("mkfsOptions has {0:?} without a value; write it as `-i 8192`")]
    NoValue(String),
}

impl MkfsOptions {
    /// Splits a text at its spaces and checks its signs; the rest is for [`Self::check`].
    pub fn parse(text: &str) -> Result<Self, MkfsOptionError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ",=_^.-".contains(c);
        let words: Vec<_> = text.split_ascii_whitespace().map(str::to_owned).collect();
        match words.iter().find(|word| !word.chars().all(plain)) {
            Some(word) => Err(MkfsOptionError::Characters(word.clone())),
            None => Ok(Self(words)),
        }
    }

    /// Checks that all are options of this file system's mkfs that may be given.
    pub fn check(&self, file_system: FileSystem) -> Result<(), MkfsOptionError> {
        let mut words = self.0.iter();
        while let Some(option) = words.next() {
            if !is_option(file_system, option) {
                return Err(not_allowed(option, file_system));
            }
            let value = words
                .next()
                .filter(|value| !value.starts_with('-'))
                .ok_or_else(|| MkfsOptionError::NoValue(option.clone()))?;
            if let Some(foreign) = suboption_that_is_not_allowed(file_system, option, value) {
                return Err(not_allowed(&format!("{option} {foreign}"), file_system));
            }
        }
        Ok(())
    }

    /// As arguments.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

fn not_allowed(option: &str, file_system: FileSystem) -> MkfsOptionError {
    MkfsOptionError::NotAllowed {
        option: option.to_owned(),
        file_system: file_system.name(),
    }
}

fn is_option(file_system: FileSystem, option: &str) -> bool {
    match file_system {
        FileSystem::Ext4 => EXT4.contains(&option),
        FileSystem::Xfs => XFS.iter().any(|(name, _)| *name == option),
    }
}

fn suboption_that_is_not_allowed<'a>(
    file_system: FileSystem,
    option: &str,
    value: &'a str,
) -> Option<&'a str> {
    let allowed: &[&str] = match file_system {
        FileSystem::Ext4 if option == "-E" => &EXT4_EXTENDED,
        FileSystem::Ext4 => return None,
        FileSystem::Xfs => XFS
            .iter()
            .find(|(name, _)| *name == option)
            .map_or(&[], |(_, suboptions)| suboptions),
    };
    let mut keys = value
        .split(',')
        .map(|pair| pair.split('=').next().unwrap_or(pair));
    keys.find(|key| !allowed.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, file_system: FileSystem) -> Result<(), MkfsOptionError> {
        MkfsOptions::parse(text)?.check(file_system)
    }

    #[test]
    fn what_shapes_the_file_system_is_passed_on() {
        for text in [
            "",
            "-i 8192",
            "-O ^has_journal,quota -E stride=16,stripe_width=64 -I 512",
        ] {
            assert_eq!(check(text, FileSystem::Ext4), Ok(()), "{text}");
        }
        for text in ["-i size=1024", "-d agcount=8,su=64k,sw=2 -m reflink=0"] {
            assert_eq!(check(text, FileSystem::Xfs), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_reaches_beyond_it_is_refused() {
        for text in [
            "-d /etc",
            "-J device=/dev/sda",
            "-b 1024",
            "-E offset=4096",
            "-i",
            "-i -O",
            "-F",
            "8192",
        ] {
            assert!(check(text, FileSystem::Ext4).is_err(), "{text}");
        }
        for text in [
            "-d file,name=x",
            "-l logdev=x",
            "-p x",
            "-s size=512",
            "-r rtdev=x",
            "-d size=1g",
        ] {
            assert!(check(text, FileSystem::Xfs).is_err(), "{text}");
        }
        for text in ["-i $(id)", "-i 8192;id", "-O a\u{7}", "-d /x"] {
            let error = MkfsOptions::parse(text).unwrap_err();
            assert!(matches!(error, MkfsOptionError::Characters(_)), "{text}");
        }
    }
}
