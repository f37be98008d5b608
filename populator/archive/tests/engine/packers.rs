//! What any program packs comes back as it was, to the eyes of the comparer and of other programs.
//!
//! star is not among them: Debian has none.

use std::path::Path;
use std::process::Command;

use archive::{Devices, Outcome};
use proptest::prelude::*;

use crate::compare::{assert_same, assert_same_for_others, difference_in_holes};
use crate::pack;
use crate::support::{Memory, options, restore_from};
use crate::tree::{self, Limits};

/// All that a file system has.
const ALL: Limits = Limits {
    rich: true,
    devices: true,
    path: 2000,
    fifos: true,
    large_ids: true,
};
const GNU: Limits = Limits { rich: false, ..ALL };
const USTAR: Limits = Limits {
    path: 98,
    large_ids: false,
    ..GNU
};
const V7: Limits = Limits {
    fifos: false,
    devices: false,
    ..USTAR
};

/// A random tree, packed by the command that `packer` gives for its root, and restored.
fn round_trip(
    limits: Limits,
    seed: u64,
    holes: bool,
    packer: impl Fn(&Path) -> Command,
) -> Outcome {
    round_trip_of(80, limits, seed, holes, packer)
}

fn round_trip_of(
    entries: usize,
    limits: Limits,
    seed: u64,
    holes: bool,
    packer: impl Fn(&Path) -> Command,
) -> Outcome {
    let (original, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree::make(original.path(), limits, seed, entries);
    let packed = pack::output(&mut packer(original.path()));
    let mut options = options();
    options.devices = Devices::Create;
    options.strict = true;
    let outcome = restore_from(Memory::new(packed), to.path(), &options).unwrap();
    assert_same(original.path(), to.path());
    assert_same_for_others(original.path(), to.path());
    if holes {
        assert_eq!(difference_in_holes(original.path(), to.path()), None);
    }
    outcome
}

/// A program that packs what is in a folder.
fn packer(program: &str, options: &[&str]) -> impl Fn(&Path) -> Command {
    move |root| {
        let mut command = Command::new(program);
        command.args(options).arg("-C").arg(root).arg(".");
        command
    }
}

/// What GNU tar needs to be told in order to forget nothing.
const EVERYTHING: [&str; 6] = [
    "-c",
    "--format=posix",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--selinux",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    /// Trees that nobody has seen before.
    #[test]
    fn any_tree(entries in 1_usize..60, seed: u64, sparse: bool) {
        let sparse = if sparse { &["--sparse"][..] } else { &[] };
        let options = [&EVERYTHING[..], sparse].concat();
        round_trip_of(entries, ALL, seed, !sparse.is_empty(), packer("tar", &options));
    }
}

/// Names, modes, owners, times, attributes, ACLs, links, holes, pipes and devices are all drawn.
#[test]
fn gnu_tar_of_everything() {
    for seed in 60..66 {
        let sparse = [&EVERYTHING[..], &["--sparse"]].concat();
        round_trip(ALL, seed, true, packer("tar", &sparse));
    }
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        let sparse = [&EVERYTHING[..], &["--sparse", &version]].concat();
        round_trip(ALL, 66, true, packer("tar", &sparse));
    }
    round_trip(ALL, 67, false, packer("tar", &EVERYTHING));
}

#[test]
fn gnu_tar_in_older_formats() {
    for format in ["gnu", "oldgnu"] {
        let format = format!("--format={format}");
        round_trip(GNU, 68, false, packer("tar", &["-c", &format]));
        round_trip(GNU, 69, true, packer("tar", &["-c", &format, "--sparse"]));
    }
    round_trip(USTAR, 70, false, packer("tar", &["-c", "--format=ustar"]));
    round_trip(V7, 71, false, packer("tar", &["-c", "--format=v7"]));
}

#[test]
fn bsdtar() {
    let pax = ["-c", "--format=pax", "--acls", "--xattrs"];
    round_trip(ALL, 72, true, packer("bsdtar", &pax));
    let gnu = Limits {
        large_ids: false,
        ..GNU
    };
    round_trip(gnu, 74, false, packer("bsdtar", &["-c", "--format=gnutar"]));
    round_trip(
        USTAR,
        75,
        false,
        packer("bsdtar", &["-c", "--format=ustar"]),
    );
}

#[test]
fn busybox() {
    let tar = |root: &Path| {
        let mut command = Command::new("busybox");
        command.args(["tar", "-c", "-C"]).arg(root).arg(".");
        command
    };
    round_trip(USTAR, 76, false, tar);
}

#[test]
fn python() {
    let script = "import sys, tarfile\n\
                  format = getattr(tarfile, sys.argv[1] + '_FORMAT')\n\
                  with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=format) as t:\n \
                  t.add(sys.argv[2], arcname='.')";
    for (limits, format) in [(GNU, "PAX"), (GNU, "GNU"), (USTAR, "USTAR")] {
        let tarfile = |root: &Path| {
            let mut command = Command::new("python3");
            command.args(["-c", script, format]).arg(root);
            command
        };
        round_trip(limits, 77, false, tarfile);
    }
}

#[test]
fn go() {
    let scratch = tempfile::tempdir().unwrap();
    let program = scratch.path().join("pack");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/pack.go");
    pack::output(
        Command::new("go")
            .args(["build", "-o"])
            .args([program.as_path(), Path::new(source)])
            .env("CGO_ENABLED", "0"),
    );
    // It cannot ask for the attributes of what is neither a file nor a directory, and its ustar has
    // names of ASCII alone.
    let plain = Limits {
        devices: false,
        ..ALL
    };
    for (limits, format) in [(plain, "pax"), (GNU, "gnu")] {
        let tar = |root: &Path| {
            let mut command = Command::new(&program);
            command.arg(format).arg(root);
            command
        };
        round_trip(limits, 78, false, tar);
    }
}
