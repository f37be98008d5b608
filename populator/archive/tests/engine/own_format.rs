//! Archives of our own: made by `archive::pack`, read by everybody.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use archive::source::SourceError;
use archive::{Budget, Devices, PackError, PackOptions, Packed, Progress, Sink, Verified};
use tokio_util::sync::CancellationToken;

use crate::compare::{assert_same, difference};
use crate::pack::output;
use crate::support::{Memory, RUNTIME, Random, failure, options, restore, restore_from};
use crate::tree::{self, Limits};

const LIMITS: Limits = Limits {
    rich: true,
    path: 3000,
    fifos: true,
    large_ids: true,
    devices: false,
};

#[derive(Default)]
struct Object(Vec<u8>);

impl Sink for Object {
    fn write(&mut self, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.0.extend(bytes);
        Ok(())
    }
}

fn try_pack(tree: &Path, options: &PackOptions) -> Result<(Packed, Vec<u8>), PackError> {
    let (progress, cancel) = (Progress::default(), CancellationToken::new());
    let directory = File::open(tree).unwrap();
    let mut object = Object::default();
    let packed = archive::pack(
        directory.as_fd(),
        &mut object,
        options,
        &progress,
        &cancel,
        RUNTIME.handle(),
    )?;
    assert_eq!(packed.stored, object.0.len() as u64);
    Ok((packed, object.0))
}

pub fn pack(tree: &Path) -> Vec<u8> {
    let options = PackOptions::new(Budget::new(Budget::DEFAULT));
    try_pack(tree, &options).unwrap().1
}

