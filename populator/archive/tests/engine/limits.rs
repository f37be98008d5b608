//! Archives that have more of something than they may.

use archive::{Limits, Options, RestoreError};

use crate::pack::{self, CHECKED, compress};
use crate::support::{Memory, options, restore_from};

/// Restores within limits into a directory that is thrown away.
fn within(limits: &Limits, object: &[u8]) -> Result<(), RestoreError> {
    let to = tempfile::tempdir().unwrap();
    let options = Options {
        limits: limits.clone(),
        ..options()
    };
    restore_from(Memory::new(object.to_vec()), to.path(), &options).map(drop)
}

/// The message of a failure with this reason.
fn beyond(limits: &Limits, object: &[u8], reason: &str) -> String {
    let error = within(limits, object).unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    error.to_string()
}

#[test]
fn entries_names_and_headers() {
    let original = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    std::fs::write(original.path().join(&long), "content").unwrap();
    let plain = pack::tar(original.path(), &["--format=pax"]);
    // The root, and the file in it by its name with "./".
    let limits = Limits {
        entries: 2,
        name: 202,
        ..Limits::default()
    };
    within(&limits, &plain).unwrap();
    let fewer = Limits {
        entries: 1,
        ..limits.clone()
    };
    let said = beyond(&fewer, &plain, "LimitExceeded");
    assert!(said.contains("more than 1 entries"), "{said}");
    let shorter = Limits {
        name: 201,
        ..limits.clone()
    };
    let said = beyond(&shorter, &plain, "EntryRefused");
    assert!(said.contains("longer than 201 bytes"), "{said}");
    let smaller = Limits {
        headers: 100,
        ..limits
    };
    let said = beyond(&smaller, &plain, "EntryRefused");
    assert!(said.contains("100 are read"), "{said}");
}

/// 100 MiB of zeros in a file, and as many behind the end of the archive.
#[test]
fn bombs_of_every_compression() {
    let original = tempfile::tempdir().unwrap();
    std::fs::write(original.path().join("small"), "content").unwrap();
    let small = pack::tar(original.path(), &["--format=pax"]);
    let trailing = [&small[..], &vec![0; 100 << 20]].concat();
    let file = std::fs::File::create(original.path().join("zeros")).unwrap();
    file.set_len(100 << 20).unwrap();
    let zeros = pack::tar(original.path(), &["--format=pax"]);
    for compression in CHECKED {
        for bomb in [&trailing, &zeros] {
            let object = compress(compression, bomb);
            within(&Limits::default(), &object).unwrap();
            let size = Limits {
                unpacked: 50 << 20,
                ..Limits::default()
            };
            let said = beyond(&size, &object, "LimitExceeded");
            assert!(said.contains("52428800 unpacked bytes"), "{said}");
            let ratio = Limits {
                ratio: 20,
                ..Limits::default()
            };
            let said = beyond(&ratio, &object, "LimitExceeded");
            assert!(said.contains("for each stored one"), "{said}");
            let enough = Limits {
                unpacked: 102 << 20,
                ratio: 1 << 20,
                ..Limits::default()
            };
            within(&enough, &object).unwrap();
        }
    }
}
