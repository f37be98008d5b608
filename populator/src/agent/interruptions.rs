//! How often an agent ended while it wrote: `<work dir>/<order uid>/writing`.
//!
//! A cause that lies in the archive, or in what it takes to unpack it, ends every process that tries,
//! and with it what the agent does for others. So a process says when it begins to write, and takes
//! that back when it has seen the end of it. The file is not synced: what ends a process leaves it
//! there, and a node that loses power, which is no archive's doing, may lose it.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record::{Context as _, RecordError, Records};

/// Processes that may end while they write in one attempt before it counts as failed.
pub const MAX: u32 = 3;

const FILE: &str = "writing";

/// What the file holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Writing {
    attempt: i64,
    /// How many processes have begun it and not seen its end.
    processes: u32,
}

impl Records {
    /// How many processes ended while they wrote, in this attempt of an order.
    pub fn ended_in(&self, uid: &str, attempt: i64) -> u32 {
        let found = fs::read(self.writing(uid)).ok();
        // One that is cut off was being written when the process ended, before it wrote anything else.
        let found = found.and_then(|bytes| serde_json::from_slice::<Writing>(&bytes).ok());
        match found {
            Some(writing) if writing.attempt == attempt => writing.processes,
            Some(_) | None => 0,
        }
    }

    /// This process begins to write.
    pub fn begin_writing(&self, uid: &str, attempt: i64) -> Result<(), RecordError> {
        let writing = Writing {
            attempt,
            processes: self.ended_in(uid, attempt) + 1,
        };
        let path = self.writing(uid);
        serde_json::to_vec(&writing)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&path, json))
            .context("writing", &path)
    }

    /// It has seen the end of that.
    pub fn end_writing(&self, uid: &str) -> Result<(), RecordError> {
        let path = self.writing(uid);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("removing", &path)
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn writing(&self, uid: &str) -> PathBuf {
        self.folder(uid).join(FILE)
    }
}
