//! Who owns what is restored: whom the archive names, by number or by name, or somebody else.

use std::collections::BTreeMap;

use crate::acl;
use crate::entry::{CAPABILITY, Metadata, OwnerNames, Xattr};

/// The highest number means "no change" to chown(2), so nobody has it.
const NOBODY: u32 = u32::MAX;

/// Who owns what is restored. ACLs follow it, since they name people by number too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ownership {
    /// The numbers in the archive.
    #[default]
    Numbers,
    /// Whoever has the name in the archive. Where nobody has it, and in ACLs, the number stays; both
    /// are losses.
    Names(Names),
    /// Other numbers in place of some of those in the archive.
    Map(Map),
    /// One user and one group for everything.
    One {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// Who has which name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    users: BTreeMap<Vec<u8>, u32>,
    groups: BTreeMap<Vec<u8>, u32>,
}

/// Which numbers take the place of which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map {
    users: Ranges,
    groups: Ranges,
}

/// Why numbers cannot be mapped as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the owner rule {rule:?} cannot be used: {why}")]
pub struct OwnershipError {
    /// As written.
    pub rule: String,
    /// What is wrong with it, and what would be right.
    pub why: &'static str,
}

/// Ascending and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<Range>);

/// `first` becomes `to`, the next one `to + 1` and so on until `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    to: u32,
}

impl Names {
    /// From what is in `/etc/passwd` (passwd(5)) and in `/etc/group` (group(5)). The first line of a name
    /// counts, as it does for the C library; lines that are none are passed over.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let table = |text: &[u8]| {
            let mut table = BTreeMap::new();
            for line in text.split(|byte| *byte == b'\n') {
                let mut fields = line.split(|byte| *byte == b':');
                let (name, number) = (fields.next().unwrap_or_default(), fields.nth(1));
                let number = number.and_then(|it| str::from_utf8(it).ok()).and_then(id);
                if let (false, Some(number)) = (name.is_empty(), number) {
                    table.entry(name.to_vec()).or_insert(number);
                }
            }
            table
        };
        Self {
            users: table(passwd),
            groups: table(group),
        }
    }

    /// From names and numbers that are known otherwise.
    pub fn new<N: Into<Vec<u8>>>(
        users: impl IntoIterator<Item = (N, u32)>,
        groups: impl IntoIterator<Item = (N, u32)>,
    ) -> Self {
        let bytes = |(name, number): (N, u32)| (name.into(), number);
        Self {
            users: users.into_iter().map(bytes).collect(),
            groups: groups.into_iter().map(bytes).collect(),
        }
    }
}

impl Map {
    /// From rules for users and rules for groups, each `FROM:TO` or `FIRST-LAST:TO`, where `TO` takes
    /// the place of `FIRST`, `TO + 1` that of the next, and so on. All other numbers stay.
    pub fn parse(users: &[String], groups: &[String]) -> Result<Self, OwnershipError> {
        Ok(Self {
            users: Ranges::parse(users)?,
            groups: Ranges::parse(groups)?,
        })
    }
}

impl Ranges {
    fn parse(rules: &[String]) -> Result<Self, OwnershipError> {
        let mut ranges = Vec::with_capacity(rules.len());
        for rule in rules {
            let failed = |why| OwnershipError {
                rule: rule.clone(),
                why,
            };
            let range = Range::parse(rule).map_err(failed)?;
            let meets = |other: &Range| range.first <= other.last && other.first <= range.last;
            if ranges.iter().any(meets) {
                return Err(failed(
                    "an earlier rule has some of its numbers; write one for each",
                ));
            }
            ranges.push(range);
        }
        ranges.sort_by_key(|range| range.first);
        Ok(Self(ranges))
    }

    fn of(&self, id: u32) -> u32 {
        let after = self.0.partition_point(|range| range.first <= id);
        match after.checked_sub(1).map(|index| self.0[index]) {
            Some(range) if id <= range.last => range.to + (id - range.first),
            _ => id,
        }
    }
}

impl Range {
    fn parse(rule: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "write FROM:TO or FIRST-LAST:TO, for example 1000:5000 or 1000-1999:5000";
        let (from, to) = rule.split_once(':').ok_or(FORM)?;
        let (first, last) = from.split_once('-').unwrap_or((from, from));
        let [first, last, to] = [first, last, to].map(id);
        let (first, last, to) = (first.ok_or(FORM)?, last.ok_or(FORM)?, to.ok_or(FORM)?);
        let count = last
            .checked_sub(first)
            .ok_or("its range ends before it begins")?;
        match to.checked_add(count) {
            Some(end) if end < NOBODY => Ok(Self { first, last, to }),
            _ => Err("it leads beyond 4294967294, the highest number of a user or group"),
        }
    }
}

/// A number that a user or group may have.
fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|_| digits)?;
    (id != NOBODY).then_some(id)
}

impl Ownership {
    /// Reads `UID:GID` for [`Ownership::One`].
    pub fn one(text: &str) -> Result<Self, OwnershipError> {
        let ids = text.split_once(':');
        let ids = ids.and_then(|(uid, gid)| Some((id(uid)?, id(gid)?)));
        let (uid, gid) = ids.ok_or_else(|| OwnershipError {
            rule: text.to_owned(),
            why: "write UID:GID, for example 1000:1000",
        })?;
        Ok(Self::One { uid, gid })
    }

    /// Who owns the directories that the archive does not mention and that are made on the way; `None`
    /// for this process.
    pub(crate) fn of_the_unmentioned(&self) -> Option<(u32, u32)> {
        match self {
            Self::Numbers | Self::Names(_) => None,
            Self::Map(map) => {
                Some((map.users.of(0), map.groups.of(0))).filter(|ids| *ids != (0, 0))
            }
            Self::One { uid, gid } => Some((*uid, *gid)),
        }
    }

