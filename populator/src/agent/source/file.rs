//! An archive that lies in the administrator's directory.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use archive::{Source, SourceError, SourceErrorKind};
use bytes::Bytes;
use crds::volume_backup::ResolvedArchive;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::io::Errno;
use tokio::sync::OnceCell;

use super::Intake;
use crate::store::{FileRoot, Pinned, identity};

/// One pinned file, opened when it is first read.
#[derive(Debug)]
pub struct FileSource {
    root: FileRoot,
    intake: Intake,
    etag: String,
    length: u64,
    file: OnceCell<Arc<Pinned>>,
}

impl FileSource {
    /// The file `archive`, which lies where the URL of its access says. `None` where it can be none.
    pub fn new(root: FileRoot, archive: &ResolvedArchive, intake: Intake) -> Option<Self> {
        Some(Self {
            root,
            intake,
            etag: archive.etag.clone()?,
            length: u64::try_from(archive.size).ok()?,
            file: OnceCell::new(),
        })
    }

    /// Does what may wait for a disk or a network, for as long as a store may be silent.
    async fn waited<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let stall = self.intake.clients.limits.stall;
        match tokio::time::timeout(stall, FileRoot::wait(work)).await {
            Ok(Ok(done)) => done.map_err(|error| failure(&error)),
            Ok(Err(died)) => Err(SourceError::new(
                SourceErrorKind::Unavailable,
                died.to_string(),
            )),
            Err(_) => Err(SourceError::new(
                SourceErrorKind::Unavailable,
                format!("its file system has not answered for {stall:?}"),
            )),
        }
    }

    async fn opened(&self) -> Result<Arc<Pinned>, SourceError> {
        let open = async || {
            let root = self.root.clone();
            let url = self.intake.access.borrow().url.clone();
            let pinned = self.waited(move || root.open(&url)).await?;
            if pinned.etag == self.etag && pinned.size == self.length {
                Ok(Arc::new(pinned))
            } else {
                Err(changed())
            }
        };
        self.file.get_or_try_init(open).await.cloned()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, SourceError> {
        let length = range.end - range.start;
        let wanted = usize::try_from(length).map_err(|_| {
            let what = "the range exceeds this machine's memory";
            SourceError::new(SourceErrorKind::Other, what)
        })?;
        let pinned = self.opened().await?;
        let read = move || {
            let mut bytes = vec![0; wanted];
            pinned.file().read_exact_at(&mut bytes, range.start)?;
            // Afterwards: what was written to before or meanwhile shows.
            Ok((bytes, pinned.is_same()?))
        };
        let (bytes, is_same) = self.waited(read).await?;
        if !is_same {
            return Err(changed());
        }
        self.intake.pass(length).await;
        Ok(bytes.into())
    }
}

impl Source for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn identity(&self) -> Option<String> {
        identity(Some(&self.etag), None)
    }

    fn read_at(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, SourceError>> {
        self.read(range).boxed()
    }
}

fn changed() -> SourceError {
    let what = "the file was written to, or another is in its place";
    SourceError::new(SourceErrorKind::Changed, what)
}

fn failure(error: &io::Error) -> SourceError {
    let kind = match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => SourceErrorKind::NotFound,
        Some(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::XDEV) => SourceErrorKind::Denied,
        // Its server has forgotten it.
        Some(Errno::STALE) => return changed(),
        Some(_) => SourceErrorKind::Unavailable,
        None if error.kind() == io::ErrorKind::UnexpectedEof => return changed(),
        None => SourceErrorKind::Other,
    };
    SourceError::new(kind, error.to_string())
}
