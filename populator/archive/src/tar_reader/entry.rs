//! What the headers of one entry come to.

use super::header::{Block, Type};
use super::pax::Pax;
use super::{TarReader, sparse};
use crate::entry::{Device, Entry, Kind, Metadata, OwnerNames, Time};
use crate::error::{RestoreError, printable};
use crate::stream::Stream;

/// What the headers before an entry's own header said about it.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) pax: Pax,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) bytes: u64,
}

impl<S: Stream> TarReader<S> {
    /// The entry that `block` is the header of.
    pub(super) fn entry(
        &mut self,
        block: &Block,
        extended: Extended,
    ) -> Result<Entry, RestoreError> {
        let Extended {
            mut pax,
            long_name,
            long_link,
            ..
        } = extended;
        let is_named = pax.path.is_some();
        let path =
            one_of(pax.path.take(), long_name, || block.name()).map_err(|(one, other)| {
                RestoreError::corrupt(format!("{one} is called {other} too"))
            })?;
        let path = match &pax.sparse.name {
            Some(name) if !is_named || sparse::is_stand_in(&path, name) => name.clone(),
            _ => path,
        };
        self.current.clone_from(&path);
        let target = one_of(pax.linkpath.take(), long_link, || block.link());
        let target = target.map_err(|(one, other)| {
            let path = printable(&path);
            RestoreError::corrupt(format!("the link {path} points to {one} and to {other}"))
        })?;
        let stored = if block.kind().is_header_only() {
            0
        } else {
            pax.size.map_or_else(|| block.size(), Ok)?
        };
        self.begin_data(block, stored)?;
        if path.len() > self.limits.name {
            let why = format!("its name is longer than {} bytes", self.limits.name);
            return Err(RestoreError::refused(&path, why));
        }
        let kind = match block.kind() {
            Type::Regular if path.ends_with(b"/") => {
                if stored > 0 {
                    return Err(RestoreError::refused(
                        &path,
                        "it is a directory that has data",
                    ));
                }
                Kind::Directory
            }
            Type::Regular => Kind::File(self.layout(&pax, stored)?),
            Type::GnuSparse => Kind::File(self.gnu_sparse(block, &pax)?),
            Type::Directory | Type::GnuDumpDirectory => Kind::Directory,
            Type::Symlink => Kind::Symlink(target),
            Type::HardLink => Kind::HardLink(target),
            Type::Fifo => Kind::Fifo,
            Type::CharacterDevice => Kind::CharacterDevice(device(block, &pax)?),
            Type::BlockDevice => Kind::BlockDevice(device(block, &pax)?),
            Type::GnuMultiVolume => {
                let why = "it is the rest of a file from another volume of a multi-volume archive; \
                           make one archive of them";
                return Err(RestoreError::refused(&path, why));
            }
            Type::PaxLocal
            | Type::PaxGlobal
            | Type::GnuLongName
            | Type::GnuLongLink
            | Type::GnuVolumeLabel => unreachable!("next_entry keeps these to itself"),
            Type::Other(byte) => {
                let byte = printable(&[byte]);
                let why = format!("entries of type {byte} are not known; leave it out");
                return Err(RestoreError::refused(&path, why));
            }
        };
        pax.settle();
        let lost = std::mem::take(&mut pax.lost);
        let names = OwnerNames {
            user: pax.uname.take().unwrap_or_else(|| block.user_name()),
            group: pax.gname.take().unwrap_or_else(|| block.group_name()),
        };
        let metadata = metadata(block, pax)
            .map_err(|why| RestoreError::corrupt(format!("{}: {why}", printable(&path))))?;
        Ok(Entry {
            path,
            kind,
            metadata,
            names,
            lost,
        })
    }
}

/// What the extended headers say, or the header itself. Those of PAX and GNU may not contradict each
/// other, since some readers would follow the one and some the other.
fn one_of(
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
    header: impl FnOnce() -> Vec<u8>,
) -> Result<Vec<u8>, (String, String)> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err((printable(&pax), printable(&gnu))),
        (pax, gnu) => Ok(pax.or(gnu).unwrap_or_else(header)),
    }
}

fn device(block: &Block, pax: &Pax) -> Result<Device, RestoreError> {
    let (major, minor) = block.device((pax.devmajor, pax.devminor))?;
    Ok(Device { major, minor })
}

fn metadata(block: &Block, pax: Pax) -> Result<Metadata, String> {
    let id = |given: Option<u64>, header: Result<u64, String>, what: &str| {
        let id = given.map_or(header, Ok)?;
        // The highest number means "no change" to chown.
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| format!("its {what} is no valid number"))
    };
    let seconds = || {
        block.modified().map(|seconds| Time {
            seconds,
            nanoseconds: 0,
        })
    };
    Ok(Metadata {
        mode: block.mode()?,
        uid: id(pax.uid, block.owner(), "owner")?,
        gid: id(pax.gid, block.group(), "group")?,
        modified: pax.mtime.map_or_else(seconds, Ok)?,
        accessed: pax.atime,
        xattrs: pax.xattrs,
    })
}