    /// Puts the owners in place of those in the archive, in ACLs and capabilities too. Returns the kinds
    /// of what is lost by it.
    pub(crate) fn apply(&self, metadata: &mut Metadata, names: &OwnerNames) -> Vec<&'static str> {
        match self {
            Self::Numbers => Vec::new(),
            Self::Names(table) => {
                let mut lost = Vec::new();
                let mut look_up = |table: &BTreeMap<Vec<u8>, u32>, name: &[u8], kind| {
                    let found = table.get(name).copied();
                    if found.is_none() && !name.is_empty() {
                        lost.push(kind);
                    }
                    found
                };
                let uid = look_up(&table.users, &names.user, "name of an unknown user");
                let gid = look_up(&table.groups, &names.group, "name of an unknown group");
                metadata.uid = uid.unwrap_or(metadata.uid);
                metadata.gid = gid.unwrap_or(metadata.gid);
                if acl::name_anybody(&metadata.xattrs) {
                    lost.push("names in an ACL, which has only numbers");
                }
                lost
            }
            Self::Map(map) => {
                metadata.uid = map.users.of(metadata.uid);
                metadata.gid = map.groups.of(metadata.gid);
                let (user, group) = (|id| map.users.of(id), |id| map.groups.of(id));
                acl::map(&mut metadata.xattrs, user, group);
                map_root(&mut metadata.xattrs, user);
                Vec::new()
            }
            Self::One { uid, gid } => {
                (metadata.uid, metadata.gid) = (*uid, *gid);
                acl::map(&mut metadata.xattrs, |_| *uid, |_| *gid);
                Vec::new()
            }
        }
    }
}

/// Puts another user in place of whom capabilities take for the root of a user namespace: in
/// `vfs_ns_cap_data` (linux/capability.h) the last of six words, where the highest byte of the first has
/// the revision 3.
fn map_root(xattrs: &mut [Xattr], user: impl Fn(u32) -> u32) {
    for xattr in xattrs.iter_mut().filter(|it| it.name == CAPABILITY) {
        if let ([_, _, _, 3, ..], 24) = (&xattr.value[..], xattr.value.len())
            && let Some(root) = xattr.value.last_chunk_mut()
        {
            *root = user(u32::from_le_bytes(*root)).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(users: &[&str]) -> Result<Map, String> {
        let users: Vec<_> = users.iter().map(ToString::to_string).collect();
        Map::parse(&users, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_move_as_a_whole_and_others_stay() {
        let map = map(&["5000-5001:0", "1000-1999:5000", "0:100000"]).unwrap();
        for (from, to) in [
            (0, 100_000),
            (1, 1),
            (999, 999),
            (1000, 5000),
            (1999, 5999),
            (2000, 2000),
            (5000, 0),
            (5001, 1),
            (5002, 5002),
            (NOBODY - 1, NOBODY - 1),
        ] {
            assert_eq!(map.users.of(from), to, "{from}");
        }
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for wrong in [
            "",
            "1",
            "1:",
            ":1",
            "a:1",
            "+1:1",
            "1-:2",
            "2-1:5",
            "1:4294967295",
            "4294967295:1",
            "0-1:4294967294",
            "1:2:3",
        ] {
            let error = map(&[wrong]).unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
        assert!(map(&["1-5:10", "5:20"]).unwrap_err().contains("earlier"));
        assert!(map(&["0-4294967294:0"]).is_ok());
        assert!(Ownership::one("1000").is_err() && Ownership::one("1000:-1").is_err());
        assert_eq!(Ownership::one("7:8"), Ok(Ownership::One { uid: 7, gid: 8 }));
    }

    #[test]
    fn the_first_line_of_a_name_counts() {
        let passwd = b"root:x:0:0::/root:/bin/sh\nlisa:x:2001:100::/:\nlisa:x:9:9\n+nis\n:x:5:\n\
                       x:y:z\nb\xffd:x:7:";
        let names = Names::parse(passwd, b"staff:x:50:lisa\n");
        let mut metadata = Metadata {
            uid: 1,
            gid: 2,
            ..Metadata::default()
        };
        let mut look = |user: &[u8], group: &[u8]| {
            (metadata.uid, metadata.gid) = (1, 2);
            let names_given = OwnerNames {
                user: user.to_vec(),
                group: group.to_vec(),
            };
            let lost = Ownership::Names(names.clone()).apply(&mut metadata, &names_given);
            (metadata.uid, metadata.gid, lost.len())
        };
        assert_eq!(look(b"lisa", b"staff"), (2001, 50, 0));
        assert_eq!(look(b"b\xffd", b""), (7, 2, 0));
        assert_eq!(look(b"x", b"nobody"), (1, 2, 2));
    }

    #[test]
    fn the_root_of_a_namespace_is_mapped() {
        let mapped = |value: &[u8]| {
            let (name, value) = (CAPABILITY.to_vec(), value.to_vec());
            let mut xattrs = [Xattr { name, value }];
            map_root(&mut xattrs, |id| id + 100);
            xattrs[0].value.clone()
        };
        let mut value = b"\x01\0\0\x03\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        assert_eq!(mapped(&value), value);
        value.extend(1000_u32.to_le_bytes());
        assert_eq!(mapped(&value)[20..], 1100_u32.to_le_bytes());
        value[3] = 2;
        assert_eq!(mapped(&value), value);
    }
}
