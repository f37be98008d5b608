//! Trees of files with everything that is hard to restore in them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat,
    setxattr, utimensat,
};

use crate::support::Random;

/// What the archive format can carry.
#[derive(Clone, Copy)]
// Each is something that a format has or has not.
#[allow(clippy::struct_excessive_bools)]
pub struct Limits {
    /// Nanoseconds, extended attributes and ACLs.
    pub rich: bool,
    /// Device nodes, and attributes and ACLs of what is neither a file nor a directory.
    pub devices: bool,
    /// The longest path from the root, in bytes.
    pub path: usize,
    pub fifos: bool,
    /// Numbers of owners and devices that need more digits than the oldest header has.
    pub large_ids: bool,
}

const SIZES: [usize; 12] = [
    0,
    1,
    511,
    512,
    513,
    4095,
    4096,
    70_000,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    3_456_789,
];

/// Makes a tree of about `entries` entries in `root`.
pub fn make(root: &Path, limits: Limits, seed: u64, entries: usize) {
    let mut random = Random(seed);
    let mut directories = vec![PathBuf::new()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut all: Vec<PathBuf> = Vec::new();
    for index in 0..entries {
        let parent = &directories[random.index(directories.len())];
        let path = parent.join(name(&mut random, index, limits));
        if path.as_os_str().len() > limits.path {
            continue;
        }
        let full = root.join(&path);
        match random.below(12) {
            0..=1 => {
                fs::create_dir(&full).unwrap();
                directories.push(path.clone());
            }
            2 => symlink(
                random.pick(&["/etc/passwd", "../../..", "a b", "nowhere"]),
                &full,
            )
            .unwrap(),
            3 if !files.is_empty() => {
                let target = &files[random.index(files.len())];
                fs::hard_link(root.join(target), &full).unwrap();
            }
            10 if limits.devices => {
                let kind = random.pick(&[FileType::CharacterDevice, FileType::BlockDevice]);
                // libarchive has six octal digits for it, and leaves out what has more.
                let minors: &[u32] = if limits.large_ids {
                    &[0, 3, 1_048_575]
                } else {
                    &[0, 3, 200_000]
                };
                let number = makedev(random.pick(&[1, 7, 4095]), random.pick(minors));
                mknodat(CWD, &full, kind, Mode::RUSR, number).unwrap();
            }
            11 => {
                let (offset, length) = (random.below(6) << 16, random.index(9000));
                make_sparse(&full, 400_000, &[(offset, random.bytes(length))]);
                files.push(path.clone());
            }
            4 if limits.fifos => mknodat(CWD, &full, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            _ => {
                let size = random.pick(&SIZES);
                fs::write(&full, random.bytes(size)).unwrap();
                files.push(path.clone());
            }
        }
        all.push(path);
    }
    // Metadata from the leaves up, so that no step changes what another one set.
    for path in all.iter().rev().chain([&PathBuf::new()]) {
        decorate(&root.join(path), limits, &mut random);
    }
}

fn name(random: &mut Random, index: usize, limits: Limits) -> PathBuf {
    const ODD: [&[u8]; 7] = [
        b"plain",
        b"with space",
        b"\xff\xfe",
        b"new\nline",
        b"-rf",
        "ünïcödé".as_bytes(),
        b"=5 a=b",
    ];
    let mut name = random.pick(&ODD).to_vec();
    name.extend_from_slice(format!("{index}").as_bytes());
    if random.below(8) == 0 {
        name.resize(limits.path.min(255), b'x');
    }
    PathBuf::from(OsStr::from_bytes(&name))
}

fn decorate(path: &Path, limits: Limits, random: &mut Random) {
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    let ids: &[u32] = if limits.large_ids {
        &[0, 1, 1000, 65_534, 3_000_000_000]
    } else {
        &[0, 1, 1000]
    };
    lchown(path, Some(random.pick(ids)), Some(random.pick(ids))).unwrap();
    if !kind.is_symlink() {
        let modes = [0, 0o644, 0o755, 0o400, 0o4755, 0o2755, 0o1777, 0o7777];
        fs::set_permissions(path, fs::Permissions::from_mode(random.pick(&modes))).unwrap();
    }
    if limits.rich && (kind.is_file() || kind.is_dir()) {
        setxattr(path, "user.text", b"a value", XattrFlags::empty()).unwrap();
        setxattr(path, "user.bytes", &random.bytes(300), XattrFlags::empty()).unwrap();
    }
    let plain = kind.is_file() || kind.is_dir();
    if limits.rich && limits.devices && !plain {
        let anywhere = "trusted.anywhere";
        lsetxattr(path, anywhere, &random.bytes(9), XattrFlags::empty()).unwrap();
    }
    if limits.rich && kind.is_dir() && random.below(3) == 0 {
        setxattr(
            path,
            "system.posix_acl_default",
            &acl(random),
            XattrFlags::empty(),
        )
        .unwrap();
    }
    let acls = limits.rich && (plain || limits.devices && !kind.is_symlink());
    if acls && random.below(3) == 0 {
        setxattr(
            path,
            "system.posix_acl_access",
            &acl(random),
            XattrFlags::empty(),
        )
        .unwrap();
    }
    if limits.rich && kind.is_file() && random.below(3) == 0 {
        // cap_net_bind_service+ep, revision 2.
        let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        setxattr(path, "security.capability", capability, XattrFlags::empty()).unwrap();
    }
    let nanoseconds = if limits.rich {
        random.below(1_000_000_000)
    } else {
        0
    };
    set_time(
        path,
        i64::try_from(random.below(2_000_000_000)).unwrap(),
        nanoseconds,
    );
}

/// An ACL as the kernel takes it (linux/posix_acl_xattr.h), for a user and a group by number.
fn acl(random: &mut Random) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, named) in [
        (1_u16, false),
        (2, true),
        (4, false),
        (8, true),
        (16, false),
        (32, false),
    ] {
        let permissions = u16::try_from(random.below(8)).unwrap();
        let id = if named {
            random.pick(&[7, 1000, 2_000_000_000])
        } else {
            u32::MAX
        };
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Sets the time of last modification.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: u64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a file with data at these offsets and holes elsewhere.
pub fn make_sparse(path: &Path, size: u64, data: &[(u64, Vec<u8>)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset).unwrap();
    }
    file.sync_all().unwrap();
}
