//! `populator pack`: a directory becomes an archive of our own.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use archive::{Budget, PackOptions, Packed, Progress, Survey};
use clap::Args;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::CommandError;
use super::bar::Bar;
use super::place::Place;
use super::settings::memory;
use crate::store::Upload;
use crate::units;

/// What to pack, and where to.
#[derive(Args, Debug)]
pub struct Pack {
    /// The directory whose contents are packed; other file systems mounted in it are left out
    directory: PathBuf,

    #[command(flatten)]
    place: Place,

    /// How much to compress, 1 (fast) to 19 (small); the same level gives the same archive
    #[arg(long, value_name = "LEVEL", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,

    /// Replace the object if it is there
    #[arg(long)]
    overwrite: bool,

    /// Memory for buffers; levels above 12 take more, for each processor
    #[arg(long, value_name = "QUANTITY", default_value = "64Mi", value_parser = memory)]
    memory: u64,
}

/// Makes the object, or nothing.
pub async fn pack(wanted: Pack, stop: CancellationToken) -> Result<(), CommandError> {
    let unreadable = |source| CommandError::Unreadable {
        path: wanted.directory.clone(),
        source,
    };
    let directory = File::open(&wanted.directory).map_err(unreadable)?;
    if !directory.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::NotADirectory.into()));
    }
    let directory = Arc::new(directory);
    let (looked_at, cancel) = (Arc::clone(&directory), stop.clone());
    let survey = tokio::task::spawn_blocking(move || archive::survey(looked_at.as_fd(), &cancel));
    let survey = survey.await??;
    let length = stored_at_most(&survey);
    let mut upload = wanted.place.create(length, wanted.overwrite).await?;

    let rest = wanted.memory.saturating_sub(Upload::memory(length));
    let options = PackOptions {
        level: wanted.level,
        ..PackOptions::new(Budget::new(rest))
    };
    let progress = Arc::new(Progress::default());
    let bar = Bar::start(&progress, survey.data);
    let runtime = Handle::current();
    let packing = tokio::task::spawn_blocking(move || {
        let fd = directory.as_fd();
        let packed = archive::pack(fd, &mut upload, &options, &progress, &stop, &runtime);
        (packed, upload)
    });
    let (packed, upload) = packing.await?;
    drop(bar);
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => {
            upload.abandon().await;
            return Err(error.into());
        }
    };
    upload.complete().await.map_err(archive::PackError::Store)?;
    Ok(tell(&wanted, &packed, &mut io::stdout())?)
}

/// Data that do not compress, and what each entry takes besides.
fn stored_at_most(survey: &Survey) -> u64 {
    survey.data + survey.data / 50 + survey.entries * 2048
}

fn tell(wanted: &Pack, packed: &Packed, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "packed {} into {}: {} became {} in {:.1} s",
        wanted.directory.display(),
        wanted.place.url,
        units::bytes(packed.data),
        units::bytes(packed.stored),
        packed.elapsed.as_secs_f64()
    )?;
    writeln!(
        out,
        "  {} entries: {} files, {} directories, {} links",
        packed.entries, packed.files, packed.directories, packed.links
    )?;
    writeln!(out, "  sha256: {}", packed.sha256)?;
    for (kind, loss) in packed.left_out.iter() {
        let examples = loss.examples.join(", ");
        writeln!(out, "  left out: {kind}, {} times: {examples}", loss.count)?;
    }
    Ok(())
}
