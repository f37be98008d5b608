//! Archives that are made by the program itself.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{BUCKET, Shared, failure, same, success};

pub async fn what_is_packed_comes_back(shared: &Shared) -> Result<()> {
    let original = shared.original.to_str().context("UTF-8")?;
    let url = format!("s3://{BUCKET}/packed.tar.zst");
    let said = success(shared, &["pack", original, &url])?;
    let sum = |said: &str| -> Option<String> {
        let line = said.lines().find_map(|line| line.split_once("sha256: "))?;
        Some(line.1.to_owned())
    };
    let packed = sum(&said).with_context(|| said.clone())?;
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    let required = ["--require-verified", "per-file"];
    let said = success(
        shared,
        &[&["restore", &url, target], &required[..]].concat(),
    )?;
    ensure!(said.contains("verified: PerFile"), "{said}");
    ensure!(sum(&said).as_ref() == Some(&packed), "{said}");
    same(shared, to.path())?;
    // The same tree gives the same object, as a file too; what is there is not lost by mistake.
    let said = failure(shared, &["pack", target, &url])?;
    ensure!(said.contains("is there already"), "{said}");
    let said = success(shared, &["pack", target, &url, "--overwrite"])?;
    ensure!(sum(&said).as_ref() == Some(&packed), "{said}");
    let file = to.path().join("../packed-again.tar.zst");
    let file = file.to_str().context("UTF-8")?;
    let said = success(shared, &["pack", original, file, "--overwrite"])?;
    let by_sha256sum = tests::command::run(Command::new("sha256sum").arg(file))?;
    fs::remove_file(file)?;
    ensure!(by_sha256sum.starts_with(&packed), "{said} {by_sha256sum}");
    for (words, expected) in [
        (["pack", "/nowhere", &url], "/nowhere"),
        (
            ["pack", original, "s3://no-such-bucket/x"],
            "no-such-bucket",
        ),
        (["pack", original, "/nowhere/x"], "/nowhere/x"),
    ] {
        let said = failure(shared, &words)?;
        ensure!(said.contains(expected), "{said}");
    }
    Ok(())
}

pub async fn an_image_comes_back(shared: &Shared) -> Result<()> {
    let folder = TempDir::new()?;
    let image = folder.path().join("disk.raw");
    let file = fs::File::create(&image)?;
    file.set_len(64 << 20)?;
    let noise = fs::read(shared.archives.join("odd.tar.zst"))?;
    let noise = &noise[..1 << 20];
    for megabyte in [3, 40] {
        file.write_all_at(noise, megabyte << 20)?;
    }
    let packed = folder.path().join("disk.raw.zst");
    let (from, to) = (image.to_str(), packed.to_str());
    let (from, to) = (from.context("UTF-8")?, to.context("UTF-8")?);
    tests::command::run(Command::new("zstd").args(["-q", "--check", from, "-o", to]))?;
    let url = format!("s3://{BUCKET}/disk.raw.zst");
    shared
        .server
        .put_file(BUCKET, "disk.raw.zst", &packed)
        .await?;

    let said = success(shared, &["verify", &url, "--image"])?;
    ensure!(
        said.contains("is whole: 64 MiB") && said.contains("verified: Stream"),
        "{said}"
    );
    let made = folder.path().join("made.raw");
    let target = made.to_str().context("UTF-8")?;
    let said = success(shared, &["restore", &url, target, "--image"])?;
    ensure!(said.contains("64 MiB, 62 MiB of it holes"), "{said}");
    ensure!(fs::read(&made)? == fs::read(&image)?, "other bytes");
    let blocks = fs::metadata(&made)?.blocks();
    ensure!(blocks <= (2 << 20) / 512 + 64, "{blocks} blocks");

    // Each for what it is, and nothing over what is there.
    let archive = format!("s3://{BUCKET}/odd.tar.gz");
    let directory = folder.path().join("directory");
    let directory = directory.to_str().context("UTF-8")?;
    for (words, expected) in [
        (&["verify", &url][..], "as the image of a disk may"),
        (&["verify", &archive, "--image"], "is a tar archive"),
        (&["restore", &url, directory], "as the image of a disk may"),
        (&["restore", &url, target, "--image"], "is not there yet"),
        (
            &["restore", &url, target, "--image", "--exclude", "x"],
            "--exclude is for the entries",
        ),
    ] {
        let said = failure(shared, words)?;
        ensure!(said.contains(expected), "{words:?}: {said}");
    }
    ensure!(fs::read(&made)? == fs::read(&image)?, "it was touched");
    Ok(())
}

pub async fn what_is_encrypted_comes_back(shared: &Shared) -> Result<()> {
    let folder = TempDir::new()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (key, other, encrypted) = (path("key"), path("other"), path("odd.tar.zst.age"));
    for key in [&key, &other] {
        tests::command::run(Command::new("age-keygen").args(["-o", key]))?;
    }
    let recipient = tests::command::run(Command::new("age-keygen").args(["-y", &key]))?;
    let plain = shared.archives.join("odd.tar.zst");
    let mut age = Command::new("age");
    age.args(["-r", recipient.trim(), "-o", &encrypted])
        .arg(&plain);
    tests::command::run(&mut age)?;
    let encrypted = Path::new(&encrypted);
    shared
        .server
        .put_file(BUCKET, "odd.tar.zst.age", encrypted)
        .await?;
    let url = format!("s3://{BUCKET}/odd.tar.zst.age");

    let target = path("made");
    for (words, expected) in [
        (&["restore", &url, &target][..], "give an identity"),
        (&["verify", &url, "--identity", &other], "none of"),
    ] {
        let said = failure(shared, words)?;
        ensure!(said.contains(expected), "{words:?}: {said}");
    }
    let said = success(shared, &["verify", &url, "--identity", &key])?;
    ensure!(said.contains("is whole"), "{said}");
    let words = [
        "restore",
        &url,
        &target,
        "--identity",
        &other,
        "--identity",
        &key,
    ];
    let said = success(shared, &words)?;
    ensure!(said.contains("verified: Stream"), "{said}");
    same(shared, Path::new(&target))
}
