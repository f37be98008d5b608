//! Archives that lie in a directory which the administrator names, seen by the controller and the agents at the
//! same path. Each namespace has a folder of its name in it and sees no other: nothing leads out of that, no
//! link and no `..`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::access::{LOOK_TIMEOUT, PAGES};
use super::answer::Found;
use super::listing::Entry;
use super::{ObjectUrl, PrefixUrl, Scheme, SignedUrl, StoreError};

/// Files that are shown before those who look are asked whether they still do.
const BATCH: usize = 1000;

/// Calls that may wait for the directory's disk or network, at a time: each takes a thread, and keeps it if it
/// never returns. All others must have some left.
static CALLS: Semaphore = Semaphore::const_new(8);

/// Listings at a time, which take longer: who looks at one file does not wait for them.
static WALKS: Semaphore = Semaphore::const_new(8);

/// The directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRoot(Arc<Path>);

impl From<PathBuf> for FileRoot {
    fn from(path: PathBuf) -> Self {
        Self(path.into())
    }
}

impl FileRoot {
    /// Does what may wait for the directory for ever: to be given up in time by whoever asks for it.
    pub async fn wait<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        waited(&CALLS, work).await
    }

    /// Opens an archive by where it lies in the directory, which is what the URL of an order says.
    pub fn open(&self, url: &str) -> io::Result<Pinned> {
        let place = url.strip_prefix("file:///");
        let place = place.ok_or_else(|| io::Error::from(Errno::INVAL))?;
        Pinned::new(self.descend(place, OFlags::NONBLOCK)?.into())
    }

    /// What lies there, as long as no link is on the way. The directory itself may be reached by one.
    fn descend(&self, place: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let look = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&*self.0, look, Mode::empty())?;
        let confined =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        // A rename elsewhere in the tree is no reason to fail.
        loop {
            match rustix::fs::openat2(&root, place, flags, Mode::empty(), confined) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return Ok(opened?),
            }
        }
    }
}

async fn waited<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // Nobody closes it.
    let place = places.acquire().await.ok();
    let work = move || {
        let done = work();
        drop(place);
        done
    };
    tokio::task::spawn_blocking(work).await
}

/// An open file, and what tells it from every other that was or will be in its place.
#[derive(Debug)]
pub struct Pinned {
    file: File,
    /// As if it were an ETag.
    pub etag: String,
    /// Its bytes.
    pub size: u64,
    modified: Option<Timestamp>,
}

impl Pinned {
    fn new(file: File) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self {
            etag: etag(&stat),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: modified(&stat),
            file,
        })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is what it was when it was opened.
    pub fn is_same(&self) -> io::Result<bool> {
        Ok(etag(&rustix::fs::fstat(&self.file)?) == self.etag)
    }
}

fn etag(stat: &Stat) -> String {
    let (inode, size) = (stat.st_ino, stat.st_size);
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec);
    format!("\"{inode:x}-{size:x}-{seconds:x}.{nanoseconds:09}\"")
}

fn modified(stat: &Stat) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).ok()?;
    Timestamp::new(stat.st_mtime, nanoseconds).ok()
}

/// The files of one namespace.
pub(super) struct Files {
    root: FileRoot,
    namespace: String,
    bytes_per_second: Option<i64>,
}

impl Files {
    pub(super) fn new(root: &FileRoot, namespace: &str, bytes_per_second: Option<i64>) -> Self {
        Self {
            root: root.clone(),
            namespace: namespace.to_owned(),
            bytes_per_second,
        }
    }

    pub(super) async fn look(&self, url: &ObjectUrl) -> Result<Found, StoreError> {
        let (root, place) = (self.root.clone(), self.place(&url.key));
        let look = FileRoot::wait(move || root.open(&place));
        let looked = tokio::time::timeout(LOOK_TIMEOUT, look).await;
        let pinned = match looked {
            Ok(Ok(opened)) => opened.map_err(|error| self.failure(url.to_string(), &error))?,
            Ok(Err(_)) | Err(_) => return Err(Self::late()),
        };
        if pinned.size == 0 {
            return Err(StoreError::Empty {
                url: url.to_string(),
            });
        }
        Ok(Found {
            size: pinned.size,
            etag: Some(pinned.etag),
            version: None,
            last_modified: pinned.modified,
        })
    }

