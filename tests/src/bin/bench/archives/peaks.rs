//! Archives that ask for much memory where an engine lets them.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::contest::{Bench, PEAK};
use super::data::Data;
use super::runs::Caches;
use crate::interruption;

/// The largest peak of memory, in MiB, with a window of 128 MiB.
const PEAK_LONG: f64 = 230.0;

const FOLDERS: u64 = 1_000;

/// With the folder itself.
const PER_FOLDER: u64 = 1_000;

/// One inode for every 16 KiB (mke2fs.conf(5)), and more than a million.
const MANY_MEBIBYTES: u64 = 20 * 1024;

/// All of them, once.
pub async fn measure(bench: &mut Bench<'_>) -> Result<()> {
    for (set, suffix, compress, goal) in [
        ("long", "tar.zst", "zstd -q -1 --long=27 --check", PEAK_LONG),
        ("huge", "tar", "cat", PEAK),
    ] {
        let data = Data::make(set)?;
        let key = format!("{set}.{suffix}");
        let archive = data.pack(&key, compress)?;
        one(bench, &key, &archive, data.volume(), goal).await?;
    }
    let folder = tempfile::Builder::new().prefix("bench-many-").tempdir()?;
    let archive = folder.path().join("many");
    many(&archive)?;
    one(bench, "many.tar.zst", &archive, MANY_MEBIBYTES, PEAK).await
}

/// Restores an archive, and packs what came of it.
async fn one(
    bench: &mut Bench<'_>,
    key: &str,
    archive: &Path,
    mebibytes: u64,
    goal: f64,
) -> Result<()> {
    println!("{key} ...");
    bench.upload(key, archive).await?;
    interruption::check()?;
    let volume = bench.driver.volume("volume", mebibytes).await?;
    let figures = bench.runs.restore(key, &volume.staging, Caches::Warm)?;
    bench.peak(key, figures, goal);
    let figures = bench
        .runs
        .pack(&volume.staging, "packed.tar.zst", Caches::Warm)?;
    bench.peak(&format!("pack what is in {key}"), figures, PEAK);
    bench.driver.remove(volume).await?;
    bench.driver.give_back().await
}

/// An archive of a million entries: files of 100 bytes in a thousand folders.
fn many(archive: &Path) -> Result<()> {
    let file = File::create(archive).with_context(|| archive.display().to_string())?;
    let mut tar = tar::Builder::new(zstd::Encoder::new(file, 3)?);
    let mut header = tar::Header::new_ustar();
    for folder in 0..FOLDERS {
        interruption::check()?;
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, format!("{folder:04}/"), std::io::empty())?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(100);
        for file in 1..PER_FOLDER {
            let content = format!("{:0100}", folder * PER_FOLDER + file);
            let name = format!("{folder:04}/{file:04}");
            tar.append_data(&mut header, name, content.as_bytes())?;
        }
    }
    let mut file = tar.into_inner()?.finish()?;
    Ok(file.flush()?)
}
