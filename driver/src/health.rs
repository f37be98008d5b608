//! Whether the driver can do its work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::pool::Pool;

/// How long a write to the pool may take: a little less than kubelet waits for the answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is known of the driver's health.
#[derive(Debug)]
pub struct Health {
    /// One probe at a time: a pool that hangs must not take thread after thread.
    probe: Arc<Semaphore>,
    /// Why kubelet refused the driver, if it did.
    refusal: Mutex<Option<String>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            probe: Arc::new(Semaphore::new(1)),
            refusal: Mutex::new(None),
        }
    }
}

impl Health {
    /// Writes to the pool, to see whether that works.
    pub async fn pool(&self, pool: &Arc<Pool>) -> Result<(), String> {
        let probe = async {
            let permit = Arc::clone(&self.probe).acquire_owned().await;
            let pool = Arc::clone(pool);
            let write = move || {
                let _permit = permit;
                pool.probe().map_err(|error| error.to_string())
            };
            match tokio::task::spawn_blocking(write).await {
                Ok(result) => result,
                Err(panic) => Err(format!("the probe ended by a bug: {panic}")),
            }
        };
        match tokio::time::timeout(PATIENCE, probe).await {
            Ok(result) => result,
            Err(_) => Err(format!(
                "the pool at {} does not answer a write within {PATIENCE:?}",
                pool.layout.root().display()
            )),
        }
    }

    /// Everything: the pool, and what kubelet said.
    pub async fn all(&self, pool: &Arc<Pool>) -> Result<(), String> {
        self.pool(pool).await?;
        match self.lock().clone() {
            Some(reason) => Err(format!("kubelet refused the driver: {reason}")),
            None => Ok(()),
        }
    }

    /// Takes down what kubelet said of the driver: `None` is consent.
    pub fn set_refusal(&self, refusal: Option<String>) {
        *self.lock() = refusal;
    }

    /// The text is whole at every moment, so a panic elsewhere does not matter.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
