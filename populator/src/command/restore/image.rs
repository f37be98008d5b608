//! The image of a disk, onto a block device or into a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use archive::{Existing, Progress, RestoreError, Source as _};
use rustix::fs::{Mode, OFlags, open};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::super::CommandError;
use super::super::bar::Bar;
use super::{Restore, done};
use crate::units;

/// Restores all of it, durably, or fails.
pub(super) async fn restore(
    wanted: Restore,
    is_device: bool,
    stop: CancellationToken,
) -> Result<(), CommandError> {
    if let Some(flag) = wanted.about_entries() {
        return Err(CommandError::NoEntries { flag });
    }
    let options = wanted.keys.add_to(wanted.options()?)?;
    let object = Arc::new(wanted.place.open().await?);
    let opened = if is_device {
        device(&wanted.target)
    } else {
        file(&wanted.target, options.existing)
    };
    let target = opened.map_err(|source| CommandError::Image {
        path: wanted.target.clone(),
        source,
    })?;
    let progress = Arc::new(Progress::default());
    let counted = Arc::clone(&progress);
    let bar = Bar::start(&progress, object.length());
    let runtime = Handle::current();
    let restoring = tokio::task::spawn_blocking(move || {
        archive::restore_image(object, target.as_fd(), &options, &progress, &stop, &runtime)
    });
    let restored = restoring.await;
    drop(bar);
    let outcome = restored?.map_err(|source| CommandError::Restore {
        begun: !matches!(source, RestoreError::VolumeNotEmpty { .. })
            && counted.snapshot().written > 0,
        goes_on: false,
        source,
        target: wanted.target.clone(),
    })?;
    let mut out = io::stdout();
    done(&wanted, outcome.bytes_written, outcome.elapsed, &mut out)?;
    let (size, holes) = (units::bytes(outcome.size), units::bytes(outcome.holes));
    writeln!(out, "  {}, {size}, {holes} of it holes", outcome.format)?;
    let (verified, sha256) = (outcome.verified, outcome.sha256);
    writeln!(out, "  verified: {verified}; sha256: {sha256}")?;
    Ok(())
}

/// Alone: it is refused while it is mounted, or part of something else (open(2), `O_EXCL`).
fn device(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::EXCL | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?.into())
}

/// A new file, or one that may be overwritten; its name is durable.
fn file(path: &Path, existing: Existing) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    let file = match existing {
        Existing::Overwrite => options.create(true).truncate(false).open(path)?,
        Existing::Refuse | Existing::Keep => options.create_new(true).open(path)?,
    };
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}
