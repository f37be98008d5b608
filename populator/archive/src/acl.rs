//! POSIX ACLs: the text that tar carries (`SCHILY.acl.access`, acl(5)) and the bytes that the kernel
//! takes (`system.posix_acl_access`, linux/posix_acl_xattr.h).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::entry::Xattr;

/// The attribute of a file's own ACL.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";

/// The attribute of the ACL that what is made in a directory gets.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The only version there is (POSIX_ACL_XATTR_VERSION).
const VERSION: u32 = 2;

/// The id of entries that name nobody (ACL_UNDEFINED_ID).
const NOBODY: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A tag, permissions, and whom it is about.
type Line = (u16, u16, u32);

/// More entries than any file system keeps.
const ENTRIES_MAX: usize = 1 << 13;

/// The bytes of an ACL that is given as text; none if it is malformed, not whole, or says whom it is
/// about by a name without a number, since names mean nothing on another machine.
pub(crate) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?;
    let entries = text
        .split(['\n', ','])
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty());
    let mut parsed = Vec::new();
    for entry in entries {
        if parsed.len() == ENTRIES_MAX {
            return None;
        }
        parsed.push(from_line(entry)?);
    }
    let has = |wanted| parsed.iter().any(|(tag, _, _)| *tag == wanted);
    if ![USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(has) {
        return None;
    }
    // The order that the kernel wants.
    parsed.sort_by_key(|(tag, _, id)| (*tag, *id));
    Some(to_bytes(&parsed))
}

