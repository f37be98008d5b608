//! `populator verify`: whether an archive is whole, without writing anything.

use std::io::{self, Write as _};
use std::sync::Arc;

use archive::{Progress, Source as _};
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
    let examining = tokio::task::spawn_blocking(move || {
        archive::examine(object, &options, &progress, &stop, &runtime, |_| {})
    });
    let examined = examining.await;
    drop(bar);
    let found = examined??;
    let mut out = io::stdout();
    writeln!(
        out,
        "{} is whole: {} of data in {:.1} s",
        wanted.place.url,
        units::bytes(found.data),
        found.elapsed.as_secs_f64()
    )?;
    writeln!(
        out,
        "  {}, {} entries: {} files, {} directories, {} links",
        found.format, found.entries, found.files, found.directories, found.links
    )?;
    writeln!(
        out,
        "  verified: {}; sha256: {}",
        found.verified, found.sha256
    )?;
    Ok(())
}
