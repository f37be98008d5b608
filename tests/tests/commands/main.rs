//! What people run by hand, on a real S3 server and without Kubernetes.

mod choosing;
mod looking;
mod packing;
mod web;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use choosing::{
    owners_and_rights_are_chosen, what_is_chosen_is_restored,
    what_is_there_is_refused_kept_or_replaced,
};
use looking::{
    a_checksum_that_is_wrong_fails, a_whole_archive_is_told_from_a_damaged_one,
    entries_are_listed_as_tar_does,
};
use packing::{an_image_comes_back, what_is_encrypted_comes_back, what_is_packed_comes_back};
use tempfile::TempDir;
use tests::s3::{S3Server, fault::Fault};
use tests::suite::Suite;
use tests::{odd_tree, tools, tree};
use web::what_somebody_has_signed_comes_back;

const BUCKET: &str = "bucket";

/// The server, a tree, and its archives by suffix in the bucket.
struct Shared {
    server: S3Server,
    original: PathBuf,
    archives: PathBuf,
    _folder: TempDir,
}

const SUFFIXES: [&str; 6] = ["tar", "tar.gz", "tar.zst", "tar.xz", "tar.bz2", "tar.lz4"];

fn main() -> Result<ExitCode> {
    let mut suite = Suite::from_arguments()?;
    if suite.only_lists() {
        add(&mut suite, None);
        return Ok(suite.run(|_| async { Ok(()) }));
    }
    let shared = suite.block_on(async {
        let server = S3Server::alone("commands").await?;
        server.create_bucket(BUCKET).await?;
        let folder = TempDir::new()?;
        let (original, archives) = (folder.path().join("tree"), folder.path().to_owned());
        odd_tree::make(&original)?;
        odd_tree::noise(&original.join("noise"), 8 << 20)?;
        for suffix in SUFFIXES {
            let archive = archives.join(format!("odd.{suffix}"));
            odd_tree::pack(&original, &archive, suffix)?;
            let key = format!("odd.{suffix}");
            server.put_file(BUCKET, &key, &archive).await?;
        }
        anyhow::Ok(Shared {
            server,
            original,
            archives,
            _folder: folder,
        })
    })?;
    let shared = Arc::new(shared);
    add(&mut suite, Some(&shared));
    Ok(suite.run(|_| async move {
        let shared = Arc::into_inner(shared).context("a test still runs")?;
        shared.server.stop().await
    }))
}

fn add(suite: &mut Suite, shared: Option<&Arc<Shared>>) {
    macro_rules! tests {
        ($($test:ident),+ $(,)?) => {$({
            let shared = shared.cloned();
            suite.test(stringify!($test), || async move {
                let shared = shared.context("nothing was started")?;
                $test(&shared).await
            });
        })+};
    }
    tests!(
        every_format_comes_back,
        a_whole_archive_is_told_from_a_damaged_one,
        a_checksum_that_is_wrong_fails,
        entries_are_listed_as_tar_does,
        what_is_chosen_is_restored,
        owners_and_rights_are_chosen,
        what_is_there_is_refused_kept_or_replaced,
        a_store_that_fails_for_a_while,
        what_cannot_be_restored_is_said,
        what_is_packed_comes_back,
        an_image_comes_back,
        what_is_encrypted_comes_back,
        what_somebody_has_signed_comes_back,
    );
}

/// Runs the program as somebody whose keys are in the environment.
fn populator(shared: &Shared, endpoint: &str, words: &[&str]) -> Result<Output> {
    Ok(Command::new(tools::product("populator")?)
        .args(words)
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", shared.server.access_key())
        .env("AWS_SECRET_ACCESS_KEY", shared.server.secret_key())
        .output()?)
}

/// What it printed; an error unless it succeeded.
fn success(shared: &Shared, words: &[&str]) -> Result<String> {
    let output = populator(shared, &shared.server.endpoint(), words)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What it complained of; an error unless it failed as it should.
fn failure(shared: &Shared, words: &[&str]) -> Result<String> {
    let output = populator(shared, &shared.server.endpoint(), words)?;
    let complaint = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1) && complaint.starts_with("populator: "),
        "{words:?}: {}: {complaint}",
        output.status
    );
    Ok(complaint)
}

fn same(shared: &Shared, found: &Path) -> Result<()> {
    let meant = tree::read(&shared.original)?;
    let differences = tree::differences(&meant, &tree::read(found)?);
    ensure!(differences.is_empty(), "{differences:?}");
    Ok(())
}

async fn every_format_comes_back(shared: &Shared) -> Result<()> {
    for suffix in SUFFIXES {
        let to = TempDir::new()?;
        let target = to.path().join("made");
        let url = format!("s3://{BUCKET}/odd.{suffix}");
        let said = success(
            shared,
            &["restore", &url, target.to_str().unwrap_or_default()],
        )?;
        same(shared, &target).context(suffix)?;
        let verified = if suffix == "tar" { "None" } else { "Stream" };
        ensure!(said.contains(&format!("verified: {verified};")), "{said}");
        ensure!(said.contains(&format!("  {suffix}, ")), "{said}");
    }
    Ok(())
}

async fn a_store_that_fails_for_a_while(shared: &Shared) -> Result<()> {
    let proxy = shared.server.fault_proxy().await?;
    proxy.set(Fault::Truncate(700_000)).await?;
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    let url = format!("s3://{BUCKET}/odd.tar.gz");
    let words = ["restore", &url, target];
    let proxy = Arc::new(proxy);
    let mending = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            proxy.set(Fault::None).await
        }
    });
    let endpoint = proxy.endpoint();
    let output = tokio::task::block_in_place(|| populator(shared, &endpoint, &words));
    mending.await??;
    let output = output?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{complaint}");
    same(shared, to.path())
}

async fn what_cannot_be_restored_is_said(shared: &Shared) -> Result<()> {
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    let said = failure(
        shared,
        &["restore", &format!("s3://{BUCKET}/absent"), target],
    )?;
    ensure!(said.contains("does not exist"), "{said}");
    fs::write(to.path().join("mine"), "precious")?;
    let said = failure(
        shared,
        &["restore", &format!("s3://{BUCKET}/odd.tar"), target],
    )?;
    ensure!(
        said.contains("not empty") && !said.contains("delete that"),
        "{said}"
    );
    ensure!(fs::read(to.path().join("mine"))? == b"precious");
    let archive = shared.archives.join("odd.tar");
    let archive = archive.to_str().context("UTF-8")?;
    let file = to.path().join("mine");
    let said = failure(
        shared,
        &["restore", archive, file.to_str().context("UTF-8")?],
    )?;
    ensure!(said.contains("directory"), "{said}");
    Ok(())
}
