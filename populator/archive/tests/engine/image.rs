//! Images of disks: onto real block devices that hold something else before, and into files.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use archive::{
    Existing, Identities, ImageOutcome, Limits, Options, Ownership, Progress, RestoreError, Source,
    Verified,
};
use rustix::fs::{OFlags, SeekFrom, seek};
use tokio_util::sync::CancellationToken;

use crate::pack::{self, ALL, CHECKED, Compression, compress, filter};
use crate::support::{Memory, RUNTIME, Random, options};

/// A loop device over a file of 0xff, taken away again at the end.
struct Device {
    path: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Device {
    fn new(bytes: u64, sector: u32) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("device");
        fs::write(&file, vec![0xff; usize::try_from(bytes).unwrap()]).unwrap();
        let said = pack::output(
            Command::new("losetup")
                .args(["--find", "--show", "--sector-size", &sector.to_string()])
                .arg(&file),
        );
        Self {
            path: String::from_utf8(said).unwrap().trim().into(),
            _scratch: scratch,
        }
    }

    fn open(&self) -> File {
        let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap();
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(exclusive);
        options.open(&self.path).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        File::open(&self.path)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("-d").arg(&self.path).status();
        assert!(detached.unwrap().success());
    }
}

fn restore_to(
    target: &File,
    source: impl Source + 'static,
    options: &Options,
) -> Result<ImageOutcome, RestoreError> {
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    archive::restore_image(
        Arc::new(source),
        target.as_fd(),
        options,
        &progress,
        &cancel,
        RUNTIME.handle(),
    )
}

fn restore(target: &File, object: Vec<u8>) -> Result<ImageOutcome, RestoreError> {
    restore_to(target, Memory::new(object), &options())
}

/// A new file in this directory.
fn file(directory: &Path) -> File {
    let made = tempfile::NamedTempFile::new_in(directory).unwrap();
    made.keep().unwrap().0
}

fn failure(object: Vec<u8>) -> (&'static str, String) {
    let scratch = tempfile::tempdir().unwrap();
    let error = restore(&file(scratch.path()), object).expect_err("this must not be restored");
    (error.reason(), error.to_string())
}

/// Zeros, data, long and short zeros within data, zeros in its middle and at its end, and so many bytes
/// that make no whole block.
fn image(odd: usize) -> Vec<u8> {
    let mut random = Random(80);
    let mut image = vec![0; 200 << 10];
    image.extend(random.bytes(1_300_000));
    image.extend(vec![0; 3 << 20]);
    image.extend(random.bytes(70_000));
    image.extend(vec![0; 5000]);
    image.extend(random.bytes(70_000));
    image.resize(image.len().next_multiple_of(64 << 10), 1);
    image.extend(vec![0; 64 << 10]);
    image.extend(random.bytes(odd));
    image
}

#[test]
fn onto_devices() {
    for sector in [512, 4096] {
        for odd in [0, 1, 511, 512, 4095, 4096, 100_000] {
            let image = image(odd);
            let behind = 1 << 20;
            let bytes = (image.len() as u64 + behind).next_multiple_of(4096);
            let device = Device::new(bytes, sector);
            let compression = ALL[odd % ALL.len()];
            let outcome = restore(&device.open(), compress(compression, &image)).unwrap();
            let content = device.content();
            assert!(content[..image.len()] == image, "{sector} {odd}");
            // What is behind it stays.
            assert!(content[image.len()..].iter().all(|byte| *byte == 0xff));
            assert_eq!(content.len() as u64, bytes);
            assert_eq!(outcome.size, image.len() as u64);
            assert_eq!(outcome.size, outcome.bytes_written + outcome.holes);
            assert!(outcome.holes > 3 << 20, "{outcome:?}");
        }
    }
}

#[test]
fn every_compression() {
    let image = image(1234);
    let scratch = tempfile::tempdir().unwrap();
    for (compression, format) in ALL
        .into_iter()
        .zip(["", ".gz", ".zst", ".xz", ".bz2", ".lz4"])
    {
        let device = Device::new(image.len().next_multiple_of(4096) as u64, 512);
        let file = file(scratch.path());
        for target in [&device.open(), &file] {
            let outcome = restore(target, compress(compression, &image)).unwrap();
            assert_eq!(outcome.format.to_string(), format!("raw{format}"));
            let verified = match compression {
                Compression::None => Verified::None,
                _ => Verified::Stream,
            };
            assert_eq!(outcome.verified, verified);
        }
        assert!(device.content()[..image.len()] == image, "{compression:?}");
    }
}

