//! What is mounted in a node.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// One line of a node's `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted, as the node sees it.
    pub target: PathBuf,
    /// The kind of file system.
    pub file_system: String,
    /// The device, or what stands in its place.
    pub source: String,
    /// Options of the mount and of the file system, joined by commas.
    pub options: String,
}

/// The mounts that process `anchor` sees.
pub(super) fn of(anchor: u32) -> Result<Vec<Mount>> {
    let table = std::fs::read_to_string(format!("/proc/{anchor}/mountinfo"))
        .context("the node's mounts cannot be read: is it down?")?;
    Ok(table.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(4);
    let (target, mount_options) = (unescape(mount.next()?), mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, source, options) = (
        file_system.next()?,
        file_system.next()?,
        file_system.next()?,
    );
    Some(Mount {
        target: PathBuf::from(target),
        file_system: kind.to_owned(),
        source: unescape(source),
        options: format!("{mount_options},{options}"),
    })
}

/// The kernel writes blanks, tabs, line ends and backslashes in octal.
fn unescape(text: &str) -> String {
    [
        (r"\040", " "),
        (r"\011", "\t"),
        (r"\012", "\n"),
        (r"\134", r"\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (written, meant)| {
        text.replace(written, meant)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line() {
        let line = r"36 35 7:0 / /mnt/a\040b rw,noatime shared:1 - ext4 /dev/loop0 rw,errors=x";
        let mount = parse(line).unwrap();
        assert_eq!(mount.target, PathBuf::from("/mnt/a b"));
        assert_eq!(
            (&*mount.file_system, &*mount.source),
            ("ext4", "/dev/loop0")
        );
        assert_eq!(mount.options, "rw,noatime,rw,errors=x");
    }
}
