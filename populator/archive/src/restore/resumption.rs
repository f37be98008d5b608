//! Whether a restore begins or goes on, and from what.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, ftruncate, openat};

use super::directories::Directories;
use super::keeper::Keeper;
use super::root::Root;
use crate::checkpoint::{Counts, Kept, Part, Record};
use crate::entry::{Kind, Layout};
use crate::error::RestoreError;
use crate::options::Options;
use crate::outcome::Losses;
use crate::path::BeneathRoot;
use crate::progress::Progress;
use crate::source::Source;

/// With what the writer begins.
#[derive(Default)]
pub(super) struct Begin {
    pub(super) keeper: Option<Keeper>,
    pub(super) directories: Directories,
    pub(super) lost: Losses,
    pub(super) omitted: Losses,
    pub(super) counts: Counts,
}

/// What an attempt before left.
pub(super) struct Left {
    pub(super) record: Record,
    /// The file that its checkpoint is in the middle of.
    pub(super) file: Option<Arc<OwnedFd>>,
}

/// Takes the directory, with what an attempt before left in it if that can be trusted. Otherwise it is to
/// be empty, as the options say.
pub(super) fn begin(
    source: &dyn Source,
    directory: BorrowedFd<'_>,
    options: &Options,
    progress: &Arc<Progress>,
) -> Result<(Root, Begin, Option<Left>), RestoreError> {
    let Some((mut keeper, record)) = Keeper::open(source, directory, options, progress)? else {
        let root = Root::new(directory, options, false)?;
        return Ok((root, Begin::default(), None));
    };
    if let Some(record) = record {
        let mut root = Root::new(directory, options, true)?;
        match take_up(&mut root, &keeper, &record, options) {
            Ok((directories, file)) => {
                keeper.go_on(&record);
                let begin = Begin {
                    keeper: Some(keeper),
                    directories,
                    lost: record.lost.clone(),
                    omitted: record.omitted.clone(),
                    counts: record.counts,
                };
                return Ok((root, begin, Some(Left { record, file })));
            }
            Err(why) => {
                tracing::warn!("the checkpoint is not used, {why}: the restore begins anew");
            }
        }
    }
    // Before anything of the state is touched: who cannot begin anew may yet go on.
    let root = Root::new(directory, options, false)?;
    let directories = Directories::kept(keeper.directories()?, &Kept::default());
    let directories = directories.map_err(|what| RestoreError::NodeError { what })?;
    let begin = Begin {
        keeper: Some(keeper),
        directories,
        ..Begin::default()
    };
    Ok((root, begin, None))
}

/// Opens what a record speaks of.
fn take_up(
    root: &mut Root,
    keeper: &Keeper,
    record: &Record,
    options: &Options,
) -> Result<(Directories, Option<Arc<OwnedFd>>), String> {
    let list = keeper.directories().map_err(|error| error.to_string())?;
    let directories = Directories::kept(list, &record.directories)?;
    let reopen = |part| reopen(root, part, options);
    let file = record.part.as_ref().map(reopen).transpose()?.map(Arc::new);
    Ok((directories, file))
}

/// Opens a file that is half written, and cuts off what is behind the part that is durable: it may have its
/// right length and none of its data.
fn reopen(root: &mut Root, part: &Part, options: &Options) -> Result<OwnedFd, String> {
    let Kind::File(layout) = &part.entry.kind else {
        return Err("the entry that it is in the middle of is no file".to_owned());
    };
    let path = BeneathRoot::parse(&part.entry.path)?.0;
    let path = options.selection.place(&path);
    let split = path.as_ref().and_then(BeneathRoot::split);
    let (parent, name) = split.ok_or("the file that it is in the middle of is not restored")?;
    let mut open = || {
        let parent = root.existing(parent)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::empty())?;
        let found = fstat(&file)?;
        Ok::<_, rustix::io::Errno>((file, found))
    };
    let (file, found) = open().map_err(|errno| format!("its file cannot be opened ({errno})"))?;
    let is_it = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && found.st_ino == part.inode
        && part.done <= layout.data();
    if !is_it {
        return Err("the file that it is in the middle of is another one".to_owned());
    }
    if let Layout::Dense(_) = layout {
        if u64::try_from(found.st_size).is_ok_and(|size| size < part.done) {
            return Err("the file that it is in the middle of has lost data".to_owned());
        }
        ftruncate(&file, part.done).map_err(|errno| format!("its file fails ({errno})"))?;
    }
    Ok(file)
}
