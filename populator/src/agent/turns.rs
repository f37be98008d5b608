//! One order at a time for each volume.
//!
//! Two orders for one volume are a mistake of whoever made or removed them by hand. Then the second
//! waits until the first is done with, its record removed: so no clean-up of the one can ever take
//! away what the other has made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crds::restore_order::OrderVolume;
use tokio::sync::{Mutex as Turnstile, OwnedMutexGuard};

/// Which volume: the driver's name and the volume's.
type Key = (String, String);

/// Who may work on which volume.
#[derive(Debug, Default)]
pub struct Turns {
    volumes: Mutex<HashMap<Key, Weak<Turnstile<()>>>>,
}

/// The right to work on a volume, now or later. Dropping it lets the next one go on.
#[derive(Debug)]
pub enum Turn {
    /// Now.
    Held(OwnedMutexGuard<()>),
    /// When all before it are done.
    Queued(Arc<Turnstile<()>>),
}

impl Turns {
    /// A turn at this volume: at once where nobody has it.
    pub fn take(&self, volume: &OrderVolume) -> Turn {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.retain(|_, turnstile| turnstile.strong_count() > 0);
        let key = (volume.driver.clone(), volume.name.clone());
        let turnstile = volumes
            .get(&key)
            .and_then(Weak::upgrade)
            .unwrap_or_default();
        volumes.insert(key, Arc::downgrade(&turnstile));
        match Arc::clone(&turnstile).try_lock_owned() {
            Ok(guard) => Turn::Held(guard),
            Err(_) => Turn::Queued(turnstile),
        }
    }
}

impl Turn {
    /// Waits until it is now.
    pub async fn held(self) -> OwnedMutexGuard<()> {
        match self {
            Self::Held(guard) => guard,
            Self::Queued(turnstile) => turnstile.lock_owned().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::restore_order::VolumeMode;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let volume = |name: &str| OrderVolume {
            driver: "d".into(),
            name: name.into(),
            required_bytes: 0,
            limit_bytes: 0,
            volume_mode: VolumeMode::Filesystem,
            fs_type: String::new(),
            mount_options: Vec::new(),
            access_modes: Vec::new(),
            parameters: [].into(),
        };
        let turns = Turns::default();
        let first = turns.take(&volume("a"));
        assert!(matches!(first, Turn::Held(_)));
        assert!(matches!(turns.take(&volume("b")), Turn::Held(_)));
        let second = turns.take(&volume("a"));
        assert!(matches!(second, Turn::Queued(_)));
        let waiting = tokio::spawn(second.held());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.unwrap());
        assert!(matches!(turns.take(&volume("a")), Turn::Held(_)));
    }
}
