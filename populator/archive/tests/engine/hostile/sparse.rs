//! Maps of sparse files that contradict themselves or ask for too much.

use tar::EntryType;

use super::{Specimen, corrupt, fails, refused};
use crate::forged::Forged;

/// A sparse file of version 0.1 with this map and so much data.
fn map(size: &str, map: &str, data: usize) -> Forged {
    let records = [("GNU.sparse.size", size), ("GNU.sparse.map", map)];
    Forged::default().pax(&records).file("f", &"d".repeat(data))
}

/// The same of version 1.0, whose map is at the beginning of the data.
fn lines(size: &str, lines: &str, data: usize) -> Forged {
    let padded = lines.len().next_multiple_of(512);
    let all = format!("{lines:\0<padded$}{}", "d".repeat(data));
    version("1", size).file("f", &all)
}

fn version(major: &str, size: &str) -> Forged {
    Forged::default().pax(&[
        ("GNU.sparse.major", major),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", size),
    ])
}

/// An old GNU sparse file with these extents and no data.
fn old(extents: &[(u64, u64)], size: u64, more: bool) -> Forged {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("f").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip(extents) {
        field.offset = octal(*offset);
        field.numbytes = octal(*length);
    }
    gnu.realsize = octal(size);
    gnu.isextended = [u8::from(more)];
    header.set_cksum();
    Forged(header.as_bytes().to_vec())
}

fn octal(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    field
}

pub fn specimens() -> Vec<Specimen> {
    let order = &["\"f\"", "overlap or are out of order"];
    let beyond = &["\"f\"", "beyond its size"];
    let range = &["\"f\"", "out of range"];
    let differ = &["\"f\"", "differ in length"];
    let offsets = |order: &[(&str, &str)]| Forged::default().pax(order).file("f", "d");
    let many = format!("{}0", "0,".repeat(524_289));
    // Blocks of 21 extents, of which each says that there is another.
    let mut block = [[octal(0), octal(0)].concat().repeat(21), vec![0; 8]].concat();
    block[504] = 1;
    vec![
        corrupt("sparse-overlap.tar", map("100", "0,10,5,10", 20), order),
        corrupt("sparse-descending.tar", map("100", "50,10,0,10", 20), order),
        corrupt(
            "sparse-overflow.tar",
            map("100", "18446744073709551615,10", 10),
            range,
        ),
        corrupt("sparse-beyond-size.tar", map("100", "95,10", 10), beyond),
        corrupt("sparse-less-data.tar", map("100", "0,10", 5), differ),
        corrupt("sparse-more-data.tar", map("100", "0,10", 15), differ),
        corrupt(
            "sparse-odd.tar",
            map("100", "0,10,20", 10),
            &["\"f\"", "odd number"],
        ),
        corrupt(
            "sparse-no-number.tar",
            map("100", "0,-10", 10),
            &["GNU.sparse.map"],
        ),
        corrupt(
            "sparse-figure-overflow.tar",
            map("100", "0,99999999999999999999", 1),
            &["sparse.map"],
        ),
        corrupt(
            "sparse-size-8-eib.tar",
            map("9223372036854775808", "0,1", 1),
            &["\"f\"", "real size"],
        ),
        fails(
            "sparse-size-8-eib-less-1.tar",
            map("9223372036854775807", "0,1", 1),
            "DoesNotFit",
            &["\"f\""],
        ),
        refused(
            "sparse-many.tar.gz",
            lines("100", "262145\n", 0),
            &["\"f\"", "262144 pieces"],
        ),
        refused(
            "sparse-many-in-record.tar.gz",
            map("100", &many, 0),
            &["\"pax\"", "1048576"],
        ),
        corrupt(
            "sparse-0.0-order.tar",
            offsets(&[("GNU.sparse.size", "9"), ("GNU.sparse.numbytes", "1")]),
            &["GNU.sparse.numbytes"],
        ),
        corrupt(
            "sparse-0.0-twice.tar",
            offsets(&[
                ("GNU.sparse.size", "9"),
                ("GNU.sparse.offset", "1"),
                ("GNU.sparse.offset", "1"),
            ]),
            &["GNU.sparse.offset"],
        ),
        corrupt(
            "sparse-without-size.tar",
            offsets(&[("GNU.sparse.map", "0,1")]),
            &["\"f\"", "real size is missing"],
        ),
        corrupt(
            "sparse-1.0-overlap.tar",
            lines("100", "2\n0\n10\n5\n10\n", 20),
            order,
        ),
        corrupt(
            "sparse-1.0-overflow.tar",
            lines("100", "1\n18446744073709551615\n10\n", 10),
            range,
        ),
        corrupt(
            "sparse-1.0-figure-overflow.tar",
            lines("9", "99999999999999999999\n", 0),
            range,
        ),
        corrupt(
            "sparse-1.0-not-complete.tar",
            lines("100", "9\n0\n1\n", 0),
            &["\"f\"", "map"],
        ),
        corrupt(
            "sparse-1.0-empty-line.tar",
            lines("100", "1\n\n1\n", 0),
            &["line of its map is empty"],
        ),
        corrupt(
            "sparse-1.0-letters.tar",
            lines("100", "1\nx\n1\n", 0),
            &["map is malformed"],
        ),
        corrupt(
            "sparse-1.0-without-map.tar",
            version("1", "9").file("f", ""),
            &["not complete"],
        ),
        refused(
            "sparse-2.0.tar",
            version("2", "0").file("f", ""),
            &["\"f\"", "2.0"],
        ),
        corrupt(
            "sparse-old-overlap.tar",
            old(&[(0, 10), (5, 10)], 100, false),
            order,
        ),
        corrupt(
            "sparse-old-overflow.tar",
            old(&[(u64::MAX >> 31, 1)], 5, false),
            beyond,
        ),
        corrupt(
            "sparse-old-without-data.tar",
            old(&[(0, 10)], 100, false),
            differ,
        ),
        refused(
            "sparse-old-many.tar.gz",
            old(&[], 0, true).raw(&block.repeat(12_484)),
            &["\"f\"", "262144 pieces"],
        ),
        corrupt(
            "sparse-two-ways.tar",
            Forged::default()
                .pax(&[("GNU.sparse.size", "9")])
                .raw(&old(&[], 0, false).0),
            &["\"f\"", "two ways"],
        ),
        refused(
            "sparse-star.tar",
            Forged::default().entry(EntryType::GNUSparse, b"star", b"", b""),
            &["\"star\"", "not known"],
        ),
    ]
}