#[test]
fn encrypted() {
    let image = image(77);
    let keys = String::from_utf8(pack::output(&mut Command::new("age-keygen"))).unwrap();
    let (_, rest) = keys.split_once("public key: ").unwrap();
    let recipient = rest.lines().next().unwrap();
    let mut identities = Identities::default();
    identities.add_keys(&keys).unwrap();
    let options = Options {
        identities,
        ..options()
    };
    let packed = compress(Compression::Zstd, &image);
    let object = filter("age", &["--encrypt", "-r", recipient], &packed);
    let scratch = tempfile::tempdir().unwrap();
    let file = file(scratch.path());
    let outcome = restore_to(&file, Memory::new(object), &options).unwrap();
    assert_eq!(outcome.format.to_string(), "raw.zst.age");
    assert_eq!(outcome.verified, Verified::Stream);
}

/// Where the file system says that there are holes.
fn holes(file: &File) -> Vec<(u64, u64)> {
    let length = file.metadata().unwrap().len();
    let (mut holes, mut at) = (Vec::new(), 0);
    while at < length {
        let begin = seek(file, SeekFrom::Hole(at)).unwrap();
        let end = seek(file, SeekFrom::Data(begin)).unwrap_or(length);
        if begin < length {
            holes.push((begin, end));
        }
        at = end;
    }
    holes
}

#[test]
fn files_keep_their_holes() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let piece = 64_u64 << 10;
    for odd in [0, 1, 4096, 5000] {
        let mut image = image(odd);
        if odd == 5000 {
            // It ends with a hole.
            image.resize(image.len().next_multiple_of(64 << 10), 1);
            image.resize(image.len() + (1 << 20), 0);
        }
        let file = file(scratch.path());
        let outcome = restore(&file, compress(Compression::Zstd, &image)).unwrap();
        let found = file.metadata().unwrap();
        assert_eq!(found.len(), image.len() as u64);
        assert!(found.blocks() * 512 <= outcome.bytes_written.next_multiple_of(4096) + piece);
        let kept: u64 = holes(&file).iter().map(|(begin, end)| end - begin).sum();
        assert!(kept >= outcome.holes, "{kept} {outcome:?}");
        assert!(outcome.holes > 3 << 20);
    }
}

