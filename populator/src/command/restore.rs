//! `populator restore`: an archive into a directory, or the image of a disk onto one.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use archive::{
    Checkpoints, Devices, Existing, Losses, Options, Outcome, Progress, RestoreError, Retry,
    Selection, Source as _, Wishes,
};
use clap::{Args, ValueEnum};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::CommandError;
use super::bar::Bar;
use super::keys::Keys;
use super::owners::Owners;
use super::place::Place;
use super::settings::Settings;
use crate::units;

mod image;

/// What to restore, and where to.
#[derive(Args, Debug)]
pub struct Restore {
    #[command(flatten)]
    place: Place,

    /// An empty directory (`lost+found` apart); made, for root alone, where it is missing. Or a block
    /// device, onto which the image of a disk is written; nothing else may use it
    target: PathBuf,

    /// The target is a file, made for root alone, into which the image of a disk is written
    #[arg(long)]
    image: bool,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    keys: Keys,

    /// Restore only what this glob matches, such as `data/**/*.db`; a directory stands for all that is
    /// beneath it. Several are allowed
    #[arg(long, value_name = "GLOB", help_heading = "Choice")]
    include: Vec<String>,

    /// Leave out what this glob matches, whatever is included. Several are allowed
    #[arg(long, value_name = "GLOB", help_heading = "Choice")]
    exclude: Vec<String>,

    /// Restore only what is beneath this directory of the archive, as if it were its root
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    #[arg(help_heading = "Choice")]
    sub_path: String,

    /// Take so many leading parts off each name
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Choice")]
    strip_components: usize,

    /// What to do where the directory is not empty
    #[arg(long, value_enum, default_value_t = ExistingFiles::Refuse, help_heading = "Choice")]
    existing: ExistingFiles,

    /// Make the device nodes of the archive, which otherwise fail the restore
    #[arg(long, help_heading = "Choice")]
    devices: bool,

    /// Keep checkpoints in this directory, outside of the one that is restored into: where the restore is
    /// interrupted, by whatever it is, the same command goes on from the last. It is removed in the end
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "existing")]
    state: Option<PathBuf>,

    /// Fail where the file system does not take something, such as an attribute, instead of telling
    #[arg(long, help_heading = "Choice")]
    strict: bool,

    #[command(flatten)]
    owners: Owners,
}

/// [`Existing`], on a command line.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum ExistingFiles {
    /// Restore nothing
    Refuse,
    /// Replace files of the same name, keep all others
    Overwrite,
    /// Keep files of the same name
    Keep,
}

impl Restore {
    fn options(&self) -> Result<Options, CommandError> {
        let selection = Selection::new(&Wishes {
            include: &self.include,
            exclude: &self.exclude,
            sub_path: &self.sub_path,
            strip_components: self.strip_components,
        })?;
        let mut options = Options {
            selection,
            existing: match self.existing {
                ExistingFiles::Refuse => Existing::Refuse,
                ExistingFiles::Overwrite => Existing::Overwrite,
                ExistingFiles::Keep => Existing::Keep,
            },
            devices: if self.devices {
                Devices::Create
            } else {
                Devices::Refuse
            },
            strict: self.strict,
            checkpoints: self.state.as_ref().map(Checkpoints::new),
            ..self.settings.options()
        };
        self.owners.choose(&mut options)?;
        Ok(options)
    }

    /// The first flag that makes no sense for an image.
    fn about_entries(&self) -> Option<&'static str> {
        let given = [
            (!self.include.is_empty(), "--include"),
            (!self.exclude.is_empty(), "--exclude"),
            (!self.sub_path.is_empty(), "--sub-path"),
            (self.strip_components > 0, "--strip-components"),
            (self.existing == ExistingFiles::Keep, "--existing keep"),
            (self.devices, "--devices"),
            (self.strict, "--strict"),
            (self.state.is_some(), "--state"),
        ];
        given.iter().find(|(is, _)| *is).map(|(_, flag)| *flag)
    }
}

/// Restores all of it, durably, or fails.
pub async fn restore(wanted: Restore, stop: CancellationToken) -> Result<(), CommandError> {
    let is_device =
        std::fs::metadata(&wanted.target).is_ok_and(|target| target.file_type().is_block_device());
    if is_device || wanted.image {
        image::restore(wanted, is_device, stop).await
    } else {
        entries(wanted, stop).await
    }
}

async fn entries(wanted: Restore, stop: CancellationToken) -> Result<(), CommandError> {
    let options = wanted.keys.add_to(wanted.options()?)?;
    let object = Arc::new(wanted.place.open().await?);
    let directory = open(&wanted.target).map_err(|source| CommandError::Directory {
        path: wanted.target.clone(),
        source,
    })?;
    let progress = Arc::new(Progress::default());
    let counted = Arc::clone(&progress);
    let bar = Bar::start(&progress, object.length());
    let runtime = Handle::current();
    let restoring = tokio::task::spawn_blocking(move || {
        archive::restore(
            object,
            directory.as_fd(),
            &options,
            &progress,
            &stop,
            &runtime,
        )
    });
    let restored = restoring.await;
    drop(bar);
    let outcome = restored?.map_err(|source| CommandError::Restore {
        begun: !matches!(source, RestoreError::VolumeNotEmpty { .. })
            && counted.snapshot().entries > 0,
        goes_on: wanted.state.is_some() && source.retry() == Retry::Transient,
        source,
        target: wanted.target.clone(),
    })?;
    Ok(tell(&wanted, &outcome, &mut io::stdout())?)
}

fn open(path: &PathBuf) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let directory = File::open(path)?;
    if directory.metadata()?.is_dir() {
        Ok(directory)
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

/// The first line of what is told.
fn done(wanted: &Restore, written: u64, took: Duration, out: &mut impl Write) -> io::Result<()> {
    let seconds = took.as_secs_f64().max(1e-9);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "for people"
    )]
    let rate = (written as f64 / seconds) as u64;
    writeln!(
        out,
        "restored {} into {}: {} in {seconds:.1} s ({})",
        wanted.place.url,
        wanted.target.display(),
        units::bytes(written),
        units::rate(rate),
    )
}

fn tell(wanted: &Restore, outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    done(wanted, outcome.bytes_written, outcome.elapsed, out)?;
    writeln!(
        out,
        "  {}, {} entries: {} files, {} directories, {} links",
        outcome.format, outcome.entries, outcome.files, outcome.directories, outcome.links
    )?;
    writeln!(
        out,
        "  verified: {}; sha256: {}",
        outcome.verified, outcome.sha256
    )?;
    if let Some(from) = outcome.resumed_at {
        writeln!(
            out,
            "  went on from byte {from} of the object; fetched again: {}",
            units::bytes(outcome.fetched_again)
        )?;
    }
    if outcome.left_out > 0 {
        writeln!(out, "  left out: {} entries", outcome.left_out)?;
    }
    list(out, "left out by choice", &outcome.omitted)?;
    list(out, "not restored", &outcome.lost)
}

fn list(out: &mut impl Write, what: &str, kinds: &Losses) -> io::Result<()> {
    for (kind, loss) in kinds.iter() {
        let (count, examples) = (loss.count, loss.examples.join(", "));
        writeln!(out, "  {what}: {kind}, {count} times: {examples}")?;
    }
    Ok(())
}