    pub(super) async fn list(
        &self,
        prefix: &PrefixUrl,
        mut each: impl FnMut(Entry),
    ) -> Result<(), StoreError> {
        let (root, namespace) = (self.root.clone(), self.namespace.clone());
        let folder = prefix.prefix.clone();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        let walk = waited(&WALKS, move || walk(&root, &namespace, folder, &sender));
        let receive = async move {
            let mut seen = 0;
            while let Some(batch) = receiver.recv().await {
                seen += batch.len();
                if seen > PAGES * BATCH {
                    return Err(StoreError::TooMany {
                        url: prefix.to_string(),
                        most: PAGES * BATCH,
                    });
                }
                batch.into_iter().for_each(&mut each);
            }
            Ok(())
        };
        let (walked, received) = tokio::join!(walk, receive);
        received?;
        match walked {
            Ok(walked) => walked.map_err(|error| self.failure(prefix.to_string(), &error)),
            Err(_) => Err(Self::late()),
        }
    }

    pub(super) fn sign(&self, url: &ObjectUrl, lifetime: Duration) -> SignedUrl {
        let now = Timestamp::now();
        SignedUrl {
            url: self.place(&url.key),
            signed: now,
            expires: now + lifetime,
            ca_bundle: None,
            bytes_per_second: self.bytes_per_second,
        }
    }

    fn place(&self, key: &str) -> String {
        format!("{}/{}/{key}", Scheme::File.prefix(), self.namespace)
    }

    fn failure(&self, url: String, error: &io::Error) -> StoreError {
        match Errno::from_io_error(error) {
            Some(Errno::NOENT | Errno::NOTDIR) => StoreError::NoObject {
                url,
                server: format!(
                    "the folder {} of the administrator's directory",
                    self.namespace
                ),
            },
            Some(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::XDEV) => {
                StoreError::FileDenied { url }
            }
            Some(_) => Self::late(),
            None => StoreError::NotAFile { url },
        }
    }

    pub(super) fn late() -> StoreError {
        StoreError::Unreachable {
            server: "of the administrator's directory".to_owned(),
            why: "its file system fails or does not answer",
        }
    }
}

