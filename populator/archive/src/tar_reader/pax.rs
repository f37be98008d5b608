//! PAX records: what they say, and which of it is not restored.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;
use serde::{Deserialize, Serialize};

use super::sparse::EXTENTS_MAX;
use crate::acl;
use crate::entry::{LABEL, Time, Xattr};
use crate::error::{RestoreError, printable};

/// More attributes than any file has: the kernel lists 64 KiB of their names.
const XATTRS_MAX: usize = 10_000;

/// As libarchive writes it, without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Kinds of loss that are told apart in one entry; what is beyond them is one kind more.
const LOST_MAX: usize = 32;

/// The records of the headers that apply to an entry. Later records replace earlier ones, and an
/// empty value takes one back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) uname: Option<Vec<u8>>,
    pub(super) gname: Option<Vec<u8>>,
    /// Major and minor number of a device, where the header has no room for them.
    pub(super) devmajor: Option<u64>,
    pub(super) devminor: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    /// Attributes of which the archive has a text that does not say enough: whether they are lost
    /// is known once all records are.
    unclear: Vec<Vec<u8>>,
    pub(super) sparse: Sparse,
    /// Kinds of metadata that are there and are not restored.
    pub(super) lost: Vec<String>,
}

/// The `GNU.sparse.` keys of the three versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Offsets and lengths in turn (0.0 and 0.1).
    pub(super) map: Vec<u64>,
}

impl Sparse {
    pub(super) fn is_sparse(&self) -> bool {
        *self != Self::default()
    }
}

impl Pax {
    /// Adds the records of one header.
    pub(super) fn read(&mut self, mut records: &[u8]) -> Result<(), RestoreError> {
        while !records.is_empty() {
            // Some programs pad with NULs.
            if records.iter().all(|byte| *byte == 0) {
                break;
            }
            let Some((key, value, rest)) = record(records) else {
                let start = printable(&records[..records.len().min(40)]);
                return Err(RestoreError::corrupt(format!(
                    "a PAX record is malformed: {start}"
                )));
            };
            self.set(key, value).map_err(|()| {
                let (key, value) = (printable(key), printable(value));
                RestoreError::corrupt(format!("the PAX record {key} has the value {value}"))
            })?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), ()> {
        let given = !value.is_empty();
        let bytes = || given.then(|| value.to_vec());
        let number = || {
            if given {
                number(value).map(Some).ok_or(())
            } else {
                Ok(None)
            }
        };
        let time = || {
            if given {
                time(value).map(Some).ok_or(())
            } else {
                Ok(None)
            }
        };
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.linkpath = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"uname" => self.uname = bytes(),
            b"gname" => self.gname = bytes(),
            b"SCHILY.devmajor" => self.devmajor = number()?,
            b"SCHILY.devminor" => self.devminor = number()?,
            b"mtime" => self.mtime = time()?,
            b"atime" => self.atime = time()?,
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = bytes(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            // The count of what follows it, which is counted anyway.
            b"GNU.sparse.numblocks" => self.sparse.map.clear(),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // 0.0: the two come in turn, once for each extent.
                if key.ends_with(b"offset") != self.sparse.map.len().is_multiple_of(2) {
                    return Err(());
                }
                self.push_to_map(number()?.ok_or(())?)?;
            }
            b"GNU.sparse.map" => {
                self.sparse.map.clear();
                for part in value.split(|byte| *byte == b',').filter(|_| given) {
                    self.push_to_map(self::number(part).ok_or(())?)?;
                }
            }
            // Without the NUL that ends the attribute's value.
            b"RHT.security.selinux" if given => {
                let label = value.strip_suffix(b"\0").unwrap_or(value);
                self.set_xattr(LABEL, &[label, b"\0"].concat())?;
            }
            _ => match key.strip_prefix(b"SCHILY.xattr.") {
                Some(name) => self.set_xattr(&unescaped(name), value)?,
                None => self.set_other(key, value)?,
            },
        }
        Ok(())
    }