/// Some small files, one of several frames, one with holes, two names of one file.
fn several_frames(root: &Path) {
    let mut random = Random(60);
    for index in 0..40 {
        let length = random.index(9000);
        fs::write(root.join(format!("small-{index}")), random.bytes(length)).unwrap();
    }
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/large"), random.bytes(11_000_001)).unwrap();
    fs::hard_link(root.join("d/large"), root.join("d/other name")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse
        .write_all_at(&random.bytes(5_000_000), 64 << 20)
        .unwrap();
    sparse.set_len(1 << 30).unwrap();
}

#[test]
fn trees_come_back_and_give_the_same_archive_again() {
    for (seed, entries) in [(61, 400), (62, 30), (63, 1)] {
        let original = tempfile::tempdir().unwrap();
        tree::make(original.path(), LIMITS, seed, entries);
        let object = pack(original.path());
        let to = tempfile::tempdir().unwrap();
        let outcome = restore(object.clone(), to.path()).unwrap();
        assert!(outcome.lost.is_empty(), "{}", outcome.lost);
        assert_eq!(outcome.verified, Verified::PerFile);
        assert_same(original.path(), to.path());
        assert!(pack(to.path()) == object, "the copy gives another archive");
    }
}

#[test]
fn the_result_does_not_depend_on_threads_or_memory() {
    let original = tempfile::tempdir().unwrap();
    several_frames(original.path());
    let expected = pack(original.path());
    for (threads, memory) in [(1, Budget::DEFAULT), (7, 1 << 30), (7, 1)] {
        let options = PackOptions {
            threads,
            ..PackOptions::new(Budget::new(memory))
        };
        let (_, object) = try_pack(original.path(), &options).unwrap();
        assert!(object == expected, "{threads} threads, {memory} bytes");
    }
    let to = tempfile::tempdir().unwrap();
    let outcome = restore(expected, to.path()).unwrap();
    assert_eq!(outcome.verified, Verified::PerFile);
    assert_same(original.path(), to.path());
    let holes = File::open(to.path().join("sparse")).unwrap();
    let blocks = rustix::fs::fstat(&holes).unwrap().st_blocks;
    assert!(blocks < 12_000, "{blocks} blocks");
}

#[test]
fn others_read_them() {
    let original = tempfile::tempdir().unwrap();
    several_frames(original.path());
    fs::set_permissions(
        original.path().join("d"),
        std::os::unix::fs::PermissionsExt::from_mode(0o2751),
    )
    .unwrap();
    let object = tempfile::NamedTempFile::with_suffix(".tar.zst").unwrap();
    fs::write(object.path(), pack(original.path())).unwrap();
    output(Command::new("zstd").arg("-tq").arg(object.path()));
    for program in ["tar", "bsdtar"] {
        let to = tempfile::tempdir().unwrap();
        let mut extract = Command::new(program);
        extract
            .args(["-xpf"])
            .arg(object.path())
            .arg("-C")
            .arg(to.path());
        output(&mut extract);
        if program == "bsdtar" {
            // It leaves the time of `./` alone.
            output(
                Command::new("touch")
                    .arg("-r")
                    .args([original.path(), to.path()]),
            );
        }
        assert_same(original.path(), to.path());
    }
}

/// The format as docs/archive-format.md has it, read without the engine.
#[test]
fn the_table_at_the_end_leads_to_every_frame() {
    let original = tempfile::tempdir().unwrap();
    several_frames(original.path());
    let object = pack(original.path());
    let u32_at = |at: usize| u32::from_le_bytes(object[at..at + 4].try_into().unwrap());
    let end = object.len();
    assert_eq!(u32_at(end - 4), 0x8f92_eab1);
    let count = u32_at(end - 9);
    let frames = count as usize;
    let table = end - 9 - 8 * frames;
    assert_eq!(
        (u32_at(table - 8), u32_at(table - 4)),
        (0x184d_2a5e, 8 * count + 9)
    );
    let mut start = 0;
    let mut unpacked = Vec::new();
    for frame in 0..frames {
        let (stored, size) = (u32_at(table + 8 * frame), u32_at(table + 8 * frame + 4));
        let bytes = &object[start..start + stored as usize];
        if size == 0 {
            assert_eq!(frame + 1, frames, "the index is the last frame");
            assert_eq!(u32_at(start), 0x184d_2a5b);
            assert_eq!(&bytes[8..16], b"TARINDEX");
        } else {
            let decoded = zstd::bulk::decompress(bytes, size as usize).unwrap();
            assert_eq!(decoded.len(), size as usize);
            unpacked.extend(decoded);
        }
        start += stored as usize;
    }
    assert_eq!(start, table - 8);
    assert!(frames > 4);
    let mut archive = tar::Archive::new(&unpacked[..]);
    assert_eq!(archive.entries().unwrap().count(), 40 + 5);
}

#[test]
fn cut_off_or_altered_anywhere() {
    let original = tempfile::tempdir().unwrap();
    for index in 0..12 {
        let content = Random(index).bytes(2000);
        fs::write(original.path().join(format!("{index}")), content).unwrap();
    }
    let object = pack(original.path());
    // Where the index and the table behind it begin: what ends exactly there is a whole archive too, one
    // without an index.
    let begins = [0x184d_2a5b_u32, 0x184d_2a5e].map(|magic| {
        let magic = magic.to_le_bytes();
        object.windows(4).rposition(|it| it == magic).unwrap()
    });
    assert!(begins[0] < begins[1] && begins[1] < object.len() - 8);
    let mut random = Random(64);
    for end in (0..500).map(|_| random.index(object.len())) {
        let (reason, message) = match end {
            0..4 => continue,
            end if begins.contains(&end) => continue,
            end => failure(object[..end].to_vec()),
        };
        assert_eq!(reason, "ArchiveTruncated", "{end}: {message}");
    }
    let mut unchanged = 0;
    for _ in 0..500 {
        let bit = random.index(object.len() * 8);
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let to = tempfile::tempdir().unwrap();
        if restore(flipped, to.path()).is_ok() {
            // In the table, whose entries but the last nobody needs to read all of it.
            assert_eq!(difference(original.path(), to.path()), None, "bit {bit}");
            unchanged += 1;
        }
    }
    assert!(unchanged < 50, "{unchanged} flips went unnoticed");
}

/// An index that lies, with every sum of its own right.
#[test]
fn what_contradicts_the_index_is_damaged() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (tree, content) in [(&one, "right"), (&other, "wrong")] {
        fs::write(tree.path().join("f"), content).unwrap();
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
        };
        for path in [tree.path().join("f"), tree.path().to_owned()] {
            let flags = rustix::fs::AtFlags::empty();
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
        }
    }
    let (one, other) = (pack(one.path()), pack(other.path()));
    let magic = 0x184d_2a5b_u32.to_le_bytes();
    let index = |object: &[u8]| object.windows(4).position(|it| it == magic).unwrap();
    assert_eq!(index(&one), index(&other));
    let mixed = [&one[..index(&one)], &other[index(&other)..]].concat();
    let (reason, message) = failure(mixed);
    assert_eq!(reason, "ArchiveCorrupt");
    assert!(message.contains("the data of \"./f\""), "{message}");
}