/// Sends what lies beneath a folder, at any depth, until nobody listens.
fn walk(
    root: &FileRoot,
    namespace: &str,
    folder: String,
    sender: &tokio::sync::mpsc::Sender<Vec<Entry>>,
) -> io::Result<()> {
    let mut folders = vec![folder];
    let mut batch = Vec::new();
    let mut is_first = true;
    while let Some(folder) = folders.pop().filter(|_| !sender.is_closed()) {
        let place = format!("{namespace}/{folder}");
        let opened = root.descend(&place, OFlags::DIRECTORY);
        let opened = match opened {
            // One that has gone since it was seen, or may not be looked into, has nothing to show.
            Err(_) if !is_first => continue,
            opened => opened?,
        };
        is_first = false;
        for entry in Dir::read_from(&opened)? {
            if sender.is_closed() {
                return Ok(());
            }
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let Ok(stat) = rustix::fs::statat(&opened, name, flags) else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => folders.push(format!("{folder}{name}/")),
                FileType::RegularFile => batch.extend(modified(&stat).map(|last_modified| Entry {
                    key: format!("{folder}{name}"),
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    last_modified,
                })),
                _ => {}
            }
            if batch.len() == BATCH && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
        }
    }
    let _ = sender.blocking_send(batch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Access, Credentials, Location, Reach};

    /// A directory with the folders of two namespaces.
    struct World {
        folder: tempfile::TempDir,
        reach: Reach,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("team/db/a.tar", "0123456789"),
            ("team/db/empty.tar", ""),
            ("team/db/deep/b.tar", "12345"),
            ("other/secret.tar", "secret"),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        for (target, link) in [
            ("../other/secret.tar", "link.tar"),
            ("../other", "folder"),
            ("/etc/passwd", "absolute"),
            ("db/a.tar", "inside.tar"),
        ] {
            std::os::unix::fs::symlink(target, folder.path().join("team").join(link)).unwrap();
        }
        let reach = Reach {
            files: Some(FileRoot::from(folder.path().to_owned())),
            ..Reach::default()
        };
        World { folder, reach }
    }

    fn access(reach: &Reach, url: &str) -> (Location, Result<Access, StoreError>) {
        let location = Location::parse(url).unwrap();
        let access = Access::new(&location, "team", None, &Credentials::Unneeded, reach);
        (location, access)
    }

    async fn look(world: &World, url: &str) -> Result<Found, StoreError> {
        let (location, access) = access(&world.reach, url);
        let Location::Object(url) = location else {
            panic!("a prefix");
        };
        access?.look(&url, None).await
    }

    #[tokio::test]
    async fn a_file_is_found_in_the_folder_of_its_namespace() {
        let world = world();
        let found = look(&world, "file:///db/a.tar").await.unwrap();
        assert_eq!(found.size, 10);
        assert!(found.last_modified.is_some() && found.version.is_none());
        for (url, reason) in [
            ("file:///db/none.tar", "ObjectNotFound"),
            ("file:///secret.tar", "ObjectNotFound"),
            ("file:///other/secret.tar", "ObjectNotFound"),
            ("file:///link.tar", "AccessDenied"),
            ("file:///inside.tar", "AccessDenied"),
            ("file:///folder/secret.tar", "AccessDenied"),
            ("file:///absolute", "AccessDenied"),
            ("file:///db", "NotAFile"),
            ("file:///db/empty.tar", "ArchiveEmpty"),
        ] {
            let error = look(&world, url).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{url}: {error}");
        }
        let (_, disabled) = access(&Reach::default(), "file:///db/a.tar");
        assert_eq!(disabled.err().unwrap().reason(), "FilesDisabled");
    }

    #[tokio::test]
    async fn what_lies_beneath_a_folder_is_listed_and_no_link_followed() {
        let world = world();
        for (url, expected) in [
            (
                "file:///",
                &["db/a.tar", "db/deep/b.tar", "db/empty.tar"][..],
            ),
            ("file:///db/deep/", &["db/deep/b.tar"]),
        ] {
            let (location, access) = access(&world.reach, url);
            let Location::Prefix(prefix) = location else {
                panic!("one object");
            };
            let mut keys = Vec::new();
            let listed = access
                .unwrap()
                .list(&prefix, |entry| keys.push(entry.key))
                .await;
            listed.unwrap();
            keys.sort();
            assert_eq!(keys, expected);
        }
        let (location, access) = access(&world.reach, "file:///folder/");
        let Location::Prefix(prefix) = location else {
            panic!("one object");
        };
        let error = access.unwrap().list(&prefix, |_| ()).await.unwrap_err();
        assert_eq!(error.reason(), "AccessDenied");
    }

    #[test]
    fn another_file_or_content_is_told() {
        let world = world();
        let root = world.reach.files.clone().unwrap();
        let url = "file:///team/db/a.tar";
        let pinned = root.open(url).unwrap();
        assert!(pinned.is_same().unwrap());
        let path = world.folder.path().join("team/db/a.tar");
        // The kernel's clock of files ticks now and then only.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&path, "9876543210").unwrap();
        assert!(!pinned.is_same().unwrap());
        let changed = root.open(url).unwrap();
        assert_ne!(changed.etag, pinned.etag);
        std::fs::rename(world.folder.path().join("team/db/deep/b.tar"), &path).unwrap();
        assert!(
            changed.is_same().unwrap(),
            "what is open is read to its end"
        );
        assert_ne!(root.open(url).unwrap().etag, changed.etag);
        assert!(root.open("file:///../etc/passwd").is_err());
    }
}