#[test]
fn what_is_there_is_kept_unless_it_may_go() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("image");
    fs::write(&path, vec![0xff; 8 << 20]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let image = image(9);
    let error = restore(&file, image.clone()).unwrap_err();
    assert_eq!(error.reason(), "VolumeNotEmpty", "{error}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 8 << 20);
    let overwrite = Options {
        existing: Existing::Overwrite,
        ..options()
    };
    restore_to(&file, Memory::new(image.clone()), &overwrite).unwrap();
    assert!(fs::read(&path).unwrap() == image);
}

#[test]
fn devices_that_are_too_small() {
    let image = image(100);
    let length = image.len().next_multiple_of(4096) as u64;
    for compression in ALL {
        let device = Device::new(length - 4096, 512);
        let object = match compression {
            // As a file it says how many bytes it has.
            Compression::Zstd => {
                let scratch = tempfile::tempdir().unwrap();
                fs::write(scratch.path().join("image"), &image).unwrap();
                let path = scratch.path().join("image");
                pack::output(Command::new("zstd").arg("-qc").arg(path))
            }
            _ => compress(compression, &image),
        };
        let error = restore(&device.open(), object).unwrap_err();
        assert_eq!(error.reason(), "DoesNotFit", "{error}");
        if matches!(compression, Compression::None | Compression::Zstd) {
            let content = device.content();
            assert!(content.iter().all(|byte| *byte == 0xff), "{compression:?}");
        }
        let device = Device::new(length, 512);
        restore(&device.open(), compress(compression, &image)).unwrap();
    }
}

#[test]
fn what_is_no_image() {
    let original = tempfile::tempdir().unwrap();
    fs::write(original.path().join("file"), "content").unwrap();
    let tar = pack::tar(original.path(), &["--format=pax"]);
    for compression in ALL {
        let (reason, message) = failure(compress(compression, &tar));
        assert_eq!(reason, "NotAnImage", "{message}");
        assert!(
            message.contains("a tar archive into a directory"),
            "{message}"
        );
        // The other way round.
        let image = &image(1)[200 << 10..];
        let error = crate::support::try_restore(compress(compression, image)).unwrap_err();
        assert_eq!(error.reason(), "NotAnArchive", "{error}");
        assert!(error.to_string().contains("block device"), "{error}");
        let twice = compress(Compression::Gzip, &compress(compression, image));
        if compression != Compression::None {
            assert_eq!(failure(twice).0, "NotAnImage");
        }
    }
    assert_eq!(failure(b"QFI\xfb....".to_vec()).0, "NotAnImage");
    assert_eq!(failure(Vec::new()).0, "ArchiveEmpty");
    assert_eq!(failure(compress(Compression::Gzip, b"")).0, "ArchiveEmpty");
}

#[test]
fn cut_off_or_altered() {
    let mut random = Random(81);
    let image = image(1)[1_000_000..1_200_000].to_vec();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("image");
    let overwrite = Options {
        existing: Existing::Overwrite,
        ..options()
    };
    for compression in CHECKED {
        let object = compress(compression, &image);
        let file = File::create(&path).unwrap();
        for _ in 0..100 {
            let end = random.index(object.len() - 10) + 10;
            let cut = Memory::new(object[..end].to_vec());
            let error = restore_to(&file, cut, &overwrite).unwrap_err();
            assert_eq!(
                error.reason(),
                "ArchiveTruncated",
                "{compression:?} {end}: {error}"
            );
            let bit = random.index(object.len() * 8);
            let mut flipped = object.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // What is no compression any more is an image, of other bytes.
            if let Ok(outcome) = restore_to(&file, Memory::new(flipped), &overwrite)
                && outcome.verified > Verified::None
            {
                assert!(
                    fs::read(&path).unwrap() == image,
                    "{compression:?} bit {bit}"
                );
            }
        }
    }
    // Of an image that is not compressed, its checksum tells.
    let sum = filter("sha256sum", &[], &image);
    let mut sha256 = [0; 32];
    hex::decode_to_slice(&sum[..64], &mut sha256).unwrap();
    let expected = Options {
        sha256: Some(sha256),
        ..overwrite
    };
    let file = File::create(&path).unwrap();
    let outcome = restore_to(&file, Memory::new(image.clone()), &expected).unwrap();
    assert_eq!(outcome.verified, Verified::Sha256);
    let cut = Memory::new(image[..image.len() - 1].to_vec());
    let error = restore_to(&file, cut, &expected).unwrap_err();
    assert_eq!(error.reason(), "ChecksumMismatch");
}

#[test]
fn limits_hold() {
    let scratch = tempfile::tempdir().unwrap();
    let bomb = compress(Compression::Gzip, &vec![0; 100 << 20]);
    for limits in [
        Limits {
            unpacked: 50 << 20,
            ..Limits::default()
        },
        Limits {
            ratio: 20,
            ..Limits::default()
        },
    ] {
        let options = Options {
            limits,
            ..options()
        };
        let file = file(scratch.path());
        let error = restore_to(&file, Memory::new(bomb.clone()), &options).unwrap_err();
        assert_eq!(error.reason(), "LimitExceeded", "{error}");
    }
}

/// A file system comes back, and is whole and can be mounted.
#[test]
fn a_file_system() {
    let scratch = tempfile::tempdir().unwrap();
    let original = scratch.path().join("ext4");
    File::create(&original).unwrap().set_len(64 << 20).unwrap();
    pack::output(Command::new("mkfs.ext4").arg("-q").arg(&original));
    let device = Device::new(64 << 20, 512);
    let object = pack::output(Command::new("zstd").arg("-qc").arg(&original));
    let outcome = restore(&device.open(), object).unwrap();
    assert!(outcome.holes > 32 << 20, "{outcome:?}");
    pack::output(Command::new("e2fsck").arg("-fn").arg(&device.path));
}

#[test]
fn cancelled_while_writing() {
    let scratch = tempfile::tempdir().unwrap();
    let script = "yes | head -c 2G | zstd -q1c";
    let object = pack::output(Command::new("sh").args(["-c", script]));
    let file = file(scratch.path());
    let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
    let canceller = std::thread::spawn({
        let (cancel, progress) = (cancel.clone(), Arc::clone(&progress));
        move || {
            while progress.snapshot().written < 8 << 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
            cancel.cancel();
            Instant::now()
        }
    });
    let error = archive::restore_image(
        Arc::new(Memory::new(object)),
        file.as_fd(),
        &options(),
        &progress,
        &cancel,
        RUNTIME.handle(),
    )
    .unwrap_err();
    let asked = canceller.join().unwrap();
    assert_eq!(error.reason(), "Cancelled");
    assert!(asked.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_file_for_an_image_is_made_where_nothing_else_is() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("lost+found")).unwrap();
    let root = File::open(scratch.path()).unwrap();
    let options = Options {
        ownership: Ownership::One { uid: 107, gid: 108 },
        ..options()
    };
    let (made, room) = archive::image_file(root.as_fd(), "disk.img", &options).unwrap();
    let content = vec![5; 70_000];
    let small = Options {
        image_room: Some(69_999),
        ..options.clone()
    };
    let file = file(&scratch.path().join("lost+found"));
    let error = restore_to(&file, Memory::new(content.clone()), &small).unwrap_err();
    assert_eq!(error.reason(), "DoesNotFit", "{error}");
    assert!(room > 70_000);
    restore_to(&File::from(made), Memory::new(content.clone()), &options).unwrap();
    let path = scratch.path().join("disk.img");
    let found = fs::metadata(&path).unwrap();
    let owner = (found.uid(), found.gid(), found.mode() & 0o7777);
    assert_eq!(owner, (107, 108, 0o660));
    assert_eq!(fs::read(&path).unwrap(), content);
    let error = archive::image_file(root.as_fd(), "other.img", &options).unwrap_err();
    assert_eq!(error.reason(), "VolumeNotEmpty", "{error}");
}
