//! Loop devices whose backing file belongs to a state.
//!
//! A path does not tell whose a loop device is: the kernel shows it as the node or the container
//! that attached it saw it. The backing file's device and inode do; and a volume's image that
//! lies on a pool which itself lies on a loop device of ours is ours too, and so is what kubelet puts
//! over the device of a raw block volume to keep it for its pod: a loop device on a device node.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::run_program;

/// A loop device as `losetup` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loop {
    /// Its node, `/dev/loop3`.
    pub(super) path: String,
    number: (u32, u32),
    /// Device and inode of that node, which another loop device may lie on.
    node: Option<Inode>,
    backing: Inode,
    deleted: bool,
}

/// The folders in a node's `/var/lib` in which drivers keep pools: ours, and the one of
/// `tests/overlays/other-driver`.
const POOLS: [&str; 2] = ["fastcopy", "other"];

/// A file: the device that it lies on, and its inode.
type Inode = ((u32, u32), u64);

/// What a state's folder holds: its file system, and the inodes of its files.
pub(super) struct Files {
    device: (u32, u32),
    inodes: HashSet<u64>,
    /// Whether no other state is up, so that a deleted file on this file system that was called
    /// like a pool's can only be ours.
    alone: bool,
}

/// The loop devices of the nodes whose folders these are, outer ones last. `alone`: no other state is up.
pub(super) fn of(nodes: &[PathBuf], alone: bool) -> Result<Vec<Loop>> {
    let Some(first) = nodes.first() else {
        return Ok(Vec::new());
    };
    let columns = "NAME,MAJ:MIN,BACK-MAJ:MIN,BACK-INO,BACK-FILE";
    let listed = run_program(
        "losetup",
        &["--list", "--noheadings", "--raw", "--output", columns],
    )?;
    let mut loops: Vec<Loop> = listed.lines().filter_map(parse).collect();
    for each in &mut loops {
        let node = std::fs::metadata(&each.path).ok();
        each.node = node.map(|node| (number(node.dev()), node.ino()));
    }
    let device = number(std::fs::metadata(first)?.dev());
    let mut files = Files {
        device,
        inodes: HashSet::new(),
        alone,
    };
    for node in nodes {
        collect(node, device, &mut files.inodes)?;
    }
    Ok(ours(&loops, &files))
}

/// Attached before those that lie on them, and so listed after them.
fn ours(loops: &[Loop], files: &Files) -> Vec<Loop> {
    let mut found: Vec<Loop> = Vec::new();
    loop {
        let more: Vec<Loop> = loops
            .iter()
            .filter(|candidate| !found.contains(candidate))
            .filter(|candidate| {
                let (device, inode) = candidate.backing;
                let within = device == files.device
                    && (files.inodes.contains(&inode) || candidate.deleted && files.alone);
                within
                    || found.iter().any(|outer| {
                        outer.number == device || outer.node == Some(candidate.backing)
                    })
            })
            .cloned()
            .collect();
        if more.is_empty() {
            return found;
        }
        found.splice(0..0, more);
    }
}

/// `--raw` writes a blank within a column as `\x20`, and pads some columns with it.
fn parse(line: &str) -> Option<Loop> {
    let mut fields = line.split(' ').map(|field| field.replace(r"\x20", " "));
    let path = fields.next()?;
    let number = parse_number(&fields.next()?)?;
    let backing_device = parse_number(&fields.next()?)?;
    let backing_inode = fields.next()?.trim().parse().ok()?;
    let file = fields.next().unwrap_or_default();
    let in_pool = POOLS.iter().any(|pool| file.contains(&format!("/{pool}/")));
    let deleted = file.ends_with("(deleted)") && in_pool;
    Some(Loop {
        path,
        number,
        node: None,
        backing: (backing_device, backing_inode),
        deleted,
    })
}

fn parse_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn number(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

fn collect(node: &Path, device: (u32, u32), inodes: &mut HashSet<u64>) -> Result<()> {
    // Only pools hold images; walking the containers' layers would take long and find nothing.
    for pool in POOLS.map(|pool| node.join("lib").join(pool)) {
        if pool.is_dir() {
            walk(&pool, device, inodes)?;
        }
    }
    Ok(())
}

fn walk(folder: &Path, device: (u32, u32), inodes: &mut HashSet<u64>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            continue;
        }; // gone meanwhile
        if number(metadata.dev()) != device {
            continue;
        }
        if metadata.is_dir() {
            walk(&entry.path(), device, inodes)?;
        } else {
            inodes.insert(metadata.ino());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(alone: bool) -> Files {
        Files {
            device: (254, 0),
            inodes: HashSet::from([12]),
            alone,
        }
    }

    fn names(loops: &[Loop]) -> Vec<&str> {
        loops.iter().map(|found| found.path.as_str()).collect()
    }

    #[test]
    fn a_volume_on_our_pool_is_ours_and_goes_first() {
        let loops: Vec<Loop> = [
            "/dev/loop0 7:0 7:1 99 /volumes/pvc-1",
            r"/dev/loop1 \x20\x207:1\x20\x20 \x20254:0\x20\x20 12 /var/lib/fastcopy/pool.img",
            "/dev/loop2 7:2 254:0 13 /home/somebody/disk.img",
            "/dev/loop3 7:3 7:2 12 /x",
        ]
        .into_iter()
        .map(|line| parse(line).unwrap())
        .collect();
        assert_eq!(
            names(&ours(&loops, &files(false))),
            ["/dev/loop0", "/dev/loop1"]
        );
    }

    #[test]
    fn what_keeps_a_block_volume_is_ours_and_goes_before_it() {
        let mut loops: Vec<Loop> = [
            "/dev/loop0 7:0 0:6 132 /",
            "/dev/loop1 7:1 254:0 12 /var/lib/fastcopy/volumes/vol-1/image",
            "/dev/loop2 7:2 0:6 133 /",
        ]
        .into_iter()
        .map(|line| parse(line).unwrap())
        .collect();
        loops[1].node = Some(((0, 6), 132));
        assert_eq!(
            names(&ours(&loops, &files(false))),
            ["/dev/loop0", "/dev/loop1"]
        );
    }

    #[test]
    fn a_deleted_image_is_ours_only_if_it_can_be_nobody_elses() {
        let pool = parse(r"/dev/loop4 7:4 254:0 77 /fastcopy/volumes/v\x20(deleted)").unwrap();
        let other = parse(r"/dev/loop5 7:5 254:0 78 /tmp/v\x20(deleted)").unwrap();
        let loops = [pool, other];
        assert_eq!(names(&ours(&loops, &files(true))), ["/dev/loop4"]);
        assert!(ours(&loops, &files(false)).is_empty());
    }
}
