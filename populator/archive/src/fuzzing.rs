//! What the fuzzers in `fuzz/` call, and the tests that replay what they found. No part of the API.

use std::fmt;
use std::io::Read as _;

use tar::{Archive, EntryType};

use crate::entry::{Entry, Kind, Layout};
use crate::error::RestoreError;
use crate::limits::Limits;
use crate::stream::Memory;
use crate::tar_reader::{Mark, TarReader};

/// Sparse files beyond this size are not compared by their content: of their holes nothing is stored.
const EXPANDED_MAX: u64 = 1 << 20;

/// An entry as a reader sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name, without slashes at the end.
    pub name: Vec<u8>,
    /// One letter, as ls(1) has it; `h` for a hard link.
    pub kind: char,
    /// Bytes of a regular file, holes included.
    pub size: u64,
    /// Where a link points.
    pub target: Vec<u8>,
    /// Content of a regular file; `None` if it is sparse and larger than a megabyte.
    pub content: Option<Vec<u8>>,
}

impl fmt::Debug for Seen {
    /// In one line, and little of the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name, target) = (
            self.kind,
            self.name.escape_ascii(),
            self.target.escape_ascii(),
        );
        write!(f, "{kind} {name} {target} {}: ", self.size)?;
        let content = self.content.as_deref().unwrap_or(b"?");
        write!(f, "{}", content[..content.len().min(20)].escape_ascii())
    }
}

/// The entries of a tar archive as the engine reads them.
pub fn entries(bytes: &[u8]) -> Result<Vec<Seen>, RestoreError> {
    let limits = Limits {
        headers: 64 << 10,
        ..Limits::default()
    };
    let mut reader = TarReader::new(Memory::new(bytes), limits, Mark::default())?;
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut stored = Vec::new();
        loop {
            let data = reader.data()?;
            let count = data.len();
            if count == 0 {
                break;
            }
            stored.extend_from_slice(data);
            reader.consume(count);
        }
        all.push(seen(entry, stored));
    }
    Ok(all)
}

fn seen(entry: Entry, stored: Vec<u8>) -> Seen {
    let mut seen = Seen {
        name: without_slashes(entry.path),
        kind: 'd',
        size: 0,
        target: Vec::new(),
        content: Some(Vec::new()),
    };
    match entry.kind {
        Kind::File(layout) => {
            seen.kind = '-';
            (seen.size, seen.content) = expand(&layout, stored);
        }
        Kind::Directory => {}
        Kind::Symlink(target) => (seen.kind, seen.target) = ('l', target),
        Kind::HardLink(target) => (seen.kind, seen.target) = ('h', target),
        Kind::Fifo => seen.kind = 'p',
        Kind::CharacterDevice(_) => seen.kind = 'c',
        Kind::BlockDevice(_) => seen.kind = 'b',
    }
    seen
}

fn without_slashes(mut name: Vec<u8>) -> Vec<u8> {
    while name.len() > 1 && name.last() == Some(&b'/') {
        name.pop();
    }
    name
}

/// Size and content of a file of which so much is stored.
fn expand(layout: &Layout, stored: Vec<u8>) -> (u64, Option<Vec<u8>>) {
    let (size, extents) = match layout {
        Layout::Dense(size) => {
            assert_eq!(
                *size,
                stored.len() as u64,
                "the reader gave as much as it said"
            );
            return (*size, Some(stored));
        }
        Layout::Sparse { size, extents } => (*size, extents),
    };
    let total: u64 = extents.iter().map(|extent| extent.length).sum();
    assert_eq!(total, stored.len() as u64, "the map covers what is stored");
    let mut end = 0;
    for extent in extents {
        assert!(extent.offset >= end, "the extents are in order");
        end = extent.offset + extent.length;
    }
    assert!(end <= size, "the extents are within the file");
    if size > EXPANDED_MAX {
        return (size, None);
    }
    let mut content = Vec::new();
    let mut rest = stored.as_slice();
    for extent in extents {
        content.resize(usize::try_from(extent.offset).unwrap_or_default(), 0);
        let (data, after) = rest.split_at(usize::try_from(extent.length).unwrap_or_default());
        content.extend_from_slice(data);
        rest = after;
    }
    content.resize(usize::try_from(size).unwrap_or_default(), 0);
    (size, Some(content))
}

/// Reads an index: the end of an object, its header and its records, not compressed. How many
/// records there were.
pub fn index(bytes: &[u8]) -> u64 {
    crate::index::reader::fuzzing::read(bytes)
}

/// Reads `bytes` with the engine and with the `tar` crate. Panics if both take them for an archive
/// and see different things in it; what they are known to differ in is not compared.
pub fn compare(bytes: &[u8]) {
    let Ok(ours) = entries(bytes) else { return };
    if let Ok(Some(theirs)) = peer(bytes) {
        assert_eq!(ours, theirs, "the engine and the tar crate differ");
    }
}

/// The entries as the `tar` crate sees them; `None` where it is known to see others:
///
/// - it applies no global PAX header, and no PAX sparse map;
/// - it takes a newline in a PAX value for the end of the record;
/// - it does not end a GNU long name at the first NUL in it;
/// - it passes over data where a link, a directory or a device states a size (`Type::is_header_only`);
/// - it knows neither Solaris' `X` nor extended headers without a magic, and shows them as entries,
///   and so it does with volume labels and the lists of names in GNU's incremental archives.
fn peer(bytes: &[u8]) -> std::io::Result<Option<Vec<Seen>>> {
    let mut archive = Archive::new(bytes);
    let mut all = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let header = entry.header();
        let kind = header.entry_type();
        let marked = header.as_ustar().is_some() || header.as_gnu().is_some();
        let mut seen = Seen {
            name: without_slashes(entry.path_bytes().into_owned()),
            kind: letter(kind),
            size: 0,
            target: Vec::new(),
            content: Some(Vec::new()),
        };
        // `ustar` without the version, and star's shorter prefix.
        let odd = header.as_bytes()[257..262] == *b"ustar" && !marked
            || header.as_bytes()[508..] == *b"tar\0";
        if odd || seen.kind == '?' || seen.kind != '-' && entry.size() > 0 {
            return Ok(None);
        }
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let Ok(extension) = extension else {
                    return Ok(None);
                };
                if extension.key_bytes().starts_with(b"GNU.sparse.") {
                    return Ok(None);
                }
            }
        }
        match seen.kind {
            'l' | 'h' => seen.target = entry.link_name_bytes().unwrap_or_default().into_owned(),
            '-' if !kind.is_gnu_sparse() && entry.path_bytes().ends_with(b"/") => seen.kind = 'd',
            '-' => {
                seen.size = entry.size();
                seen.content = None;
                if !kind.is_gnu_sparse() || seen.size <= EXPANDED_MAX {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    if content.len() as u64 != seen.size {
                        return Ok(None);
                    }
                    seen.content = Some(content);
                }
            }
            _ => {}
        }
        if seen.name.contains(&0) || seen.target.contains(&0) {
            return Ok(None);
        }
        all.push(seen);
    }
    Ok(Some(all))
}

fn letter(kind: EntryType) -> char {
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => '-',
        EntryType::Directory => 'd',
        EntryType::Symlink => 'l',
        EntryType::Link => 'h',
        EntryType::Fifo => 'p',
        EntryType::Char => 'c',
        EntryType::Block => 'b',
        _ => '?',
    }
}

#[cfg(test)]
mod tests;
