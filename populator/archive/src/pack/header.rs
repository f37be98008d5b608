//! An entry as tar has it: a ustar header (POSIX.1-1988), before it a PAX extended header
//! (POSIX.1-2001) with what the first has no room for. The same entry always gives the same bytes.

use std::io::Write as _;

use tar::{EntryType, Header};

use crate::acl;
use crate::entry::{Device, Entry, Extent, Kind, Layout, Metadata, Time};
use crate::tar_reader::header::BLOCK;

/// The longest name and target in a ustar header.
const NAME: usize = 100;

/// The largest owner number, size and time that octal digits have room for.
const OWNER_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
const TIME_MAX: i64 = 0o77_777_777_777;

/// The largest device numbers that Linux has (kdev_t.h); octal digits have room for them.
const MAJOR_MAX: u32 = 0xfff;
const MINOR_MAX: u32 = 0xf_ffff;

/// What stands before the data of an entry.
pub(super) struct Encoded {
    /// Headers, and for a sparse file its map, which counts as data.
    pub(super) headers: Vec<u8>,
    pub(super) map: Vec<u8>,
}

/// Why an entry cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceTooLarge;

/// Writes the headers of `entry`.
pub(super) fn encode(entry: &Entry) -> Result<Encoded, DeviceTooLarge> {
    let mut records = Records::default();
    let mut header = Header::new_ustar();
    let metadata = &entry.metadata;
    let (map, stored) = content(&entry.kind);

    let mut name = entry.path.clone();
    match &entry.kind {
        Kind::File(Layout::Sparse { size, .. }) => {
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", &entry.path);
            records.add(b"GNU.sparse.realsize", size.to_string().as_bytes());
            // What a reader without sparse files makes of it, as GNU tar has it.
            name = [b"GNUSparseFile.0/", last(&entry.path)].concat();
            records.long(b"path", &name);
        }
        _ => records.long(b"path", &name),
    }
    place(&mut header, &name);
    header.set_entry_type(entry_type(&entry.kind));
    header.set_mode(metadata.mode);
    set_owner(&mut header, &mut records, metadata);
    set_modified(&mut header, &mut records, metadata.modified);
    header.set_size(stored.min(SIZE_MAX));
    if stored > SIZE_MAX {
        records.add(b"size", stored.to_string().as_bytes());
    }
    match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => {
            records.long(b"linkpath", target);
            let shown = &target[..target.len().min(NAME)];
            header.as_old_mut().linkname[..shown.len()].copy_from_slice(shown);
        }
        Kind::CharacterDevice(device) | Kind::BlockDevice(device) => {
            set_device(&mut header, *device)?;
        }
        Kind::File(_) | Kind::Directory | Kind::Fifo => {}
    }
    for xattr in &metadata.xattrs {
        records.xattr(&xattr.name, &xattr.value);
    }
    header.set_cksum();

    let mut headers = Vec::with_capacity(3 * BLOCK);
    records.write(&entry.path, &mut headers);
    headers.extend_from_slice(header.as_bytes());
    Ok(Encoded { headers, map })
}

/// The map of a sparse file, and the bytes of data of any entry, the map included.
fn content(kind: &Kind) -> (Vec<u8>, u64) {
    match kind {
        Kind::File(Layout::Dense(size)) => (Vec::new(), *size),
        Kind::File(Layout::Sparse { size, extents }) => {
            let map = map(*size, extents);
            let stored = extents.iter().map(|extent| extent.length).sum::<u64>();
            let stored = stored + map.len() as u64;
            (map, stored)
        }
        _ => (Vec::new(), 0),
    }
}

