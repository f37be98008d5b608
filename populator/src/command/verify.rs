//! `populator verify`: whether an archive is whole, without writing anything.

use std::io::{self, Write};
use std::sync::Arc;

use archive::{Examined, ExaminedImage, Progress, Source as _};
use clap::Args;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::CommandError;
use super::bar::Bar;
use super::keys::Keys;
use super::place::Place;
use super::settings::Settings;
use crate::units;

/// What to read.
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    place: Place,

    /// It is the image of a disk and no archive
    #[arg(long)]
    image: bool,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    keys: Keys,
}

/// Reads all of it and checks whatever can be checked.
pub async fn verify(wanted: Verify, stop: CancellationToken) -> Result<(), CommandError> {
    let options = wanted.keys.add_to(wanted.settings.options())?;
    let object = Arc::new(wanted.place.open().await?);
    let progress = Arc::new(Progress::default());
    let bar = Bar::start(&progress, object.length());
    let runtime = Handle::current();
    let image = wanted.image;
    let examining = tokio::task::spawn_blocking(move || {
        if image {
            archive::examine_image(object, &options, &progress, &stop, &runtime).map(Whole::Image)
        } else {
            archive::examine(object, &options, &progress, &stop, &runtime, |_| {})
                .map(Whole::Archive)
        }
    });
    let examined = examining.await;
    drop(bar);
    Ok(tell(&wanted.place.url, &examined??, &mut io::stdout())?)
}

/// What was found to be whole.
enum Whole {
    Archive(Examined),
    Image(ExaminedImage),
}

fn tell(url: &str, whole: &Whole, out: &mut impl Write) -> io::Result<()> {
    let (bytes, elapsed, verified, sha256) = match whole {
        Whole::Archive(it) => (it.data, it.elapsed, it.verified, &it.sha256),
        Whole::Image(it) => (it.size, it.elapsed, it.verified, &it.sha256),
    };
    let (bytes, seconds) = (units::bytes(bytes), elapsed.as_secs_f64());
    writeln!(out, "{url} is whole: {bytes} of data in {seconds:.1} s")?;
    match whole {
        Whole::Archive(it) => writeln!(
            out,
            "  {}, {} entries: {} files, {} directories, {} links",
            it.format, it.entries, it.files, it.directories, it.links
        )?,
        Whole::Image(it) => writeln!(out, "  {}", it.format)?,
    }
    writeln!(out, "  verified: {verified}; sha256: {sha256}")
}