    fn push_to_map(&mut self, figure: u64) -> Result<(), ()> {
        if self.sparse.map.len() >= 2 * EXTENTS_MAX {
            return Err(());
        }
        self.sparse.map.push(figure);
        Ok(())
    }

    /// An attribute may well be empty, so that is a value like any other.
    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), ()> {
        self.xattrs.retain(|xattr| xattr.name != name);
        if name.is_empty() || name.contains(&0) || self.xattrs.len() >= XATTRS_MAX {
            return Err(());
        }
        self.xattrs.push(Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        });
        Ok(())
    }

    fn set_other(&mut self, key: &[u8], value: &[u8]) -> Result<(), ()> {
        if is_without_effect(key) || value.is_empty() {
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            return self.set_libarchive(name, value);
        }
        let acl = match key {
            b"SCHILY.acl.access" => Some(acl::ACCESS),
            b"SCHILY.acl.default" => Some(acl::DEFAULT),
            _ => None,
        };
        if let Some(name) = acl {
            if let Some(value) = acl::from_text(value) {
                return self.set_xattr(name, &value);
            }
            if !self.unclear.iter().any(|known| known == name) {
                self.unclear.push(name.to_vec());
            }
            return Ok(());
        }
        self.lose(match key {
            b"SCHILY.acl.ace" => "NFSv4 ACL".to_owned(),
            b"SCHILY.fflags" => "file flags".to_owned(),
            // Names are bytes here, and those two say so.
            b"hdrcharset" if [&b"BINARY"[..], b"ISO-IR 10646 2000 UTF-8"].contains(&value) => {
                return Ok(());
            }
            b"hdrcharset" => format!("names in the character set {}", printable(value)),
            _ => format!("PAX record {}", printable(key)),
        });
        Ok(())
    }

    /// libarchive spells attributes a second time, the name as in URLs and the value in base64.
    fn set_libarchive(&mut self, name: &[u8], value: &[u8]) -> Result<(), ()> {
        let name: Vec<u8> = percent_decode(name).collect();
        let value = BASE64.decode(value).map_err(|_| ())?;
        self.set_xattr(&name, &value)
    }

    /// Called with the last record: GNU tar gives an ACL by names, and again as the attribute that it
    /// is, so that one is lost only where the other is missing.
    pub(super) fn settle(&mut self) {
        let unclear = std::mem::take(&mut self.unclear);
        let known = |name: &[u8]| self.xattrs.iter().any(|xattr| xattr.name == name);
        if unclear.iter().any(|name| !known(name)) {
            self.lose("POSIX ACL".to_owned());
        }
    }

    /// What only one entry can have, as far as there is any.
    pub(super) fn of_one_entry(&self) -> Option<&'static str> {
        let given = [
            ("path", self.path.is_some()),
            ("linkpath", self.linkpath.is_some()),
            ("size", self.size.is_some()),
            ("GNU.sparse", self.sparse.is_sparse()),
        ];
        given
            .into_iter()
            .find_map(|(key, given)| given.then_some(key))
    }

    fn lose(&mut self, kind: String) {
        let kind = if self.lost.len() < LOST_MAX {
            kind
        } else {
            "other PAX records".to_owned()
        };
        if !self.lost.contains(&kind) {
            self.lost.push(kind);
        }
    }
}

/// Records that repeat what is known otherwise, or that no restore can do anything about.
fn is_without_effect(key: &[u8]) -> bool {
    const KEYS: [&[u8]; 11] = [
        // Nothing can set a change or creation time.
        b"ctime",
        b"LIBARCHIVE.creationtime",
        b"comment",
        // The file's contents are bytes, whatever they mean.
        b"charset",
        b"SCHILY.dev",
        b"SCHILY.ino",
        b"SCHILY.nlink",
        b"SCHILY.tarfiletype",
        b"SCHILY.filetype",
        b"LIBARCHIVE.symlinktype",
        b"GNU.volume.label",
    ];
    KEYS.contains(&key)
}

/// The name of an attribute in a key, where GNU tar spells `=` and `%` with a `%`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', b'3', b'D' | b'd', after @ ..] => (b'=', after),
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            _ => (*first, tail),
        };
        plain.push(byte);
        rest = after;
    }
    plain
}

