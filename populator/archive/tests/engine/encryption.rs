//! Archives that are encrypted with age: by its own program, and by its library for passphrases, which
//! the program takes from a terminal alone.

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use age::secrecy::SecretString;
use archive::{Identities, Limits, Options, Outcome, Progress, RestoreError, Verified};
use tokio_util::sync::CancellationToken;

use crate::compare::assert_same;
use crate::pack::{self, ALL, compress, filter};
use crate::support::{Memory, RUNTIME, Random, options, restore_from};

/// What `age-keygen` makes: the file of an identity, and its recipient.
fn keygen() -> (String, String) {
    let file = String::from_utf8(pack::output(&mut Command::new("age-keygen"))).unwrap();
    let (_, rest) = file.split_once("public key: ").unwrap();
    let recipient = rest.lines().next().unwrap().to_owned();
    (file, recipient)
}

fn encrypt(recipients: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut arguments = vec!["--encrypt"];
    for recipient in recipients {
        arguments.extend(["--recipient", recipient]);
    }
    filter("age", &arguments, bytes)
}

fn encrypt_with_passphrase(passphrase: &str, work_factor: u8, bytes: &[u8]) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(work_factor);
    let recipients = std::iter::once(&recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn with_keys(files: &[&str]) -> Options {
    let mut identities = Identities::default();
    for file in files {
        identities.add_keys(file).unwrap();
    }
    Options {
        identities,
        ..options()
    }
}

fn with_passphrase(passphrase: &str) -> Options {
    let mut identities = Identities::default();
    identities.set_passphrase(passphrase).unwrap();
    Options {
        identities,
        ..options()
    }
}

fn restore(object: Vec<u8>, options: &Options) -> Result<Outcome, RestoreError> {
    let to = tempfile::tempdir().unwrap();
    restore_from(Memory::new(object), to.path(), options)
}

fn failure(object: Vec<u8>, options: &Options) -> (&'static str, String) {
    let error = restore(object, options).expect_err("this must not be restored");
    (error.reason(), error.to_string())
}

/// Some files of this many bytes altogether, and their archive.
fn tree(bytes: usize) -> (tempfile::TempDir, Vec<u8>) {
    let original = tempfile::tempdir().unwrap();
    let mut random = Random(70);
    for index in 0..3 {
        let content = random.bytes(bytes / 3);
        std::fs::write(original.path().join(format!("{index}")), content).unwrap();
    }
    let packed = pack::tar(original.path(), &["--format=pax"]);
    (original, packed)
}

#[test]
fn every_compression_comes_back() {
    let (original, plain) = tree(3_000_000);
    let ((mine, to_me), (other, _)) = (keygen(), keygen());
    let (_, to_another) = keygen();
    for compression in ALL {
        let object = encrypt(&[&to_another, &to_me], &compress(compression, &plain));
        let to = tempfile::tempdir().unwrap();
        let options = with_keys(&[&other, &mine]);
        let outcome = restore_from(Memory::new(object), to.path(), &options).unwrap();
        assert_same(original.path(), to.path());
        // Plain tar too: all of it is authenticated.
        assert_eq!(outcome.verified, Verified::Stream, "{compression:?}");
        assert!(outcome.format.encrypted, "{compression:?}");
    }
}

/// At, before and after the ends of age's chunks.
#[test]
fn every_length_comes_back() {
    let (mine, to_me) = keygen();
    for length in [0, 1, 512] {
        let (original, plain) = tree(3000);
        for chunks in 1..3 {
            let zeros = vec![0; (chunks * (64 << 10) - plain.len()).saturating_sub(length)];
            let object = encrypt(&[&to_me], &[&plain[..], &zeros].concat());
            let to = tempfile::tempdir().unwrap();
            restore_from(Memory::new(object.clone()), to.path(), &with_keys(&[&mine])).unwrap();
            assert_same(original.path(), to.path());
            let longer = [&object[..], b"x"].concat();
            assert_eq!(failure(longer, &with_keys(&[&mine])).0, "ArchiveCorrupt");
        }
    }
}

#[test]
fn passphrases() {
    let (_original, plain) = tree(100_000);
    let object = encrypt_with_passphrase("correct horse", 10, &plain);
    let right = with_passphrase("correct horse\nbattery staple");
    restore(object.clone(), &right).unwrap();
    let wrong = with_passphrase("battery staple");
    assert_eq!(failure(object.clone(), &wrong).0, "IdentityWrong");
    for none in [options(), with_keys(&[&keygen().0])] {
        let (reason, message) = failure(object.clone(), &none);
        assert_eq!(reason, "IdentityMissing");
        assert!(message.contains("give the passphrase"), "{message}");
    }
}

/// What age(1) makes is read by default, and what takes more memory is refused before it takes it.
#[test]
fn work_factors() {
    let (_original, plain) = tree(1000);
    let usual = encrypt_with_passphrase("secret", 18, &plain);
    restore(usual.clone(), &with_passphrase("secret")).unwrap();
    let lower = Options {
        limits: Limits {
            work_factor: 17,
            ..Limits::default()
        },
        ..with_passphrase("secret")
    };
    let (reason, message) = failure(usual.clone(), &lower);
    assert_eq!(reason, "WorkFactorTooHigh", "{message}");
    assert!(
        message.contains("18") && message.contains("17"),
        "{message}"
    );
    // The factor is the last argument of the only recipient; its authentication code comes later.
    let at = usual.windows(4).position(|it| it == b" 18\n").unwrap();
    let mut hostile = usual;
    hostile[at + 1..at + 3].copy_from_slice(b"40");
    let begun = Instant::now();
    let (reason, message) = failure(hostile, &with_passphrase("secret"));
    assert_eq!(reason, "WorkFactorTooHigh", "{message}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn identities_that_do_not_fit() {
    let (_original, plain) = tree(100_000);
    let ((mine, to_me), (other, _)) = (keygen(), keygen());
    let object = encrypt(&[&to_me], &plain);
    for none in [options(), with_passphrase("secret")] {
        let (reason, message) = failure(object.clone(), &none);
        assert_eq!(reason, "IdentityMissing");
        assert!(message.contains("an identity"), "{message}");
    }
    assert_eq!(failure(object, &with_keys(&[&other])).0, "IdentityWrong");
    // What is not encrypted needs none.
    restore(plain.clone(), &with_keys(&[&mine])).unwrap();
    let twice = encrypt(&[&to_me], &encrypt(&[&to_me], &plain));
    let (reason, message) = failure(twice, &with_keys(&[&mine]));
    assert_eq!(reason, "NotAnArchive");
    assert!(message.contains("once more"), "{message}");
    let armored = filter("age", &["--armor", "--encrypt", "-r", &to_me], &plain);
    let (reason, message) = failure(armored, &with_keys(&[&mine]));
    assert_eq!(reason, "NotAnArchive");
    assert!(message.contains("--armor"), "{message}");
}

#[test]
fn cut_off_anywhere() {
    let (_original, plain) = tree(400_000);
    let (mine, to_me) = keygen();
    let options = with_keys(&[&mine]);
    for compression in [ALL[0], ALL[2]] {
        let object = encrypt(&[&to_me], &compress(compression, &plain));
        let header = object.len() - encrypted_length(&object);
        let mut random = Random(71);
        let mut ends: Vec<usize> = (20..header + 40).collect();
        ends.extend(object.len() - 40..object.len());
        ends.extend((1..6).map(|chunk| header + 16 + chunk * ((64 << 10) + 16)));
        ends.extend((0..500).map(|_| random.index(object.len() - 20) + 20));
        for end in ends.into_iter().filter(|end| *end < object.len()) {
            let (reason, message) = failure(object[..end].to_vec(), &options);
            let expected = if end < header + 16 {
                ["ArchiveTruncated"].as_slice()
            } else {
                &["ArchiveTruncated", "ArchiveCorrupt"]
            };
            assert!(expected.contains(&reason), "{end}: {message}");
        }
    }
}

/// Bytes behind the header.
fn encrypted_length(object: &[u8]) -> usize {
    let mac = object.windows(5).position(|it| it == b"\n--- ").unwrap();
    let line = object[mac + 1..]
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap();
    object.len() - (mac + 1 + line + 1)
}

#[test]
fn one_bit_flipped() {
    let (_original, plain) = tree(100_000);
    let (mine, to_me) = keygen();
    let object = encrypt(&[&to_me], &plain);
    let header = object.len() - encrypted_length(&object);
    let mut random = Random(72);
    let mut bits: Vec<usize> = (0..500).map(|_| random.index(object.len() * 8)).collect();
    bits.extend((0..100).map(|_| random.index(header * 8)));
    for bit in bits {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let to = tempfile::tempdir().unwrap();
        let options = with_keys(&[&mine]);
        let error = restore_from(Memory::new(flipped), to.path(), &options).unwrap_err();
        let reason = error.reason();
        let expected: &[&str] = match bit / 8 {
            at if at >= header => &["ArchiveCorrupt"],
            _ => &[
                "ArchiveCorrupt",
                "ArchiveTruncated",
                "IdentityWrong",
                "NotAnArchive",
            ],
        };
        assert!(expected.contains(&reason), "bit {bit}: {error}");
    }
}

/// Headers are bounded, whatever they are made of.
#[test]
fn hostile_headers() {
    let line = [b'A'; 64];
    let mut body = b"age-encryption.org/v1\n-> X25519 abc\n".to_vec();
    for _ in 0..100_000 {
        body.extend(line);
        body.push(b'\n');
    }
    let mut stanzas = b"age-encryption.org/v1\n".to_vec();
    stanzas.extend(b"-> a\n\n".repeat(1_000_000));
    let mut most = b"age-encryption.org/v1\n".to_vec();
    let stanza = [&b"-> a\n"[..], &[b'A'; 64], b"\n\n"].concat();
    most.extend(stanza.repeat(332));
    most.extend(b"--- ");
    most.extend([b'A'; 43]);
    most.extend(b"\n0123456789abcdef");
    let endless = [b"age-encryption.org/v1".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let options = with_keys(&[&keygen().0]);
    for (object, expected) in [
        (body, "ArchiveCorrupt"),
        (stanzas, "ArchiveCorrupt"),
        (endless, "ArchiveCorrupt"),
        (most, "IdentityWrong"),
        (b"age-encryption.org/v2\nrest".to_vec(), "NotAnArchive"),
    ] {
        let begun = Instant::now();
        let (reason, message) = failure(object, &options);
        assert_eq!(reason, expected, "{message}");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn cancelled_while_making_the_key() {
    let (_original, plain) = tree(1000);
    let object = encrypt_with_passphrase("secret", 18, &plain);
    let to = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    let canceller = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
            Instant::now()
        }
    });
    let error = archive::restore(
        Arc::new(Memory::new(object)),
        std::os::fd::AsFd::as_fd(&std::fs::File::open(to.path()).unwrap()),
        &with_passphrase("secret"),
        &Arc::new(Progress::default()),
        &cancel,
        RUNTIME.handle(),
    )
    .unwrap_err();
    assert_eq!(error.reason(), "Cancelled");
    assert!(canceller.join().unwrap().elapsed() < Duration::from_millis(300));
}
