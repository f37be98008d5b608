//! What is written into volumes: numbered patterns in a few places, each brought to the disk
//! before it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::objects::Kind;

/// How many places there are.
pub const SLOTS: u64 = 6;

/// How large a place is.
const LENGTH: u64 = 64 << 10;

/// What is in the places: each holds one number over and over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    stamps: BTreeMap<u64, u64>,
    /// Places whose last write was cut off by a power cut: whatever is there is right.
    torn: BTreeSet<u64>,
}

impl Content {
    pub fn write(&mut self, slot: u64, stamp: u64) {
        self.stamps.insert(slot, stamp);
        self.torn.remove(&slot);
    }

    pub fn tear(&mut self, slot: u64) {
        self.torn.insert(slot);
    }

    /// Compares what should be there with what is: every place, and no place more.
    pub fn check(&self, at: &Path, kind: Kind) -> Result<(), String> {
        for slot in (0..SLOTS).filter(|slot| !self.torn.contains(slot)) {
            let expected = self.stamps.get(&slot);
            let found = read(at, kind, slot).map_err(|error| format!("slot {slot}: {error}"))?;
            if found != expected.map(|stamp| pattern(*stamp)) {
                let stamp = found.map(|bytes| describe(&bytes));
                return Err(format!("slot {slot} has {stamp:?} for {expected:?}"));
            }
        }
        Ok(())
    }
}

/// Writes one place, durably. `at` is the directory of the file system, or the device.
pub fn write(at: &Path, kind: Kind, slot: u64, stamp: u64) -> io::Result<()> {
    let (path, offset) = place(at, kind, slot);
    let mut options = OpenOptions::new();
    options.write(true).create(kind != Kind::Block);
    let file = options.open(path)?;
    file.write_all_at(&pattern(stamp), offset)?;
    file.sync_all()?;
    match kind {
        Kind::Block => Ok(()),
        Kind::Ext4 | Kind::Xfs => File::open(at)?.sync_all(),
    }
}

/// What is in a place; `None` for nothing, which on a device is zeros.
fn read(at: &Path, kind: Kind, slot: u64) -> io::Result<Option<Vec<u8>>> {
    let (path, offset) = place(at, kind, slot);
    if kind != Kind::Block {
        return match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        };
    }
    let mut bytes = pattern(0);
    File::open(path)?.read_exact_at(&mut bytes, offset)?;
    Ok(Some(bytes).filter(|bytes| bytes.iter().any(|byte| *byte != 0)))
}

fn place(at: &Path, kind: Kind, slot: u64) -> (std::path::PathBuf, u64) {
    match kind {
        Kind::Block => (at.to_owned(), (1 << 20) + slot * LENGTH),
        Kind::Ext4 | Kind::Xfs => (at.join(format!("slot-{slot}")), 0),
    }
}

fn pattern(stamp: u64) -> Vec<u8> {
    let words = usize::try_from(LENGTH / 8).unwrap();
    stamp.to_le_bytes().repeat(words)
}

/// The different numbers in a place, and how long it is.
fn describe(bytes: &[u8]) -> String {
    let mut stamps: Vec<_> = bytes
        .chunks(8)
        .map(|word| {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            u64::from_le_bytes(whole)
        })
        .collect();
    stamps.dedup();
    stamps.truncate(8);
    format!("{} bytes of {stamps:?}", bytes.len())
}
