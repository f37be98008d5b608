//! A writer as a database's log is one: it appends, syncs, and goes on.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Where it begins again, so that it needs no more room the longer it runs.
const LENGTH: u64 = 32 << 20;

/// A writer on its own thread.
pub struct Writer {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<Duration>>>,
}

impl Writer {
    /// Begins to write in a directory.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut file = File::create(directory.join("log"))?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                let begin = Instant::now();
                file.write_all(&[7; 4096])?;
                file.sync_data()?;
                longest = longest.max(begin.elapsed());
                if file.stream_position()? >= LENGTH {
                    file.rewind()?;
                }
            }
            Ok(longest)
        });
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }

    /// Ends it; the longest that one write and its sync took.
    pub fn stop(mut self) -> Result<Duration> {
        match self.end() {
            Some(Ok(longest)) => Ok(longest?),
            Some(Err(_)) | None => bail!("the writer ended by a bug"),
        }
    }

    fn end(&mut self) -> Option<std::thread::Result<std::io::Result<Duration>>> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join)
    }
}

/// A measurement that is cut short leaves nobody behind who has a file open.
impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}
