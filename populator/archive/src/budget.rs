//! The memory that all restores of a process share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the budget is counted in: semaphores hold at most 2^29 permits on 32-bit machines.
const UNIT: u64 = 1024;

/// The largest decompression window that is accepted: what `zstd --long=27` declares.
pub const WINDOW_MAX: u64 = 128 << 20;

/// How much memory the restores of a process may use together: `bytes` for the buffers of all their
/// stages and, on top, [`WINDOW_MAX`] for decompression windows.
///
/// A restore takes its whole share before it begins and gives it back when it ends, so restores queue
/// for memory but never wait for one another while each holds a part.
#[derive(Debug)]
pub struct Budget {
    bytes: u64,
    buffers: Arc<Semaphore>,
    windows: Arc<Semaphore>,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _permits: OwnedSemaphorePermit,
}

impl Budget {
    /// What a process uses unless told otherwise, in bytes: enough for four restores at a time.
    pub const DEFAULT: u64 = 64 << 20;

    /// What one restore takes when it fetches in the smallest ranges, and some more, in bytes.
    pub const MIN: u64 = 12 << 20;

    /// A budget of so many bytes for buffers ([`Budget::MIN`] are always granted).
    pub fn new(bytes: u64) -> Arc<Self> {
        let bytes = bytes.max(Self::MIN);
        Arc::new(Self {
            bytes,
            buffers: pool(bytes),
            windows: pool(WINDOW_MAX),
        })
    }

    /// What there is altogether, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for a share of so many bytes, the whole budget at most.
    pub(crate) async fn buffers(&self, bytes: u64) -> Share {
        take(&self.buffers, bytes.min(self.bytes)).await
    }

    /// A share of so many bytes, if there is one to spare now and nobody waits for it.
    pub(crate) fn spare(&self, bytes: u64) -> Option<Share> {
        let permits = Arc::clone(&self.buffers).try_acquire_many_owned(permits(bytes));
        permits.ok().map(|permits| Share { _permits: permits })
    }

    /// Waits until a window of so many bytes may be opened. The caller holds no other window.
    pub(crate) async fn window(&self, bytes: u64) -> Share {
        take(&self.windows, bytes.min(WINDOW_MAX)).await
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn pool(bytes: u64) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(
        (permits(bytes) as usize).min(Semaphore::MAX_PERMITS),
    ))
}

async fn take(pool: &Arc<Semaphore>, bytes: u64) -> Share {
    let permits = Arc::clone(pool).acquire_many_owned(permits(bytes)).await;
    Share {
        _permits: permits.expect("the semaphores of a budget are never closed"),
    }
}
