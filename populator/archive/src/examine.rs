//! Reads an archive to its end without writing anything: what is in it, and whether it is whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::entry::{Entry, Kind, Layout};
use crate::error::{RestoreError, printable};
use crate::format::{Content, Format};
use crate::options::Options;
use crate::outcome::Verified;
use crate::path::BeneathRoot;
use crate::progress::Progress;
use crate::reading::{Aim, Reading};
use crate::source::Source;
use crate::stream::Stream as _;

/// An archive that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// What the object is.
    pub format: Format,
    /// Its entries, of every kind.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Directories among them.
    pub directories: u64,
    /// Symbolic and hard links among them.
    pub links: u64,
    /// Bytes of file data, holes apart: what a volume needs, without the file system's own.
    pub data: u64,
    /// How far the data are known to be right.
    pub verified: Verified,
    /// SHA-256 of the stored object, in hexadecimal.
    pub sha256: String,
    /// From the call to the end.
    pub elapsed: Duration,
}

/// An image that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExaminedImage {
    /// What the object is.
    pub format: Format,
    /// Bytes of the image: what a device needs at least.
    pub size: u64,
    /// How far the data are known to be right.
    pub verified: Verified,
    /// SHA-256 of the stored object, in hexadecimal.
    pub sha256: String,
    /// From the call to the end.
    pub elapsed: Duration,
}

/// An entry as people see it.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a>(&'a Entry);

impl Listed<'_> {
    /// Its name, fit for printing: in quotes where not every character of it is.
    pub fn name(&self) -> String {
        plain(&self.0.path)
    }

    /// What a link points to, fit for printing.
    pub fn target(&self) -> Option<String> {
        match &self.0.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => Some(plain(target)),
            _ => None,
        }
    }

    /// One letter, as ls(1) has it; `h` for a hard link, as tar(1) has it.
    pub fn kind(&self) -> char {
        match self.0.kind {
            Kind::File(_) => '-',
            Kind::Directory => 'd',
            Kind::Symlink(_) => 'l',
            Kind::HardLink(_) => 'h',
            Kind::Fifo => 'p',
            Kind::CharacterDevice(_) => 'c',
            Kind::BlockDevice(_) => 'b',
        }
    }

    /// Permissions, setuid, setgid and sticky.
    pub fn mode(&self) -> u32 {
        self.0.metadata.mode
    }

    /// Owner and group, by number.
    pub fn owner(&self) -> (u32, u32) {
        (self.0.metadata.uid, self.0.metadata.gid)
    }

    /// Bytes of a regular file, holes included.
    pub fn size(&self) -> u64 {
        match &self.0.kind {
            Kind::File(Layout::Dense(size) | Layout::Sparse { size, .. }) => *size,
            _ => 0,
        }
    }

    /// When it was last written, in seconds since 1970.
    pub fn modified(&self) -> i64 {
        self.0.metadata.modified.seconds
    }
}

/// Reads all of `source`, checks every checksum and every name, and shows each entry to `see`.
///
/// Blocks the calling thread, which is none of `runtime`'s workers (that panics). `cancel` ends it
/// within a second.
pub fn examine(
    source: Arc<dyn Source>,
    options: &Options,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    runtime: &Handle,
    mut see: impl FnMut(Listed<'_>),
) -> Result<Examined, RestoreError> {
    let aim = Aim {
        content: Content::Tar,
        memory: 0,
        from: None,
    };
    let mut reading = Reading::begin(source, aim, options, progress, cancel, runtime)?;
    let mut reader = reading.entries(options)?;
    let (mut files, mut directories, mut links, mut data) = (0, 0, 0, 0_u64);
    while let Some(entry) = reader.next_entry()? {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        let shown = entry.path.as_slice();
        BeneathRoot::parse(shown).map_err(|why| RestoreError::refused(shown, why))?;
        match &entry.kind {
            Kind::File(layout) => {
                files += 1;
                data = data.saturating_add(layout.data());
            }
            Kind::Directory => directories += 1,
            Kind::Symlink(_) | Kind::HardLink(_) => links += 1,
            Kind::Fifo | Kind::CharacterDevice(_) | Kind::BlockDevice(_) => {}
        }
        see(Listed(&entry));
        if reader.has_index() {
            reader.use_up()?;
        }
        progress.add_entry();
    }
    let (entries, begun) = (reader.entries(), reading.begun);
    let read = reading.end(options)?;
    Ok(Examined {
        format: read.format,
        entries,
        files,
        directories,
        links,
        data,
        verified: read.verified,
        sha256: read.sha256,
        elapsed: begun.elapsed(),
    })
}

/// The same for the image of a disk: reads all of it and checks every checksum.
pub fn examine_image(
    source: Arc<dyn Source>,
    options: &Options,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    runtime: &Handle,
) -> Result<ExaminedImage, RestoreError> {
    let aim = Aim {
        content: Content::Raw,
        memory: 0,
        from: None,
    };
    let mut reading = Reading::begin(source, aim, options, progress, cancel, runtime)?;
    loop {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        let count = reading.content.fill()?.len();
        if count == 0 {
            break;
        }
        reading.content.consume(count);
    }
    let (size, begun) = (reading.content.position(), reading.begun);
    let read = reading.end(options)?;
    Ok(ExaminedImage {
        format: read.format,
        size,
        verified: read.verified,
        sha256: read.sha256,
        elapsed: begun.elapsed(),
    })
}

fn plain(name: &[u8]) -> String {
    let shown = printable(name);
    match shown.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        Some(inside) if inside.as_bytes() == name => inside.to_owned(),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(plain("a file/ä".as_bytes()), "a file/ä");
        assert_eq!(plain(b"a\nb"), r#""a\x0ab""#);
        assert_eq!(plain(br#"a"b"#), r#""a\"b""#);
    }
}
