//! `docs/troubleshooting.md` has every reason that a restore may be told to wait or to be over for, in the
//! words of the types that say it. `DOCS_WRITE=1` writes it anew.

// Clippy takes helpers of integration tests for programs.
#![allow(clippy::unwrap_used)]

mod endings;
mod refusals;
mod restores;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use endings::{endings, hindrances};
use refusals::{refusals, stores};
use restores::{attempts, restores};

/// One reason.
struct Row {
    reason: String,
    words: String,
    then: &'static str,
}

const MENDED: &str = "over; tried again when the VolumeBackup is changed or the PVC annotated";

/// What a PVC asks for cannot be changed.
const OF_THE_CLAIM: &str = "over; delete the PVC and make it again";
const BY_ITSELF: &str = "tried again by itself, after longer and longer pauses";
const ON_CHANGE: &str = "goes on when what it names is changed";
const LATER: &str = "goes on when what it names is changed; looked at again by itself too";

#[tokio::test]
async fn every_reason_is_on_its_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let page = page().await;
    if std::env::var_os("DOCS_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == page,
        "docs/troubleshooting.md is stale: run `make docs`"
    );
}

async fn page() -> String {
    let mut page = String::from(
        "# Why a restore waits, or is over\n\n\
         <!-- Made by `make docs` from the program's own types; do not edit. -->\n\n\
         `kubectl describe pvc NAME` shows it as a Warning, `kubectl describe volumerestore NAME` as the\n\
         condition `Ready`, both in the same words, of which one in CamelCase is the reason. No volume is\n\
         bound before it is complete, and what was written of one that is over is deleted. In capitals stands\n\
         what differs from case to case.\n\n\
         To have one that is over tried again, change the VolumeBackup, or annotate the PVC:\n\
         `kubectl annotate --overwrite pvc NAME backup.example.com/retry=$(date +%s)`\n",
    );
    let sections = [
        (
            "Before there is a volume",
            "Found by the controller.",
            refusals(),
        ),
        (
            "The store",
            "Found by the controller when it looks at the archive.",
            stores(),
        ),
        (
            "The archive and the volume",
            "Found by the agent on the node while it restores; `populator restore` and `verify` say the \
             same.",
            restores(),
        ),
        (
            "The node and its CSI driver",
            "Found by the agent.",
            attempts().await,
        ),
        ("In the end", "Found by the controller.", endings()),
        ("On the way", "Found by the controller.", hindrances()),
    ];
    for (title, who, rows) in sections {
        write!(page, "\n## {title}\n\n{who}\n\n").unwrap();
        page.push_str("| reason | what is said, and what to do | then |\n|---|---|---|\n");
        for row in rows {
            let words = row.words.replace('|', "\\|").replace(['<', '>'], "");
            writeln!(page, "| `{}` | {words} | {} |", row.reason, row.then).unwrap();
        }
    }
    page
}

/// That each kind is there once at least.
fn complete<E, D: From<E> + Eq + std::hash::Hash + std::fmt::Debug + strum::IntoEnumIterator>(
    given: impl IntoIterator<Item = E>,
) {
    let given: HashSet<D> = given.into_iter().map(D::from).collect();
    let missing: Vec<D> = D::iter().filter(|kind| !given.contains(kind)).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

fn text(word: &str) -> String {
    word.to_owned()
}
