//! A pod that writes as a database does, and can be told from its files: it appends numbered records
//! to one segment after another, and after each burst overwrites a slot of a ring with the burst's
//! number. It syncs nothing, so what a snapshot holds is what the freeze has brought to the disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tests::wait::eventually;

use crate::WAIT;

/// Records in a burst, bursts in a segment, slots in the ring, as in [`SCRIPT`].
const BURST: u64 = 200;
const SLOTS: u64 = 16;
/// Bytes of a record, and of what is in use of a slot.
const RECORD: usize = 64;
const SLOT: usize = 4096;

/// Runs until a write fails. Each record is one write(2), and so is each slot.
pub const SCRIPT: &str = r"
set -e
n=0 burst=0
while :; do
    end=$((n + 200))
    while [ $n -lt $end ]; do
        n=$((n + 1))
        printf 'record %010d of a writer that waits for no disk, ever.....\n' $n
    done >> $(printf /data/segment-%06d $((burst / 10)))
    burst=$((burst + 1))
    printf '%-63d\n' $burst |
        dd of=/data/ring bs=4096 seek=$((burst % 16)) conv=notrunc 2> /dev/null
    sleep 0.05
done
";

fn record(number: u64) -> String {
    format!("record {number:010} of a writer that waits for no disk, ever.....\n")
}

/// How many records are in the files of `folder`, by their lengths.
pub fn written(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for path in segments(folder)? {
        bytes += fs::metadata(path)?.len();
    }
    Ok(bytes / RECORD as u64)
}

/// Waits until a good deal has been written from now on; returns [`written`].
pub async fn progress(folder: &Path) -> Result<u64> {
    let last = written(folder)?;
    eventually("records are written", WAIT, async || {
        let now = written(folder)?;
        ensure!(now >= last + 5 * BURST, "{now} after {last}");
        Ok(now)
    })
    .await
}

/// How many records are in `folder`; an error unless they are exactly the first that were written,
/// each whole, and the ring is as it was when the last of them was written.
pub fn prefix(folder: &Path) -> Result<u64> {
    let mut count = 0;
    for path in segments(folder)? {
        let text = fs::read(&path)?;
        for found in text.chunks(RECORD) {
            count += 1;
            ensure!(
                found == record(count).as_bytes(),
                "in place of record {count}, {} has {:?}",
                path.display(),
                String::from_utf8_lossy(found)
            );
        }
    }
    let ring = contents(&folder.join("ring"))?;
    let stamp = |slot: u64| -> Result<u64> {
        let start = usize::try_from(slot)? * SLOT;
        let text = ring.get(start..start + RECORD).unwrap_or_default();
        let text = std::str::from_utf8(text)?.trim_matches(['\0', ' ', '\n']);
        Ok(if text.is_empty() { 0 } else { text.parse()? })
    };
    // Right after the last record of a burst, its slot may be overwritten or not.
    let bursts = count / BURST;
    let last = if count % BURST == 0 && stamp(bursts % SLOTS)? != bursts {
        bursts.saturating_sub(1)
    } else {
        bursts
    };
    for burst in (last + 1).saturating_sub(SLOTS)..=last {
        let found = stamp(burst % SLOTS)?;
        ensure!(
            found == burst,
            "with {count} records, burst {found} is where burst {burst} should be"
        );
    }
    Ok(count)
}

/// What is in a file; nothing if it was not written yet.
pub fn contents(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| path.display().to_string()),
    }
}

fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with("segment-") {
            segments.push(path);
        }
    }
    segments.sort();
    Ok(segments)
}
