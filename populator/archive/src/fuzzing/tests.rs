//! What the fuzzer kept, once more, and beside Python's tarfile too.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");

fn corpus(target: &str) -> Vec<PathBuf> {
    let kept = fs::read_dir(format!("{FUZZ}/corpus/{target}")).unwrap();
    let mut paths: Vec<_> = kept.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is a corpus");
    paths
}

/// One line for each entry, as `fuzz/peer.py` prints them.
fn lines(entries: &[Seen]) -> Vec<String> {
    let content = |seen: &Seen| seen.content.as_ref().map_or("?".to_owned(), hex::encode);
    let line = |seen: &Seen| {
        let (name, target) = (hex::encode(&seen.name), hex::encode(&seen.target));
        format!(
            "{} {} {name} {target} {}",
            seen.kind,
            seen.size,
            content(seen)
        )
    };
    entries.iter().map(line).collect()
}

#[test]
fn the_corpus_is_read_as_the_tar_crate_reads_it() {
    for path in corpus("tar") {
        compare(&fs::read(path).unwrap());
    }
}

#[test]
fn indexes_of_the_corpus() {
    let records = corpus("index")
        .into_iter()
        .map(|path| index(&fs::read(path).unwrap()));
    assert!(records.sum::<u64>() > 0, "none has a record");
}

#[test]
fn the_corpus_is_read_as_python_reads_it() {
    let paths = corpus("tar");
    let done = Command::new("python3")
        .arg(format!("{FUZZ}/peer.py"))
        .args(&paths)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let said = String::from_utf8(done.stdout).unwrap();
    let mut theirs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in said.lines() {
        let (path, entry) = line.split_once('\t').unwrap();
        let entries = theirs.entry(path).or_default();
        if !entry.is_empty() {
            entries.push(entry);
        }
    }
    let mut compared = 0;
    let mut differing = Vec::new();
    for path in &paths {
        let (Ok(ours), Some(theirs)) = (
            entries(&fs::read(path).unwrap()),
            theirs.get(path.to_str().unwrap()),
        ) else {
            continue;
        };
        compared += 1;
        if lines(&ours) != *theirs {
            differing.push((path, lines(&ours), theirs));
        }
    }
    assert!(
        differing.is_empty(),
        "{} differ: {:#?}",
        differing.len(),
        differing.first()
    );
    assert!(compared > 10, "only {compared} were compared");
}
