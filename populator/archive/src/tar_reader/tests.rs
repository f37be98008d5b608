use proptest::prelude::*;

use super::*;
use crate::entry::{Kind, Layout, Time, Xattr};
use crate::stream::Memory;

type Read = Vec<(Entry, Vec<u8>)>;

/// All entries with their data, where the stream gives at most `step` bytes at a time.
fn read(bytes: &[u8], step: usize) -> Result<Read, RestoreError> {
    let memory = Memory {
        bytes,
        position: 0,
        step,
    };
    let mut reader = TarReader::new(memory, Limits::default(), Mark::default())?;
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        loop {
            let data = reader.data()?;
            let count = data.len();
            if count == 0 {
                break;
            }
            content.extend_from_slice(data);
            reader.consume(count);
        }
        all.push((entry, content));
    }
    Ok(all)
}

fn append(to: &mut Vec<u8>, kind: u8, name: &str, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().linkflag = [kind];
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(data.len() as u64);
    header.set_mode(0o100_644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(5);
    header.set_cksum();
    to.extend_from_slice(header.as_bytes());
    to.extend_from_slice(data);
    to.resize(to.len().next_multiple_of(BLOCK), 0);
}

fn archive(parts: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, data) in parts {
        append(&mut bytes, *kind, name, data);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

#[test]
fn seams_between_buffers_change_nothing() {
    let data: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let bytes = archive(&[
        (b'g', "global", b"16 comment=text\n9 gid=77\n"),
        (
            b'x',
            "pax",
            b"13 path=long\n12 mtime=-3\n22 SCHILY.xattr.u.x=1\n",
        ),
        (b'0', "short", &data),
        (b'L', "L", b"another long name\0"),
        (b'7', "short", b"x"),
        (b'V', "label", b""),
        (b'5', "directory", b""),
    ]);
    let whole = read(&bytes, usize::MAX).unwrap();
    for step in [1, 7, 511, 512, 513, 4096] {
        assert_eq!(read(&bytes, step).unwrap(), whole);
    }
    let (first, content) = &whole[0];
    assert_eq!((first.path.as_slice(), content), (&b"long"[..], &data));
    assert_eq!(
        first.metadata.modified,
        Time {
            seconds: -3,
            nanoseconds: 0
        }
    );
    assert_eq!((first.metadata.gid, first.metadata.mode), (77, 0o644));
    assert_eq!(
        first.metadata.xattrs,
        [Xattr {
            name: b"u.x".into(),
            value: b"1".into()
        }]
    );
    let (second, _) = &whole[1];
    assert_eq!(
        (second.path.as_slice(), second.metadata.gid),
        (&b"another long name"[..], 77)
    );
    assert!(
        second.metadata.xattrs.is_empty(),
        "a local header is for one entry"
    );
    assert_eq!((&whole[2].0.kind, whole.len()), (&Kind::Directory, 3));
}

#[test]
fn the_size_in_a_local_header_is_for_the_entry_alone() {
    // Were it applied to the long name's own header, data would be read as headers.
    let bytes = archive(&[
        (b'x', "pax", b"10 size=3\n"),
        (b'L', "L", b"name of the entry\0"),
        (b'0', "short", b"abc"),
    ]);
    let all = read(&bytes, 100).unwrap();
    assert_eq!(
        (all[0].0.path.as_slice(), all[0].1.as_slice()),
        (&b"name of the entry"[..], &b"abc"[..])
    );
}

#[test]
fn a_hard_link_has_no_data_whatever_its_size_says() {
    let mut bytes = Vec::new();
    append(&mut bytes, b'1', "link", b"");
    let mut header = *tar::Header::from_byte_slice(&bytes).as_bytes();
    header[124..136].copy_from_slice(b"00000001000\0");
    let mut header = tar::Header::from_byte_slice(&header).clone();
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    append(&mut bytes, b'0', "file", b"x");
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    let names: Vec<_> = read(&bytes, 512)
        .unwrap()
        .into_iter()
        .map(|(entry, _)| entry.path)
        .collect();
    assert_eq!(names, [b"link", b"file"]);
}

#[test]
fn headers_that_belong_to_no_entry_are_errors() {
    for orphan in [
        (b'x', "pax", &b"10 size=3\n"[..]),
        (b'L', "L", b"name\0"),
        (b'K', "K", b"name\0"),
    ] {
        let error = read(&archive(&[orphan]), 512).unwrap_err();
        assert_eq!(error.reason(), "ArchiveCorrupt");
    }
    let between = archive(&[
        (b'L', "L", b"name\0"),
        (b'g', "g", b"9 gid=77\n"),
        (b'0', "f", b""),
    ]);
    assert_eq!(read(&between, 512).unwrap_err().reason(), "ArchiveCorrupt");
}

#[test]
fn extended_headers_are_bounded_together() {
    let record = |length: usize| {
        let mut record = format!("{length} comment=").into_bytes();
        record.resize(length - 1, b'x');
        record.push(b'\n');
        record
    };
    let large = record(700_000);
    let twice = archive(&[
        (b'x', "pax", &large),
        (b'x', "pax", &large),
        (b'0', "f", b""),
    ]);
    assert_eq!(read(&twice, 4096).unwrap_err().reason(), "EntryRefused");
    let once = archive(&[
        (b'x', "p", &large),
        (b'0', "f", b""),
        (b'x', "p", &large),
        (b'0', "g", b""),
    ]);
    assert_eq!(read(&once, 4096).unwrap().len(), 2);
    let globals = archive(&[(b'g', "g", &large), (b'0', "f", b""), (b'g', "g", &large)]);
    assert_eq!(read(&globals, 4096).unwrap_err().reason(), "EntryRefused");
}

/// One of every kind of header, for mutations.
fn specimen() -> Vec<u8> {
    let map = [&b"2\n0\n512\n1024\n1\n"[..], &[0; 497], &[b'd'; 513]].concat();
    let sparse = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=2000\n";
    let mut bytes = archive(&[
        (b'g', "global", b"9 gid=77\n"),
        (b'x', "pax", b"20 mtime=-3.1234567\n"),
        (b'0', "file", &[b'f'; 700]),
        (b'x', "pax", sparse),
        (b'0', "sparse", &map),
        (b'L', "L", b"a longer name\0"),
        (b'K', "K", b"a longer target\0"),
        (b'2', "link", b""),
    ]);
    // An old GNU sparse file: one extent, and one more in a block of its own.
    bytes.truncate(bytes.len() - 2 * BLOCK);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("old").unwrap();
    header.set_size(2);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].offset = *b"00000000000\0";
    gnu.sparse[0].numbytes = *b"00000000001\0";
    gnu.realsize = *b"00000001000\0";
    gnu.isextended = [1];
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    let mut more = tar::GnuExtSparseHeader::new();
    more.sparse[0].offset = *b"00000000100\0";
    more.sparse[0].numbytes = *b"00000000001\0";
    bytes.extend_from_slice(more.as_bytes());
    bytes.resize(bytes.len() + 3 * BLOCK, 0);
    bytes
}

#[test]
fn the_specimen_is_valid() {
    let all = read(&specimen(), 512).unwrap();
    let extents: Vec<usize> = all
        .iter()
        .filter_map(|(entry, _)| match &entry.kind {
            Kind::File(Layout::Sparse { extents, .. }) => Some(extents.len()),
            _ => None,
        })
        .collect();
    assert_eq!((all.len(), extents), (4, vec![2, 2]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    /// Whatever is written into the headers, with sums that are right: an error or entries, no panic.
    #[test]
    fn no_header_is_fatal(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = specimen();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let block = at / BLOCK * BLOCK..at / BLOCK * BLOCK + BLOCK;
            // Also sums of what is data, which does them no harm that counts here.
            let mut header = tar::Header::from_byte_slice(&bytes[block.clone()]).clone();
            header.set_cksum();
            bytes[block].copy_from_slice(header.as_bytes());
        }
        let _ = read(&bytes, 512);
    }
}
