//! What is to be done to directories when nothing is written into them any more.
//!
//! Their owners, modes, default ACLs and times are kept until the end, in memory as far as they are
//! few and in an unlinked file on the volume beyond that, or in one of the checkpoints' directory. They are applied in the archive's order, so
//! that the last entry for a directory wins; for root, no directory's mode bars the way to another.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::metadata;
use super::root::Root;
use crate::checkpoint::Kept;
use crate::entry::{Metadata, Time, Xattr};
use crate::error::RestoreError;
use crate::outcome::Losses;

/// Bytes of records in memory before they go to the file.
const IN_MEMORY: usize = 1 << 20;

/// Where a file system cannot make a file without a name, it has this one for a moment.
const SPILL: &[u8] = b".restore-directories";

/// Directories to be finished.
#[derive(Default)]
pub(super) struct Directories {
    records: Vec<u8>,
    spilled: Option<File>,
    /// Bytes in that file, and their hash.
    length: u64,
    hash: Sha256,
}

impl Directories {
    /// A list in a file that outlives this process, with as much of it as belongs to a checkpoint; or
    /// what is odd about that. What is behind it is cut off.
    pub(super) fn kept(mut file: File, kept: &Kept) -> Result<Self, String> {
        let mut hash = Sha256::new();
        let failed = |error: io::Error| error.to_string();
        let mut length = 0;
        let mut known = BufReader::new(&file).take(kept.length);
        loop {
            let bytes = known.fill_buf().map_err(failed)?;
            let count = bytes.len();
            if count == 0 {
                break;
            }
            hash.update(bytes);
            length += count as u64;
            known.consume(count);
        }
        let is_it = kept.length == 0 || hex::encode(hash.clone().finalize()) == kept.sha256;
        if length != kept.length || !is_it {
            return Err("its list of directories is damaged".to_owned());
        }
        file.set_len(length).map_err(failed)?;
        file.seek(SeekFrom::Start(length)).map_err(failed)?;
        Ok(Self {
            records: Vec::new(),
            spilled: Some(file),
            length,
            hash,
        })
    }

    /// Makes the list durable where it is kept, for a checkpoint.
    pub(super) fn keep(&mut self) -> Result<Kept, RestoreError> {
        let failed = |error: io::Error| RestoreError::NodeError {
            what: format!("keeping the list of directories: {error}"),
        };
        if let Some(file) = &mut self.spilled {
            file.write_all(&self.records).map_err(failed)?;
            file.sync_data().map_err(failed)?;
            self.spilled_records();
        }
        Ok(Kept {
            length: self.length,
            sha256: hex::encode(self.hash.clone().finalize()),
        })
    }

    fn spilled_records(&mut self) {
        self.length += self.records.len() as u64;
        self.hash.update(&self.records);
        self.records.clear();
    }

    /// Keeps what the archive says about a directory.
    pub(super) fn add(
        &mut self,
        root: &Root,
        path: &[u8],
        metadata: &Metadata,
    ) -> Result<(), RestoreError> {
        encode(&mut self.records, path, metadata);
        if self.records.len() < IN_MEMORY {
            return Ok(());
        }
        let failed = |error: io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            RestoreError::volume("keeping a list with", path, errno)
        };
        if self.spilled.is_none() {
            self.spilled = Some(nameless(root).map_err(|errno| failed(errno.into()))?);
        }
        if let Some(file) = &mut self.spilled {
            file.write_all(&self.records).map_err(failed)?;
        }
        self.spilled_records();
        Ok(())
    }

    /// Applies everything that was kept.
    pub(super) fn finish(
        self,
        root: &mut Root,
        lost: &mut Losses,
        cancel: &CancellationToken,
    ) -> Result<(), RestoreError> {
        let unreadable = |error: io::Error| RestoreError::VolumeError {
            what: "reading the list of directories".to_owned(),
            source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let mut records: Box<dyn Read> = match self.spilled {
            Some(mut file) => {
                file.rewind().map_err(unreadable)?;
                Box::new(BufReader::new(file).chain(io::Cursor::new(self.records)))
            }
            None => Box::new(io::Cursor::new(self.records)),
        };
        while let Some((path, metadata)) = decode(&mut records).map_err(unreadable)? {
            if cancel.is_cancelled() {
                return Err(RestoreError::Cancelled);
            }
            let fd = match root.existing(&path) {
                Ok(fd) => fd,
                // A later entry put something else in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(RestoreError::volume("opening", &path, errno)),
            };
            metadata::apply(fd.as_fd(), &metadata, &path, lost)
                .map_err(|errno| RestoreError::volume("setting the metadata of", &path, errno))?;
        }
        Ok(())
    }
}

