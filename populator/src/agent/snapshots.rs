//! Snapshots of volumes that were filled, kept for orders of the same content.
//!
//! Orders of one content and one namespace stand in line: the first reads the archive, and keeps a snapshot of
//! its volume if others wait behind it or the VolumeBackup has a cache. Whoever comes after it is made from
//! that.
//!
//! ```text
//! <work dir>/snapshots/<name>.json     written before the driver is asked for the snapshot
//! ```

mod book;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::cache::Content;
use crds::restore_order::{OrderVolume, RestoreOrder};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedMutexGuard, watch};

use super::record::RecordError;
use super::turns::{Turn, Turns};
use crate::lease;
pub use book::{Kept, State};
pub use upkeep::{keep, maintain, make_room};

/// For how long a snapshot is kept that only serves those who wait: longer than any of them takes from one
/// turn to the next.
const SHARED: SignedDuration = SignedDuration::from_secs(60);

/// Snapshots that are told of, the newest: an annotation holds no more.
const TOLD: usize = 500;

/// What a node keeps, and who stands in line for it.
#[derive(Debug)]
pub struct Snapshots {
    book: Mutex<book::Book>,
    /// Bytes that drivers have for more than there is.
    free: Mutex<BTreeMap<String, i64>>,
    lines: Turns<String>,
    told: watch::Sender<lease::Snapshots>,
}

/// What an order has to do with others of its content.
#[derive(Debug)]
pub enum Share {
    /// Nothing.
    Alone,
    /// It goes first; others wait until this is dropped.
    First(OwnedMutexGuard<()>),
    /// It is made from this.
    Copy(Box<Kept>),
}

impl Share {
    /// Whether others of its content wait for it.
    pub fn is_awaited(&self) -> bool {
        match self {
            Self::First(guard) => Arc::strong_count(OwnedMutexGuard::mutex(guard)) > 1,
            Self::Alone | Self::Copy(_) => false,
        }
    }
}

/// The line that an order stands in: that of its content, and of its PVC's namespace alone, or one namespace
/// could make another wait for longer than its share of the node's places.
pub fn line(order: &RestoreOrder) -> Option<String> {
    let content = order.spec.content.as_ref()?;
    Some(format!("{}/{}", order.spec.claim.namespace, content.key))
}

impl Snapshots {
    /// Those that the work directory tells of.
    pub fn open(work: &std::path::Path) -> Result<Self, RecordError> {
        let book = book::Book::open(work.join("snapshots"))?;
        let (told, _) = watch::channel(lease::Snapshots::new());
        let snapshots = Self {
            book: Mutex::new(book),
            free: Mutex::default(),
            lines: Turns::default(),
            told,
        };
        snapshots.tell();
        Ok(snapshots)
    }

    /// What the Lease says of them.
    pub fn told(&self) -> watch::Receiver<lease::Snapshots> {
        self.told.subscribe()
    }

    /// A place in a line.
    pub fn line(&self, line: &str) -> Turn {
        self.lines.take(line.to_owned())
    }

    /// Waits for what there is to share. `turn` is a place in the line that was taken before.
    pub async fn share(&self, content: &Content, volume: &OrderVolume, turn: Turn) -> Share {
        let found = || self.find(content, volume);
        if let Some(kept) = found() {
            return Share::Copy(Box::new(kept));
        }
        let guard = turn.held().await;
        match found() {
            Some(kept) => Share::Copy(Box::new(kept)),
            None => Share::First(guard),
        }
    }

    /// A snapshot from which the volume can be made, the newest. One that is only shared is good for a while
    /// from now on.
    fn find(&self, content: &Content, volume: &OrderVolume) -> Option<Kept> {
        let now = Timestamp::now();
        let mut book = self.book();
        let found = book.newest(|kept| kept.serves(content, volume, now))?;
        if found.cache.is_none() {
            let longer = Kept {
                expires: now + SHARED,
                ..found.clone()
            };
            // That it may go earlier harms nobody: the archive is read then.
            if let Err(error) = book.save(longer) {
                tracing::debug!(%error, "a shared snapshot is not kept for longer");
            }
        }
        Some(found)
    }

    fn book(&self) -> MutexGuard<'_, book::Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, kept: Kept) -> Result<(), RecordError> {
        let saved = self.book().save(kept);
        self.tell();
        saved
    }

    /// One of which no volume can be made is of no use: it goes soon.
    pub fn retire(&self, name: &str) {
        if let Err(error) = self.book().expire(name) {
            tracing::warn!(%error, "only this process knows that a snapshot is of no use");
        }
        self.tell();
    }

    /// Those that are to go.
    fn surplus(&self) -> Vec<Kept> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.book().surplus(Timestamp::now(), &free)
    }

    /// A driver has so many bytes free, besides what is kept, if it says so: no more than that is kept.
    pub fn has_free(&self, driver: &str, bytes: Option<i64>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match bytes {
            Some(bytes) => free.insert(driver.to_owned(), bytes),
            None => free.remove(driver),
        };
    }

    fn forget(&self, name: &str) {
        if let Err(error) = self.book().remove(name) {
            tracing::warn!(%error, "the record of a snapshot could not be removed");
        }
        self.tell();
    }

    /// Bytes that would be free without the snapshots of a driver, at most.
    pub fn reclaimable(&self, driver: &str) -> i64 {
        let book = self.book();
        let of_it = book.all().filter(|kept| kept.driver == driver);
        of_it.fold(0, |sum: i64, kept| sum.saturating_add(kept.size_bytes))
    }

    fn tell(&self) {
        let mut news: lease::Snapshots = self
            .book()
            .all()
            .filter(|kept| kept.cache.is_some())
            .filter(|kept| matches!(kept.state, State::Made(_)))
            .map(|kept| lease::Snapshot {
                content: kept.content.clone(),
                backup: kept.backup.clone(),
                size_bytes: kept.size_bytes,
                expires: kept.expires,
            })
            .collect();
        news.sort_by_key(|it| std::cmp::Reverse(it.expires));
        news.truncate(TOLD);
        self.told.send_if_modified(|told| {
            let is_new = *told != news;
            *told = news;
            is_new
        });
    }
}

#[cfg(test)]
mod tests;