/// The first record (`length key=value\n`, the length counting itself) and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&records[..blank])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction, perhaps negative. Digits beyond the nanosecond are cut, downwards.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(number(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain([b'0'; 9].iter()).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    let cut = fraction.iter().skip(9).any(|digit| *digit != b'0');
    if !negative {
        return Some(Time {
            seconds,
            nanoseconds,
        });
    }
    match nanoseconds + u32::from(cut) {
        0 => Some(Time {
            seconds: -seconds,
            nanoseconds: 0,
        }),
        // Below zero the fraction still counts upwards, from the second before.
        below => Some(Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - below,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pax(records: &[u8]) -> Result<Pax, String> {
        let mut pax = Pax::default();
        pax.read(records)
            .map(|()| pax)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_may_hold_any_byte() {
        let pax =
            pax(b"13 path=a\n=b\n31 SCHILY.xattr.user.x=\x00\n\xff\x00\xfe\x00\x00\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\n=b"[..]));
        assert_eq!(pax.xattrs[0].name, b"user.x");
        assert_eq!(pax.xattrs[0].value, b"\x00\n\xff\x00\xfe\x00\x00");
    }

    #[test]
    fn malformed_records_are_errors() {
        for wrong in [
            &b"path=a"[..],
            b"8 path=a\n",
            b"11 path=a\n",
            b"0 path=a\n",
            b"10 patha\n\n",
            b"99999999999999999999 a=b\n",
            b"11 size=x1\n",
            b"12 mtime=1,5\n",
            b"-10 path=a\n",
            b"18 SCHILY.xattr.=\n",
            b"20 SCHILY.xattr.a\0=\n",
        ] {
            assert!(pax(wrong).is_err(), "{}", printable(wrong));
        }
    }

    #[test]
    fn times_are_exact_on_both_sides_of_1970() {
        let time = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("1.5"), Some((1, 500_000_000)));
        assert_eq!(
            time("1700000000.123456789"),
            Some((1_700_000_000, 123_456_789))
        );
        assert_eq!(time("1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-2"), Some((-2, 0)));
        assert_eq!(time("-0.0000000001"), Some((-1, 999_999_999)));
        assert_eq!(
            (time(""), time("."), time("1.x"), time("--1")),
            (None, None, None, None)
        );
    }

    #[test]
    fn what_is_not_restored_is_named_once() {
        let mut all = pax(
            b"26 SCHILY.acl.access=u::r\n26 SCHILY.acl.access=u::w\n16 SCHILY.dev=1\n\
                        12 X.y=zzzz\n12 X.y=zzzz\n",
        )
        .unwrap();
        all.settle();
        assert_eq!(all.lost, ["PAX record \"X.y\"", "POSIX ACL"]);
        // Said again in full, before or after.
        let attribute = "41 SCHILY.xattr.system.posix_acl_access=\n";
        let text = "26 SCHILY.acl.access=u::r\n";
        for records in [[attribute, text].concat(), [text, attribute].concat()] {
            let mut all = pax(records.as_bytes()).unwrap();
            all.settle();
            assert!(all.lost.is_empty(), "{:?}", all.lost);
        }
    }

    /// Comparing each with all others must come to an end.
    #[test]
    fn what_a_header_may_hold_is_bounded() {
        let records = |key: &str, count: usize| -> Vec<u8> {
            let record = |index| format!("{} {key}.{index:06}=v\n", key.len() + 13);
            (0..count).map(record).collect::<String>().into_bytes()
        };
        let lost = pax(&records("VENDOR", 1000)).unwrap().lost;
        assert_eq!(lost.len(), LOST_MAX + 1);
        let xattrs = |count| pax(&records("SCHILY.xattr.user", count));
        assert_eq!(xattrs(XATTRS_MAX).unwrap().xattrs.len(), XATTRS_MAX);
        assert!(xattrs(XATTRS_MAX + 1).is_err());
    }
}