#[test]
fn whoever_wants_digests_gets_them_or_an_error() {
    let original = tempfile::tempdir().unwrap();
    several_frames(original.path());
    let mut wanted = options();
    wanted.required = Verified::PerFile;
    let to = tempfile::tempdir().unwrap();
    restore_from(Memory::new(pack(original.path())), to.path(), &wanted).unwrap();
    let plain = crate::pack::tar(original.path(), &["--format=pax", "--sparse"]);
    let plain = crate::pack::compress(crate::pack::Compression::Zstd, &plain);
    let to = tempfile::tempdir().unwrap();
    let error = restore_from(Memory::new(plain), to.path(), &wanted).unwrap_err();
    assert_eq!(error.reason(), "Unverified");
}

#[test]
fn what_is_left_out_is_told() {
    let original = tempfile::tempdir().unwrap();
    let socket = std::os::unix::net::UnixListener::bind(original.path().join("socket")).unwrap();
    fs::create_dir(original.path().join("lost+found")).unwrap();
    let node = original.path().join("null");
    let mode = rustix::fs::Mode::from(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, device).unwrap();
    let pack_options = PackOptions::new(Budget::new(Budget::DEFAULT));
    let (packed, object) = try_pack(original.path(), &pack_options).unwrap();
    drop(socket);
    assert_eq!(packed.left_out.get("socket").unwrap().count, 1);
    // The root and the device.
    assert_eq!(packed.entries, 2);
    let mut wanted = options();
    wanted.devices = Devices::Create;
    let to = tempfile::tempdir().unwrap();
    restore_from(Memory::new(object), to.path(), &wanted).unwrap();
    let found = rustix::fs::stat(to.path().join("null")).unwrap();
    assert_eq!(found.st_rdev, device);
}

#[test]
fn a_file_that_changes_is_no_backup() {
    let original = tempfile::tempdir().unwrap();
    let path = original.path().join("written");
    fs::write(&path, Random(65).bytes(1 << 20)).unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        let file = File::options().write(true).open(path).unwrap();
        while !stopped.is_cancelled() {
            file.write_all_at(b"x", 0).unwrap();
        }
    });
    // The clock of the file system has ticks of some milliseconds, so once may be missed.
    let failed = (0..50).any(|_| {
        let options = PackOptions::new(Budget::new(Budget::DEFAULT));
        matches!(
            try_pack(original.path(), &options),
            Err(PackError::Changed { .. })
        )
    });
    stop.cancel();
    writer.join().unwrap();
    assert!(failed);
}

/// A sink that fails after so many bytes.
struct Full(usize);

impl Sink for Full {
    fn write(&mut self, bytes: Vec<u8>) -> Result<(), SourceError> {
        let kind = archive::SourceErrorKind::Unavailable;
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or_else(|| SourceError::new(kind, "no room"))?;
        Ok(())
    }
}

#[test]
fn a_store_that_fails_is_the_reason_given() {
    let original = tempfile::tempdir().unwrap();
    several_frames(original.path());
    let whole = pack(original.path()).len();
    for room in [0, whole / 3, whole - 1] {
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let directory = File::open(original.path()).unwrap();
        let error = archive::pack(
            directory.as_fd(),
            &mut Full(room),
            &PackOptions::new(Budget::new(Budget::DEFAULT)),
            &progress,
            &cancel,
            RUNTIME.handle(),
        )
        .unwrap_err();
        assert_eq!(error.reason(), "StoreFailed", "{error}");
    }
}
