//! What people run by hand, on a real S3 server and without Kubernetes.

mod web;

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
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

async fn a_whole_archive_is_told_from_a_damaged_one(shared: &Shared) -> Result<()> {
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

async fn a_checksum_that_is_wrong_fails(shared: &Shared) -> Result<()> {
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

async fn entries_are_listed_as_tar_does(shared: &Shared) -> Result<()> {
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

/// Packs these files, each with its own name in it, with GNU tar.
fn pack(names: &[&str]) -> Result<(TempDir, String)> {
    let folder = TempDir::new()?;
    for name in names {
        let path = folder.path().join("tree").join(name);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        fs::write(path, name)?;
    }
    let archive = folder.path().join("archive.tar.gz");
    odd_tree::pack(&folder.path().join("tree"), &archive, "tar.gz")?;
    let archive = archive.to_str().context("UTF-8")?.to_owned();
    Ok((folder, archive))
}

/// The files beneath a directory with what is in them.
fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let names = tests::command::run(
        Command::new("find")
            .current_dir(folder)
            .args(["-type", "f", "-printf", "%P\\n"]),
    )?;
    let mut found = Vec::new();
    for name in names.lines() {
        found.push((name.to_owned(), fs::read_to_string(folder.join(name))?));
    }
    found.sort();
    Ok(found)
}

async fn what_is_chosen_is_restored(shared: &Shared) -> Result<()> {
    let (_folder, archive) = pack(&["etc/a.conf", "var/lib/db/1", "var/lib/db/2.tmp", "var/x"])?;
    for (choice, expected) in [
        (
            &["--include", "etc", "--include", "**/1"][..],
            &[
                ("etc/a.conf", "etc/a.conf"),
                ("var/lib/db/1", "var/lib/db/1"),
            ][..],
        ),
        (
            &["--sub-path", "var/lib", "--exclude", "**/*.tmp"],
            &[("db/1", "var/lib/db/1")],
        ),
        (
            &["--strip-components", "2"],
            &[("db/1", "var/lib/db/1"), ("db/2.tmp", "var/lib/db/2.tmp")],
        ),
    ] {
        let to = TempDir::new()?;
        let target = to.path().to_str().context("UTF-8")?;
        let said = success(shared, &[&["restore", &archive, target], choice].concat())?;
        ensure!(said.contains("left out: "), "{said}");
        let meant: Vec<_> = expected
            .iter()
            .map(|(name, content)| ((*name).to_owned(), (*content).to_owned()))
            .collect();
        let found = files(to.path())?;
        ensure!(found == meant, "{choice:?}: {found:?}");
    }
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    let said = failure(
        shared,
        &["restore", &archive, target, "--include", "absent"],
    )?;
    ensure!(said.contains("is chosen"), "{said}");
    Ok(())
}

async fn owners_and_rights_are_chosen(shared: &Shared) -> Result<()> {
    let folder = TempDir::new()?;
    let tree = folder.path().join("tree");
    fs::create_dir(&tree)?;
    fs::write(tree.join("program"), "")?;
    // Whose number here is another than in the archive.
    let archive = folder.path().join("archive.tar");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=daemon:1000", "--group=daemon:1000"]);
    tests::command::run(
        tar.args(["--mode=u+s,g+s", "--file"])
            .arg(&archive)
            .args(["--directory"])
            .arg(&tree)
            .arg("program"),
    )?;
    let archive = archive.to_str().context("UTF-8")?;
    for (choice, owner, mode) in [
        (&[][..], (1000, 1000), 0o6000),
        (&["--owners-by-name"], (1, 1), 0o6000),
        (&["--owner", "7:8", "--no-setuid"], (7, 8), 0),
        (
            &["--map-user", "1000-1999:5000", "--map-group", "1:2"],
            (5000, 1000),
            0o6000,
        ),
    ] {
        let to = TempDir::new()?;
        let target = to.path().to_str().context("UTF-8")?;
        let said = success(shared, &[&["restore", archive, target], choice].concat())?;
        let found = fs::metadata(to.path().join("program"))?;
        ensure!((found.uid(), found.gid()) == owner, "{choice:?}: {found:?}");
        ensure!(found.mode() & 0o6000 == mode, "{choice:?}: {found:?}");
        ensure!(said.contains("by choice: setuid") == (mode == 0), "{said}");
    }
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    let said = failure(shared, &["restore", archive, target, "--map-user", "9-1:0"])?;
    ensure!(said.contains("9-1:0"), "{said}");
    let words = ["restore", archive, target, "--owner=1:1", "--map-user=1:2"];
    let both = populator(shared, &shared.server.endpoint(), &words)?;
    ensure!(both.status.code() == Some(2), "{both:?}");
    Ok(())
}

async fn what_is_there_is_refused_kept_or_replaced(shared: &Shared) -> Result<()> {
    let (_folder, archive) = pack(&["a", "d/b"])?;
    let to = TempDir::new()?;
    let target = to.path().to_str().context("UTF-8")?;
    fs::create_dir(to.path().join("d"))?;
    fs::write(to.path().join("d/b"), "mine")?;
    fs::write(to.path().join("d/c"), "mine too")?;
    let all = |b: &str, a: Option<&str>| -> Vec<(String, String)> {
        let a = a.map(|a| ("a".to_owned(), a.to_owned()));
        let rest = [("d/b", b), ("d/c", "mine too")];
        let rest = rest.map(|(name, content)| (name.to_owned(), content.to_owned()));
        a.into_iter().chain(rest).collect()
    };
    let said = failure(shared, &["restore", &archive, target])?;
    ensure!(
        said.contains("not empty") && said.contains("--existing=keep"),
        "{said}"
    );
    ensure!(files(to.path())? == all("mine", None));
    success(shared, &["restore", &archive, target, "--existing=keep"])?;
    ensure!(files(to.path())? == all("mine", Some("a")));
    success(
        shared,
        &["restore", &archive, target, "--existing=overwrite"],
    )?;
    ensure!(files(to.path())? == all("d/b", Some("a")));
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

async fn what_is_packed_comes_back(shared: &Shared) -> Result<()> {
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

async fn an_image_comes_back(shared: &Shared) -> Result<()> {
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

async fn what_is_encrypted_comes_back(shared: &Shared) -> Result<()> {
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
