//! What of an archive is restored, and how.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::odd_tree;

use super::{Shared, failure, populator, success};

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

pub async fn what_is_chosen_is_restored(shared: &Shared) -> Result<()> {
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

pub async fn owners_and_rights_are_chosen(shared: &Shared) -> Result<()> {
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

pub async fn what_is_there_is_refused_kept_or_replaced(shared: &Shared) -> Result<()> {
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
