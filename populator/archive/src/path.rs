//! Names in archives, made into paths beneath the root.

/// A path beneath the root: components that are neither empty nor `.` nor `..`, joined by slashes.
/// Empty for the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BeneathRoot(Vec<u8>);

/// The longest path that is followed. The kernel takes 4096 bytes in one call, but deeper trees exist.
const LENGTH_MAX: usize = 32 << 10;

impl BeneathRoot {
    /// The path that `name` stands for, and whether it was absolute (it is made relative, as tar does).
    pub(crate) fn parse(name: &[u8]) -> Result<(Self, bool), &'static str> {
        if name.is_empty() {
            return Err("it has no name");
        }
        if name.len() > LENGTH_MAX {
            return Err("its name is longer than 32768 bytes");
        }
        if name.contains(&0) {
            return Err("its name contains a NUL byte");
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    return Err("its path contains \"..\", which could lead out of the volume");
                }
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(component);
                }
            }
        }
        Ok((Self(path), name.starts_with(b"/")))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as seen from the directory `above` (empty for the root); `None` if it is not there.
    pub(crate) fn beneath(&self, above: &[u8]) -> Option<Self> {
        let rest = self.0.strip_prefix(above)?;
        match rest {
            [] => Some(Self(Vec::new())),
            _ if above.is_empty() => Some(Self(rest.to_vec())),
            [b'/', rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    /// The same without so many of its leading parts; `None` if nothing is left of it.
    pub(crate) fn without(&self, parts: usize) -> Option<Self> {
        let mut rest = self.0.as_slice();
        for _ in 0..parts {
            let slash = rest.iter().position(|byte| *byte == b'/')?;
            rest = &rest[slash + 1..];
        }
        Some(Self(rest.to_vec()))
    }

    /// The directory and the name in it; `None` for the root itself.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(name: &str) -> Result<(String, bool), &'static str> {
        let (path, absolute) = BeneathRoot::parse(name.as_bytes())?;
        Ok((
            String::from_utf8_lossy(path.as_bytes()).into_owned(),
            absolute,
        ))
    }

    #[test]
    fn names_become_plain_paths() {
        assert_eq!(parse("./a//b/./c/"), Ok(("a/b/c".into(), false)));
        assert_eq!(parse("///etc/passwd"), Ok(("etc/passwd".into(), true)));
        assert_eq!(parse("./"), Ok((String::new(), false)));
        assert_eq!(parse("..."), Ok(("...".into(), false)));
        for wrong in ["", "..", "a/..", "../a", "/../a", "a/../b", "a\0b"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let (path, _) = BeneathRoot::parse(b"a/b/c").unwrap();
        assert_eq!(path.split(), Some((&b"a/b"[..], &b"c"[..])));
    }

    proptest! {
        #[test]
        fn no_name_leads_out(name in "[a./\\x00\\n]{0,12}") {
            if let Ok((path, _)) = BeneathRoot::parse(name.as_bytes()) {
                let text = str::from_utf8(path.as_bytes()).unwrap();
                prop_assert!(text.is_empty() || !text.split('/').any(|part| ["", ".", ".."].contains(&part)));
            }
        }
    }
}