/// How many extents, then each one's offset and length, a line each, to the end of a block (GNU tar,
/// PAX format 1.0). An empty one says where a file ends that ends with a hole.
fn map(size: u64, extents: &[Extent]) -> Vec<u8> {
    let end = extents.last().map_or(0, |last| last.offset + last.length);
    let last = Extent {
        offset: size,
        length: 0,
    };
    let last = (end < size).then_some(&last);
    let count = extents.len() + usize::from(last.is_some());
    let mut map = format!("{count}\n").into_bytes();
    for extent in extents.iter().chain(last) {
        // Writing to memory cannot fail.
        let _ = writeln!(map, "{}\n{}", extent.offset, extent.length);
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn entry_type(kind: &Kind) -> EntryType {
    match kind {
        Kind::File(_) => EntryType::Regular,
        Kind::Directory => EntryType::Directory,
        Kind::Symlink(_) => EntryType::Symlink,
        Kind::HardLink(_) => EntryType::Link,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharacterDevice(_) => EntryType::Char,
        Kind::BlockDevice(_) => EntryType::Block,
    }
}

fn place(header: &mut Header, name: &[u8]) {
    let shown = &name[..name.len().min(NAME)];
    header.as_old_mut().name[..shown.len()].copy_from_slice(shown);
}

fn last(path: &[u8]) -> &[u8] {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    trimmed
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default()
}

fn set_owner(header: &mut Header, records: &mut Records, metadata: &Metadata) {
    for (key, id) in [(&b"uid"[..], metadata.uid), (b"gid", metadata.gid)] {
        if id > OWNER_MAX {
            records.add(key, id.to_string().as_bytes());
        }
    }
    header.set_uid(metadata.uid.min(OWNER_MAX).into());
    header.set_gid(metadata.gid.min(OWNER_MAX).into());
}

fn set_modified(header: &mut Header, records: &mut Records, time: Time) {
    let seconds = time.seconds.clamp(0, TIME_MAX);
    header.set_mtime(seconds.unsigned_abs());
    if seconds != time.seconds || time.nanoseconds != 0 {
        records.add(b"mtime", decimal(time).as_bytes());
    }
}

/// Seconds with a fraction. Below zero the fraction counts from the second before.
fn decimal(time: Time) -> String {
    let Time {
        seconds,
        nanoseconds,
    } = time;
    let text = if seconds < 0 && nanoseconds > 0 {
        let rest = 1_000_000_000 - nanoseconds;
        format!("-{}.{rest:09}", (seconds + 1).unsigned_abs())
    } else {
        format!("{seconds}.{nanoseconds:09}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn set_device(header: &mut Header, device: Device) -> Result<(), DeviceTooLarge> {
    if device.major > MAJOR_MAX || device.minor > MINOR_MAX {
        return Err(DeviceTooLarge);
    }
    let set = header
        .set_device_major(device.major)
        .and_then(|()| header.set_device_minor(device.minor));
    set.map_err(|_| DeviceTooLarge)
}

/// The records of an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// `length key=value\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + digits(rest);
        if digits(length) > digits(rest) {
            length += 1;
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// What a header may have no room for.
    fn long(&mut self, key: &[u8], value: &[u8]) {
        if value.len() > NAME {
            self.add(key, value);
        }
    }

    /// ACLs as text, which others restore too, and any other attribute as star and GNU tar have it.
    fn xattr(&mut self, name: &[u8], value: &[u8]) {
        let acl = match name {
            acl::ACCESS => Some(&b"SCHILY.acl.access"[..]),
            acl::DEFAULT => Some(&b"SCHILY.acl.default"[..]),
            _ => None,
        };
        if let Some(key) = acl
            && let Some(text) = acl::to_text(value)
        {
            return self.add(key, text.as_bytes());
        }
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in name {
            match byte {
                b'=' => key.extend_from_slice(b"%3D"),
                b'%' => key.extend_from_slice(b"%25"),
                byte => key.push(*byte),
            }
        }
        self.add(&key, value);
    }

    /// The extended header with its data, if there is anything to say.
    fn write(&self, path: &[u8], to: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        let mut header = Header::new_ustar();
        place(&mut header, &[b"PaxHeaders/", last(path)].concat());
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(self.0.len() as u64);
        header.set_cksum();
        to.extend_from_slice(header.as_bytes());
        to.extend_from_slice(&self.0);
        to.resize(to.len().next_multiple_of(BLOCK), 0);
    }
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{OwnerNames, Xattr};
    use crate::limits::Limits;
    use crate::stream::Memory;
    use crate::tar_reader::{Mark, TarReader};

    fn read(entry: &Entry) -> Entry {
        let encoded = encode(entry).unwrap();
        let mut bytes = [encoded.headers, encoded.map].concat();
        // Data for what has some, and the end.
        bytes.resize(bytes.len() + 64 * BLOCK, 0);
        let stream = Memory {
            bytes: &bytes,
            position: 0,
            step: 700,
        };
        let mut reader = TarReader::new(stream, Limits::default(), Mark::default()).unwrap();
        reader.next_entry().unwrap().unwrap()
    }

    fn bytes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(1_u8.., count)
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        bytes(1..300).prop_filter("a file", |path| !path.ends_with(b"/"))
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        let device = (0..=MAJOR_MAX, 0..=MINOR_MAX);
        let device = device.prop_map(|(major, minor)| Device { major, minor });
        let extents = prop::collection::vec((1_u64..9, 1_u64..9), 0..20);
        let sparse = extents.prop_map(|pairs| {
            let mut end = 0;
            let extents: Vec<_> = pairs
                .into_iter()
                .map(|(hole, length)| {
                    let offset = end + hole;
                    end = offset + length;
                    Extent { offset, length }
                })
                .collect();
            let size = end + 5;
            Kind::File(Layout::Sparse { size, extents })
        });
        prop_oneof![
            (0_u64..1 << 40).prop_map(|size| Kind::File(Layout::Dense(size))),
            sparse,
            bytes(1..300).prop_map(Kind::Symlink),
            bytes(1..300).prop_map(Kind::HardLink),
            Just(Kind::Fifo),
            device.clone().prop_map(Kind::CharacterDevice),
            device.prop_map(Kind::BlockDevice),
        ]
    }

    prop_compose! {
        fn metadata()(
            mode in 0_u32..0o10000, uid in 0..u32::MAX, gid in 0..u32::MAX,
            seconds in -10_000_000_000_i64..10_000_000_000, nanoseconds in 0_u32..1_000_000_000,
            xattrs in prop::collection::btree_map(
                "(user|trusted|security)\\.[a-z=%.]{1,30}", prop::collection::vec(any::<u8>(), 0..200), 0..5),
        ) -> Metadata {
            let xattr = |(name, value): (String, _)| Xattr { name: name.into_bytes(), value };
            let xattrs = xattrs.into_iter().map(xattr);
            Metadata { mode, uid, gid, modified: Time { seconds, nanoseconds }, xattrs: xattrs.collect(),
                ..Metadata::default() }
        }
    }

    proptest! {
        #[test]
        fn entries_come_back(path in path(), kind in kinds(), metadata in metadata()) {
            let entry =
                Entry { path, kind, metadata, names: OwnerNames::default(), lost: vec![] };
            prop_assert_eq!(read(&entry), entry);
        }
    }

    #[test]
    fn acls_are_written_as_text() {
        let text = "user::rw-,user:7:r--,group::r--,mask::r--,other::---";
        let entry = Entry {
            path: b"f".to_vec(),
            kind: Kind::Fifo,
            metadata: Metadata {
                xattrs: vec![Xattr {
                    name: acl::ACCESS.to_vec(),
                    value: acl::from_text(text.as_bytes()).unwrap(),
                }],
                ..Metadata::default()
            },
            names: OwnerNames::default(),
            lost: vec![],
        };
        let found = encode(&entry).unwrap().headers;
        let wanted = format!("SCHILY.acl.access={text}\n");
        assert!(
            found
                .windows(wanted.len())
                .any(|it| it == wanted.as_bytes())
        );
        assert_eq!(read(&entry), entry);
    }

    #[test]
    fn lengths_count_themselves() {
        for value in 1..2000 {
            let mut records = Records::default();
            records.add(b"k", &vec![b'v'; value]);
            let (length, _) = records
                .0
                .split_at(records.0.iter().position(|it| *it == b' ').unwrap());
            let length: usize = str::from_utf8(length).unwrap().parse().unwrap();
            assert_eq!(length, records.0.len());
        }
    }
}
