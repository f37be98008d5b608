//! `populator inspect`: what an object is, and what is in it.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use archive::{Budget, Listed, Options, Progress, Source as _};
use clap::Args;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::CommandError;
use super::keys::Keys;
use super::place::Place;
use crate::units;

/// What to look at.
#[derive(Args, Debug)]
pub struct Inspect {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    keys: Keys,

    /// List the entries too, as `tar --list --verbose --numeric-owner --utc` does. All of the archive
    /// is read for it
    #[arg(long)]
    list: bool,
}

/// Looks at the object, and at its entries where that is wanted. That nobody reads on, as with
/// `| head`, is an end like any other.
pub async fn inspect(wanted: Inspect, stop: CancellationToken) -> Result<(), CommandError> {
    match look(wanted, stop).await {
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

async fn look(wanted: Inspect, stop: CancellationToken) -> Result<(), CommandError> {
    let options = wanted
        .keys
        .add_to(Options::new(Budget::new(Budget::DEFAULT)))?;
    let object = Arc::new(wanted.place.open().await?);
    let (runtime, source) = (Handle::current(), Arc::clone(&object));
    let (chosen, given_up) = (options.clone(), stop.clone());
    let identifying = tokio::task::spawn_blocking(move || {
        archive::identify(source, &chosen, &given_up, &runtime)
    });
    let identified = identifying.await?;
    let mut out = io::stdout();
    writeln!(out, "url: {}", wanted.place.url)?;
    writeln!(
        out,
        "size: {} ({} bytes)",
        units::bytes(object.length()),
        object.length()
    )?;
    if let Ok(format) = &identified {
        writeln!(out, "format: {format}")?;
    }
    for (what, value) in [("etag", object.etag()), ("version", object.version())] {
        if let Some(value) = value {
            writeln!(out, "{what}: {value}")?;
        }
    }
    writeln!(out, "modified: {}", object.modified())?;
    identified?;
    if !wanted.list {
        return Ok(());
    }
    let runtime = Handle::current();
    let listing = tokio::task::spawn_blocking(move || {
        let progress = Arc::new(Progress::default());
        let mut out = BufWriter::new(io::stdout().lock());
        let mut printed = Ok(());
        // When nobody reads it any more, there is nothing left to do.
        let given_up = stop.clone();
        let examined = archive::examine(object, &options, &progress, &stop, &runtime, |entry| {
            if printed.is_ok() {
                printed = line(&mut out, entry);
                if printed.is_err() {
                    given_up.cancel();
                }
            }
        });
        printed?;
        out.flush()?;
        examined.map_err(CommandError::from)
    });
    listing.await??;
    Ok(())
}

/// One entry, as tar(1) lists it.
fn line(out: &mut impl Write, entry: Listed<'_>) -> io::Result<()> {
    let (user, group) = entry.owner();
    let modified = jiff::Timestamp::from_second(entry.modified()).map_or_else(
        |_| entry.modified().to_string(),
        |time| time.strftime("%F %H:%M").to_string(),
    );
    write!(
        out,
        "{}{} {user}/{group} {:>9} {modified} {}",
        entry.kind(),
        permissions(entry.mode()),
        entry.size(),
        entry.name()
    )?;
    match (entry.kind(), entry.target()) {
        ('h', Some(target)) => writeln!(out, " link to {target}"),
        (_, Some(target)) => writeln!(out, " -> {target}"),
        (_, None) => writeln!(out),
    }
}

/// As ls(1) has them.
fn permissions(mode: u32) -> String {
    let special = [(0o4000, 's'), (0o2000, 's'), (0o1000, 't')];
    let mut text = String::with_capacity(9);
    for (shift, (bit, letter)) in [6, 3, 0].into_iter().zip(special) {
        let of = |mask: u32, letter| {
            if mode >> shift & mask != 0 {
                letter
            } else {
                '-'
            }
        };
        text.push(of(4, 'r'));
        text.push(of(2, 'w'));
        text.push(match (mode & bit != 0, of(1, 'x')) {
            (true, 'x') => letter,
            (true, _) => letter.to_ascii_uppercase(),
            (false, plain) => plain,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_as_ls_has_them() {
        for (mode, text) in [
            (0o755, "rwxr-xr-x"),
            (0o640, "rw-r-----"),
            (0o4755, "rwsr-xr-x"),
            (0o6644, "rwSr-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0o1000, "--------T"),
        ] {
            assert_eq!(permissions(mode), text, "{mode:o}");
        }
    }
}
