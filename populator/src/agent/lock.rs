//! One agent on each node: whoever holds the lock in the work directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

/// How often a lock that another process holds is tried again. That process is on its way out: a
/// DaemonSet that rolls over starts the new pod when the old one is told to end.
const AGAIN: Duration = Duration::from_millis(500);

/// The lock cannot be taken by anybody.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; the work directory must be on a local disk and writable", .path.display())]
pub struct LockError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Waits for the lock in `folder`; `None` when `stop` came first. It is held until the file is
/// closed, which the kernel does for a process that dies.
pub async fn take(folder: &Path, stop: &CancellationToken) -> Result<Option<File>, LockError> {
    let path = folder.join("lock");
    let fault = |source| LockError {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(fault)?;
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(fault(errno.into())),
        }
        if !told {
            tracing::info!(lock = %path.display(), "another agent runs on this node; waiting for its end");
            told = true;
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(AGAIN))
            .await
            .is_none()
        {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let first = take(folder.path(), &stop).await.unwrap().unwrap();
        let path = folder.path().to_owned();
        let waiting = tokio::spawn(async move { take(&path, &stop).await });
        tokio::time::sleep(AGAIN * 2).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert!(waiting.await.unwrap().unwrap().is_some());
    }

    #[tokio::test]
    async fn waiting_ends_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let _first = take(folder.path(), &stop).await.unwrap();
        stop.cancel();
        assert!(take(folder.path(), &stop).await.unwrap().is_none());
    }
}