/// A file that goes away by itself.
fn nameless(root: &Root) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let fd = match openat(root.fd(), c".", flags | OFlags::TMPFILE, mode) {
        Ok(fd) => fd,
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let only_new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let fd = openat(root.fd(), SPILL, flags | only_new, mode)?;
            unlinkat(root.fd(), SPILL, AtFlags::empty())?;
            fd
        }
        Err(errno) => return Err(errno),
    };
    Ok(File::from(fd))
}

fn encode(to: &mut Vec<u8>, path: &[u8], metadata: &Metadata) {
    let Metadata {
        mode,
        uid,
        gid,
        modified,
        accessed,
        xattrs,
    } = metadata;
    put_bytes(to, path);
    for number in [*mode, *uid, *gid, u32::from(accessed.is_some())] {
        to.extend_from_slice(&number.to_le_bytes());
    }
    for time in [*modified, accessed.unwrap_or_default()] {
        to.extend_from_slice(&time.seconds.to_le_bytes());
        to.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
    put_length(to, xattrs.len());
    for xattr in xattrs {
        put_bytes(to, &xattr.name);
        put_bytes(to, &xattr.value);
    }
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_length(to, bytes.len());
    to.extend_from_slice(bytes);
}

fn put_length(to: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("extended headers are bounded far below 4 GiB");
    to.extend_from_slice(&length.to_le_bytes());
}

/// The next record, or `None` after the last.
fn decode(from: &mut impl Read) -> io::Result<Option<(Vec<u8>, Metadata)>> {
    let mut first = [0; 1];
    if from.read(&mut first)? == 0 {
        return Ok(None);
    }
    let from = &mut first.chain(from);
    let path = bytes(from)?;
    let (mode, uid, gid) = (number(from)?, number(from)?, number(from)?);
    let has_access = number(from)? != 0;
    let (modified, accessed) = (time(from)?, time(from)?);
    let mut xattrs = Vec::new();
    for _ in 0..number(from)? {
        let (name, value) = (bytes(from)?, bytes(from)?);
        xattrs.push(Xattr { name, value });
    }
    let accessed = has_access.then_some(accessed);
    Ok(Some((
        path,
        Metadata {
            mode,
            uid,
            gid,
            modified,
            accessed,
            xattrs,
        },
    )))
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(from: &mut impl Read) -> io::Result<u32> {
    array(from).map(u32::from_le_bytes)
}

fn time(from: &mut impl Read) -> io::Result<Time> {
    Ok(Time {
        seconds: i64::from_le_bytes(array(from)?),
        nanoseconds: number(from)?,
    })
}

fn bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = number(from)?;
    let mut bytes = Vec::new();
    let read = from.take(length.into()).read_to_end(&mut bytes)?;
    if read as u64 == u64::from(length) {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let plain = Metadata {
            mode: 0o755,
            ..Metadata::default()
        };
        let rich = Metadata {
            mode: 0o7777,
            uid: 1,
            gid: u32::MAX - 1,
            modified: Time {
                seconds: -5,
                nanoseconds: 999_999_999,
            },
            accessed: Some(Time {
                seconds: 1,
                nanoseconds: 2,
            }),
            xattrs: vec![
                Xattr {
                    name: b"user.empty".into(),
                    value: vec![],
                },
                Xattr {
                    name: b"user.bytes".into(),
                    value: (0..=255).collect(),
                },
            ],
        };
        let mut records = Vec::new();
        encode(&mut records, b"", &plain);
        encode(&mut records, b"a/b\n", &rich);
        let mut from = records.as_slice();
        assert_eq!(decode(&mut from).unwrap(), Some((vec![], plain)));
        assert_eq!(decode(&mut from).unwrap(), Some((b"a/b\n".to_vec(), rich)));
        assert_eq!(decode(&mut from).unwrap(), None);
    }
}
