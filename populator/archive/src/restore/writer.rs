//! The last stage: entries become files, one after the other, but for small files, which are handed over
//! to a [`Crew`].

use std::borrow::Cow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, fstat, linkat, makedev, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::choice;
use super::content::{Aligned, Content, ContentError};
use super::crew::{Crew, SmallFile};
use super::directories::Directories;
use super::keeper::Keeper;
use super::metadata;
use super::pending::Pending;
use super::place::Place;
use super::resumption::Begin;
use super::root::Root;
use crate::checkpoint::{Counts, Part};
use crate::entry::{Device, Entry, Kind, Layout, Metadata};
use crate::error::{RestoreError, printable};
use crate::options::{Devices, Existing, Options};
use crate::outcome::Losses;
use crate::path::BeneathRoot;
use crate::progress::Progress;
use crate::stream::Stream;
use crate::tar_reader::TarReader;

mod keeping;

/// The longest part of a path.
const NAME_MAX: usize = 255;

/// The longest target of a symbolic link.
const TARGET_MAX: usize = 4095;

/// Puts entries in place.
pub(super) struct Writer<'a> {
    root: Root,
    directories: Directories,
    content: Content<'a>,
    crew: Crew,
    pending: Pending,
    cancel: &'a CancellationToken,
    options: &'a Options,
    keeper: Option<Keeper>,
    lost: Losses,
    omitted: Losses,
    pub(super) counts: Counts,
}

/// What was made, and what not.
pub(super) struct Done {
    pub(super) counts: Counts,
    pub(super) lost: Losses,
    /// By choice.
    pub(super) omitted: Losses,
    /// Bytes of the object.
    pub(super) fetched_again: u64,
    /// How long `syncfs` took.
    pub(super) syncing: Duration,
}

impl<'a> Writer<'a> {
    /// Begins, or goes on from what an attempt before left.
    pub(super) fn new(
        root: Root,
        options: &'a Options,
        progress: &'a Arc<Progress>,
        cancel: &'a CancellationToken,
        begin: Begin,
    ) -> Result<Self, RestoreError> {
        Ok(Self {
            root,
            directories: begin.directories,
            content: Content::new(progress, cancel),
            crew: Crew::start(progress, cancel)?,
            pending: Pending::default(),
            cancel,
            options,
            keeper: begin.keeper,
            lost: begin.lost,
            omitted: begin.omitted,
            counts: begin.counts,
        })
    }

