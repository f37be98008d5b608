//! The memory that all restores of a process share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the budget is counted in: semaphores hold at most 2^29 permits on 32-bit machines.
const UNIT: u64 = 1024;

/// The largest decompression window that is accepted: what `zstd --long=27` declares.
pub const WINDOW_MAX: u64 = 128 << 20;

/// How much memory the restores of a process may use together: for the buffers of all their stages, for
/// what makes one faster while there is some to spare, and [`WINDOW_MAX`] for decompression windows.
///
/// A restore takes its whole share before it begins and gives it back when it ends, so restores queue
/// for memory but never wait for one another while each holds a part.
#[derive(Debug)]
pub struct Budget {
    bytes: u64,
    buffers: Arc<Semaphore>,
    /// The same, where nobody was promised a share.
    spare: Arc<Semaphore>,
    windows: Arc<Semaphore>,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _permits: OwnedSemaphorePermit,
}

impl Budget {
    /// What a command uses unless told otherwise, in bytes.
    pub const DEFAULT: u64 = 64 << 20;

    /// What one restore takes at most, unless more is to spare, in bytes.
    pub const EACH: u64 = 17 << 20;

    /// What there is to spare where each restore has been promised its share, in bytes.
    pub const SPARE: u64 = 32 << 20;

    /// What one restore takes when it fetches in the smallest ranges, and some more, in bytes.
    pub const MIN: u64 = 12 << 20;

    /// A budget of so many bytes, of which what no restore has taken is to spare ([`Budget::MIN`] are
    /// always granted).
    pub fn new(bytes: u64) -> Arc<Self> {
        let bytes = bytes.max(Self::MIN);
        let buffers = pool(bytes);
        Arc::new(Self {
            bytes,
            spare: Arc::clone(&buffers),
            buffers,
            windows: pool(WINDOW_MAX),
        })
    }

    /// [`Budget::EACH`] for each of so many restores, and [`Budget::SPARE`] on top: none of them waits
    /// for what another has, whose store may be slow or dead.
    pub fn of(restores: u16) -> Arc<Self> {
        let bytes = u64::from(restores.max(1)) * Self::EACH;
        Arc::new(Self {
            bytes,
            buffers: pool(bytes),
            spare: pool(Self::SPARE),
            windows: pool(WINDOW_MAX),
        })
    }

    /// What there is for the shares of restores, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for a share of so many bytes, all that there is at most.
    pub(crate) async fn buffers(&self, bytes: u64) -> Share {
        take(&self.buffers, bytes.min(self.bytes)).await
    }

    /// A share of so many bytes, if there is one to spare now and nobody waits for it.
    pub(crate) fn spare(&self, bytes: u64) -> Option<Share> {
        let permits = Arc::clone(&self.spare).try_acquire_many_owned(permits(bytes));
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn what_is_to_spare_is_no_share_that_was_promised() {
        let (promised, shared) = (Budget::of(2), Budget::new(2 * Budget::EACH));
        let of_both = [&promised, &shared].map(|budget| {
            let one = budget.buffers(Budget::EACH).now_or_never().unwrap();
            let mut spare = Vec::new();
            while let Some(share) = budget.spare(1 << 20) {
                spare.push(share);
            }
            let other = budget.buffers(Budget::EACH).now_or_never();
            drop(one);
            (spare.len() as u64, other.is_some())
        });
        assert_eq!(of_both[0], (Budget::SPARE >> 20, true));
        assert_eq!(of_both[1], (Budget::EACH >> 20, false));
    }
}
