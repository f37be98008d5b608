//! Archives that are read and not restored.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{BUCKET, Shared, failure, success};

pub async fn a_whole_archive_is_told_from_a_damaged_one(shared: &Shared) -> Result<()> {
    let path = shared.archives.join("odd.tar.gz");
    let said = success(shared, &["verify", &format!("s3://{BUCKET}/odd.tar.gz")])?;
    ensure!(said.contains("is whole"), "{said}");
    let mut damaged = fs::read(&path)?;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    shared
        .server
        .put(BUCKET, "damaged", damaged.clone())
        .await?;
    let said = failure(shared, &["verify", &format!("s3://{BUCKET}/damaged")])?;
    ensure!(said.contains("is damaged"), "{said}");
    damaged.truncate(middle);
    shared.server.put(BUCKET, "cut", damaged).await?;
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    let said = failure(shared, &["restore", &format!("s3://{BUCKET}/cut"), target])?;
    ensure!(
        said.contains("is cut off") && said.contains(target) && said.contains("delete that"),
        "{said}"
    );
    Ok(())
}

pub async fn a_checksum_that_is_wrong_fails(shared: &Shared) -> Result<()> {
    let archive = shared.archives.join("odd.tar");
    let archive = archive.to_str().context("UTF-8")?;
    let sum = tests::command::run(Command::new("sha256sum").arg(archive))?;
    let sum = sum.split_whitespace().next().context("no sum")?;
    let required = ["--require-verified", "sha256"];
    let said = success(
        shared,
        &[&["verify", archive, "--sha256", sum], &required[..]].concat(),
    )?;
    ensure!(said.contains("verified: Sha256"), "{said}");
    let said = failure(shared, &[&["verify", archive], &required[..]].concat())?;
    ensure!(said.contains("Sha256 is required"), "{said}");
    let wrong = sum.replace(['0', '1', '2'], "3");
    let said = failure(shared, &["verify", archive, "--sha256", &wrong])?;
    ensure!(said.contains(sum) && said.contains(&wrong), "{said}");
    Ok(())
}

pub async fn entries_are_listed_as_tar_does(shared: &Shared) -> Result<()> {
    let archive = shared.archives.join("odd.tar.zst");
    let mut tar = Command::new("tar");
    let options = ["--list", "--verbose", "--numeric-owner", "--utc"];
    let tar = tar
        .args(options)
        .args(["--quoting-style=literal", "--file"]);
    let by_tar = tests::command::run(tar.arg(&archive))?;
    let ours = success(
        shared,
        &["inspect", "--list", &format!("s3://{BUCKET}/odd.tar.zst")],
    )?;
    let head: Vec<_> = ours
        .lines()
        .take_while(|line| line.contains(": "))
        .collect();
    ensure!(head.contains(&"format: tar.zst"), "{ours}");
    let listed = ours.lines().count() - head.len();
    ensure!(listed == by_tar.lines().count(), "{ours}\n{by_tar}");
    // Alike but for the width of columns and for how odd names are printed.
    let plain = |line: &&str| line.ends_with("/noise");
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let find = |text: &str| -> Option<Vec<String>> { text.lines().find(plain).map(words) };
    let (ours, theirs) = (find(&ours), find(&by_tar));
    ensure!(ours.is_some() && ours == theirs, "{ours:?} {theirs:?}");
    Ok(())
}