    /// Makes what `entry` says; its data come from `reader`.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<(), RestoreError> {
        self.keep(|| reader.before())?;
        let shown = entry.path.as_slice();
        let (path, absolute) =
            BeneathRoot::parse(shown).map_err(|why| RestoreError::refused(shown, why))?;
        let Some(path) = self.options.selection.place(&path) else {
            self.counts.left_out += 1;
            return Ok(());
        };
        self.protect(&path, &entry.kind, reader)?;
        if absolute {
            self.lost.add("leading / of a name", shown);
        }
        for kind in &entry.lost {
            self.lost.add(kind, shown);
        }
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                Kind::Directory => {
                    let metadata = self.chosen(entry);
                    self.finish_later(&path, &metadata)
                }
                _ => Err(RestoreError::refused(
                    shown,
                    "it would take the place of the root",
                )),
            };
        };
        let is_directory = matches!(entry.kind, Kind::Directory);
        if self.pending.are_many() || self.pending.concerns(path.as_bytes(), !is_directory) {
            self.settle()?;
        }
        let parent = self
            .root
            .directory(parent)
            .map_err(|errno| RestoreError::volume("making the directory of", shown, errno))?;
        let place = Place {
            parent: &parent,
            name,
            shown,
        };
        if self.options.existing == Existing::Keep && place.is_kept(&entry.kind)? {
            self.counts.left_out += 1;
            return Ok(());
        }
        let metadata = &*self.chosen(entry);
        match &entry.kind {
            Kind::File(layout) => {
                if let Some(content) = small(layout) {
                    self.pending.add(path.as_bytes());
                    return self.small_file(&place, content, metadata, reader);
                }
                let metadata = metadata.clone();
                let chosen = Entry {
                    metadata,
                    ..entry.clone()
                };
                self.file(&place, &chosen, layout, reader)
            }
            Kind::Directory => {
                self.directory(&place)?;
                self.finish_later(&path, metadata)
            }
            Kind::Symlink(target) => self.symlink(&place, target, metadata),
            Kind::HardLink(target) => self.hard_link(&place, target),
            Kind::Fifo => self.node(
                &place,
                FileType::Fifo,
                Device { major: 0, minor: 0 },
                metadata,
            ),
            Kind::CharacterDevice(device) => {
                self.device(&place, FileType::CharacterDevice, *device, metadata)
            }
            Kind::BlockDevice(device) => {
                self.device(&place, FileType::BlockDevice, *device, metadata)
            }
        }
    }

    fn chosen<'e>(&mut self, entry: &'e Entry) -> Cow<'e, Metadata> {
        choice::chosen(entry, self.options, &mut self.lost, &mut self.omitted)
    }

    /// Waits until all that was handed over is there.
    fn settle(&mut self) -> Result<(), RestoreError> {
        if self.crew.settle()? {
            self.root.forget();
        }
        self.pending.clear();
        Ok(())
    }

    /// Finishes the directories and makes everything durable.
    pub(super) fn finish(mut self) -> Result<Done, RestoreError> {
        self.settle()?;
        self.lost.merge(self.crew.lost());
        self.directories
            .finish(&mut self.root, &mut self.lost, self.cancel)?;
        if self.options.strict && !self.lost.is_empty() {
            return Err(RestoreError::MetadataLost { lost: self.lost });
        }
        let written = Instant::now();
        self.root.sync()?;
        let syncing = written.elapsed();
        let fetched_again = match self.keeper {
            Some(keeper) => keeper.finish(&self.root)?,
            None => 0,
        };
        Ok(Done {
            counts: self.counts,
            lost: self.lost,
            omitted: self.omitted,
            fetched_again,
            syncing,
        })
    }

    /// Its data are read, and the rest is left to the crew.
    fn small_file(
        &mut self,
        place: &Place<'_>,
        mut content: Aligned,
        metadata: &Metadata,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<(), RestoreError> {
        content.read(reader)?;
        self.counts.files += 1;
        self.crew.hand_over(SmallFile {
            parent: Arc::clone(place.parent),
            name: place.name.to_vec(),
            shown: place.shown.to_vec(),
            metadata: metadata.clone(),
            content,
        })
    }

    fn file(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        layout: &Layout,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<(), RestoreError> {
        let file = self
            .make(place, || place.create())
            .map_err(place.failed("creating"))?;
        self.fill(&Arc::new(file), entry, layout, 0, reader)
    }

    /// Goes on with the file that the last checkpoint is in the middle of, which has nothing behind what
    /// is done of it.
    pub(super) fn go_on(
        &mut self,
        file: &Arc<OwnedFd>,
        part: &Part,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<(), RestoreError> {
        match &part.entry.kind {
            Kind::File(layout) => self.fill(file, &part.entry, layout, part.done, reader),
            // The record's reader has looked.
            _ => Ok(()),
        }
    }

    /// Writes what a file holds behind `done` bytes of its data, and its metadata.
    fn fill(
        &mut self,
        file: &Arc<OwnedFd>,
        entry: &Entry,
        layout: &Layout,
        mut done: u64,
        reader: &mut TarReader<impl Stream>,
    ) -> Result<(), RestoreError> {
        let failed = |doing| move |errno| RestoreError::volume(doing, entry.path.as_slice(), errno);
        loop {
            let keeper = self.keeper.as_ref();
            let pause = || keeper.is_some_and(Keeper::is_due);
            let written = self.content.write(file, layout, done, &pause, reader);
            done = written.map_err(|error| match error {
                ContentError::Archive(error) => error,
                ContentError::Volume(errno) => failed("writing")(errno),
            })?;
            if done == layout.data() {
                break;
            }
            let inode = fstat(file).map_err(failed("looking at"))?.st_ino;
            let entry = entry.clone();
            if let Some(here) = reader.here() {
                self.checkpoint(here, Some(Part { entry, inode, done }), false)?;
            }
        }
        metadata::apply(file.as_fd(), &entry.metadata, &entry.path, &mut self.lost)
            .map_err(failed("setting the metadata of"))?;
        self.counts.files += 1;
        Ok(())
    }

    /// A directory that is there already stays, with what is in it.
    fn directory(&mut self, place: &Place<'_>) -> Result<(), RestoreError> {
        let make = || mkdirat(place.parent, place.name, Mode::RWXU);
        let made = match make() {
            Err(Errno::EXIST) => match place.file_type() {
                Ok(FileType::Directory) => Ok(()),
                Ok(_) => self
                    .root
                    .remove(place.parent, place.name)
                    .and_then(|()| make()),
                Err(errno) => Err(errno),
            },
            other => other,
        };
        made.map_err(place.failed("creating"))
    }

    fn finish_later(
        &mut self,
        path: &BeneathRoot,
        metadata: &Metadata,
    ) -> Result<(), RestoreError> {
        self.counts.directories += 1;
        self.directories.add(&self.root, path.as_bytes(), metadata)
    }

    fn symlink(
        &mut self,
        place: &Place<'_>,
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), RestoreError> {
        if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
            let why = "the target of the link is empty, longer than 4095 bytes or has a NUL in it";
            return Err(RestoreError::refused(place.shown, why));
        }
        self.make(place, || symlinkat(target, place.parent, place.name))
            .map_err(|errno| match errno {
                // The target then: XFS takes 1023 bytes, ext4 less than a block.
                Errno::NAMETOOLONG if place.name.len() <= NAME_MAX => {
                    let why =
                        "the target of the link is longer than the volume's file system takes";
                    RestoreError::refused(place.shown, why)
                }
                errno => place.failed("creating")(errno),
            })?;
        self.counts.links += 1;
        self.set_metadata(place, metadata, true)
    }

    fn hard_link(&mut self, place: &Place<'_>, target: &[u8]) -> Result<(), RestoreError> {
        let refused = |why: &str| {
            let why = format!("as a hard link to {}: {why}", printable(target));
            RestoreError::refused(place.shown, why)
        };
        let (path, absolute) = BeneathRoot::parse(target).map_err(refused)?;
        if absolute {
            self.lost.add("leading / of a link's target", place.shown);
        }
        let path = self.options.selection.place(&path).ok_or_else(|| {
            refused("that is not among what is chosen of the archive; choose both or neither")
        })?;
        let Some((directory, name)) = path.split() else {
            return Err(refused("that is the root"));
        };
        let missing = "no entry before it has that name";
        if self.pending.concerns(path.as_bytes(), false) {
            self.settle()?;
        }
        let directory = self.root.existing(directory).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => refused(missing),
            errno => RestoreError::volume("finding the target of", place.shown, errno),
        })?;
        let linked = Place {
            parent: &directory,
            name,
            shown: target,
        };
        match linked.file_type() {
            Ok(FileType::Directory) => return Err(refused("that is a directory")),
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(refused(missing)),
            Err(errno) => return Err(linked.failed("looking at")(errno)),
        }
        // A link to itself, or one that an attempt before made: replacing the first would remove the file.
        let is_there = linked
            .identity()
            .is_ok_and(|found| place.identity() == Ok(found));
        if !is_there {
            let flags = AtFlags::empty();
            self.make(place, || {
                linkat(&directory, name, place.parent, place.name, flags)
            })
            .map_err(place.failed("linking"))?;
        }
        self.counts.links += 1;
        Ok(())
    }

    fn device(
        &mut self,
        place: &Place<'_>,
        kind: FileType,
        device: Device,
        metadata: &Metadata,
    ) -> Result<(), RestoreError> {
        match self.options.devices {
            Devices::Create => self.node(place, kind, device, metadata),
            Devices::Refuse => Err(RestoreError::refused(
                place.shown,
                "it is a device node, and those are not allowed here; leave it out of the archive",
            )),
        }
    }

    fn node(
        &mut self,
        place: &Place<'_>,
        kind: FileType,
        device: Device,
        metadata: &Metadata,
    ) -> Result<(), RestoreError> {
        let number = makedev(device.major, device.minor);
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(place, || {
            mknodat(place.parent, place.name, kind, mode, number)
        })
        .map_err(place.failed("creating"))?;
        self.set_metadata(place, metadata, false)
    }

    fn set_metadata(
        &mut self,
        place: &Place<'_>,
        metadata: &Metadata,
        is_link: bool,
    ) -> Result<(), RestoreError> {
        let parent = place.parent.as_fd();
        metadata::apply_at(
            parent,
            place.name,
            metadata,
            is_link,
            place.shown,
            &mut self.lost,
        )
        .map_err(place.failed("setting the metadata of"))
    }

    /// Makes something under a name that may be taken: later entries replace earlier ones.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make() {
            Err(Errno::EXIST) => {
                self.root.remove(place.parent, place.name)?;
                make()
            }
            other => other,
        }
    }
}

/// A buffer for the data of a file that is small and has no holes.
fn small(layout: &Layout) -> Option<Aligned> {
    match layout {
        Layout::Dense(size) => Aligned::for_small(*size),
        Layout::Sparse { .. } => None,
    }
}