fn to_bytes(lines: &[Line]) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in lines {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// The lines of an ACL as the kernel has it; none if it is malformed.
fn from_bytes(bytes: &[u8]) -> Option<Vec<Line>> {
    let (version, lines) = bytes.split_first_chunk()?;
    let (lines, rest) = lines.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    let line = |[tag0, tag1, permissions0, permissions1, id @ ..]: &[u8; 8]| {
        let tag = u16::from_le_bytes([*tag0, *tag1]);
        let permissions = u16::from_le_bytes([*permissions0, *permissions1]);
        (tag, permissions, u32::from_le_bytes(*id))
    };
    Some(lines.iter().map(line).collect())
}

/// Whether an ACL among these attributes is about a user or group by number.
pub(crate) fn name_anybody(xattrs: &[Xattr]) -> bool {
    let acls = xattrs.iter().filter(|it| is_acl(it));
    acls.filter_map(|acl| from_bytes(&acl.value))
        .flatten()
        .any(|(tag, _, _)| tag == USER || tag == GROUP)
}

/// Puts other users and groups into the ACLs among these attributes. What is no ACL stays, for the
/// kernel to refuse.
pub(crate) fn map(xattrs: &mut [Xattr], user: impl Fn(u32) -> u32, group: impl Fn(u32) -> u32) {
    for acl in xattrs.iter_mut().filter(|it| is_acl(it)) {
        if let Some(lines) = from_bytes(&acl.value) {
            let lines = lines.into_iter().map(|(tag, permissions, id)| match tag {
                USER => (tag, permissions, user(id)),
                GROUP => (tag, permissions, group(id)),
                _ => (tag, permissions, id),
            });
            acl.value = to_bytes(&merged(lines));
        }
    }
}

/// In the order that the kernel wants. Where several have become the same user or group, who has that
/// number has what any of them had.
fn merged(lines: impl Iterator<Item = Line>) -> Vec<Line> {
    let mut sorted: BTreeMap<(u16, u32, usize), u16> = BTreeMap::new();
    for (index, (tag, permissions, id)) in lines.enumerate() {
        let is_named = tag == USER || tag == GROUP;
        // Twice a line of another kind is a mistake for the kernel to see.
        let apart = if is_named { 0 } else { index };
        *sorted.entry((tag, id, apart)).or_default() |= permissions;
    }
    let line = |((tag, id, _), permissions)| (tag, permissions, id);
    sorted.into_iter().map(line).collect()
}

fn is_acl(xattr: &Xattr) -> bool {
    [ACCESS, DEFAULT].contains(&xattr.name.as_slice())
}

/// `user:NAME:rwx`, `user:NAME:rwx:NUMBER` (star, libarchive), `u::rw-`, `mask::r--`, `other:r--`.
fn from_line(line: &str) -> Option<Line> {
    let mut fields: Vec<_> = line.split(':').map(str::trim).collect();
    let kind = fields[0];
    // The short form of Solaris has no empty field there.
    if fields.len() == 2 && matches!(kind, "mask" | "m" | "other" | "o") {
        fields.insert(1, "");
    }
    let (name, permissions, number) = match fields[..] {
        [_, name, permissions] => (name, permissions, ""),
        [_, name, permissions, number] => (name, permissions, number),
        _ => return None,
    };
    let (anonymous, named) = match kind {
        "user" | "u" => (USER_OBJ, Some(USER)),
        "group" | "g" => (GROUP_OBJ, Some(GROUP)),
        "mask" | "m" => (MASK, None),
        "other" | "o" => (OTHER, None),
        _ => return None,
    };
    let permissions = permissions_of(permissions)?;
    if name.is_empty() && number.is_empty() {
        return Some((anonymous, permissions, NOBODY));
    }
    let number = if number.is_empty() { name } else { number };
    let id = number.parse().ok().filter(|id| *id != NOBODY)?;
    Some((named?, permissions, id))
}

fn permissions_of(text: &str) -> Option<u16> {
    text.chars().try_fold(0, |sum, letter| match letter {
        'r' => Some(sum | 4),
        'w' => Some(sum | 2),
        'x' => Some(sum | 1),
        '-' => Some(sum),
        _ => None,
    })
}

/// The text of an ACL that is given as the kernel has it, with numbers for names; none if it is
/// malformed.
pub(crate) fn to_text(bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    for (tag, permissions, id) in from_bytes(bytes)? {
        let (kind, named) = match tag {
            USER_OBJ => ("user", false),
            USER => ("user", true),
            GROUP_OBJ => ("group", false),
            GROUP => ("group", true),
            MASK => ("mask", false),
            OTHER => ("other", false),
            _ => return None,
        };
        let name = if named { id.to_string() } else { String::new() };
        let letter = |bit, letter| if permissions & bit == 0 { '-' } else { letter };
        let (read, write, search) = (letter(4, 'r'), letter(2, 'w'), letter(1, 'x'));
        let between = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{between}{kind}:{name}:{read}{write}{search}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_say_the_same() {
        let text = "user::rwx,user:1000:r-x,group::r--,group:5:---,mask::rwx,other::--x";
        let bytes = from_text(text.as_bytes()).unwrap();
        assert_eq!(bytes.len(), 4 + 6 * 8);
        assert_eq!(to_text(&bytes).unwrap(), text);
    }

    #[test]
    fn what_others_write_is_understood() {
        let expected = from_text(b"user::rw-,user:7:r--,group::r--,mask::r--,other::---");
        assert!(expected.is_some());
        for text in [
            // GNU tar, with newlines; star and libarchive, with the number at the end; in any order.
            "user::rw-\nuser:7:r--\ngroup::r--\nmask::r--\nother::---\n",
            "user::rw-,user:lisa:r--:7,group::r--,mask::r--,other::---",
            "other::---,u::rw-,m::r--,u:7:r--,g::r--",
            "user::rw-,user:7:r--,group::r--\t#effective:r--,mask:r--,other:---",
        ] {
            assert_eq!(from_text(text.as_bytes()), expected, "{text}");
        }
        for text in [
            "",
            "user::rwx",
            "user::rwx,group::rwx,other::rwx,user:lisa:rwx",
            "user::rwx,group::rwx,other::rwx,mask:7:rwx",
            "user::rwx,group::rwx,other::rwx,everyone@:rwx",
            "user::rwz,group::rwx,other::rwx",
            "user,group::rwx,other::rwx",
            "user:4294967295:rwx,user::rwx,group::rwx,other::rwx",
            "user:1:2:3:4,user::rwx,group::rwx,other::rwx",
        ] {
            assert_eq!(from_text(text.as_bytes()), None, "{text}");
        }
        assert_eq!(to_text(b"\x02\0\0\0\x01\0"), None);
        assert_eq!(to_text(b"\x03\0\0\0"), None);
    }

    fn mapped(name: &[u8], value: Vec<u8>) -> Vec<u8> {
        let name = name.to_vec();
        let mut xattrs = [Xattr { name, value }];
        map(&mut xattrs, |id| id.min(10) + 100, |id| id + 1000);
        xattrs[0].value.clone()
    }

    fn mapped_text(text: &str) -> String {
        let value = mapped(ACCESS, from_text(text.as_bytes()).unwrap());
        to_text(&value).unwrap()
    }

    #[test]
    fn users_and_groups_are_mapped_and_nothing_else() {
        let text = "user::rw-,user:1:r--,user:2:-w-,group::r--,group:1:--x,mask::rwx,other::---";
        let expected =
            "user::rw-,user:101:r--,user:102:-w-,group::r--,group:1001:--x,mask::rwx,other::---";
        assert_eq!(mapped_text(text), expected);
        let value = from_text(text.as_bytes()).unwrap();
        assert_eq!(mapped(b"user.like_one", value.clone()), value);
        assert_eq!(mapped(DEFAULT, value.clone()), mapped(ACCESS, value));
    }

    #[test]
    fn those_who_become_one_have_what_any_of_them_had() {
        let text = "user::rw-,user:50:r--,user:60:--x,user:3:-w-,group::r--,mask::rwx,other::---";
        let expected = "user::rw-,user:103:-w-,user:110:r-x,group::r--,mask::rwx,other::---";
        assert_eq!(mapped_text(text), expected);
    }

    #[test]
    fn what_is_no_acl_stays() {
        for odd in [
            &b""[..],
            b"\x02\0\0",
            b"\x03\0\0\0",
            b"\x02\0\0\0\x02\0\x04",
        ] {
            assert_eq!(mapped(ACCESS, odd.to_vec()), odd);
        }
        let twice = to_bytes(&[(USER_OBJ, 6, NOBODY), (USER_OBJ, 4, NOBODY)]);
        assert_eq!(mapped(ACCESS, twice.clone()), twice);
    }
}
