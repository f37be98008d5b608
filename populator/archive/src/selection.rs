//! Which entries of an archive are restored, and under which names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::path::BeneathRoot;

/// What is chosen of an archive. The default is all of it.
///
/// Patterns are globs of whole names, from the archive's root and without a leading `/` or `./`: `*`
/// and `?` match no `/`, `**` matches any part of a path, `[a-z]` and `{a,b}` are as in shells. One that
/// matches a directory stands for all that is beneath it.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    include: Option<GlobSet>,
    exclude: GlobSet,
    sub_path: Vec<u8>,
    strip: usize,
    wished: String,
}

/// What is to be chosen, as people write it.
#[derive(Debug, Clone, Default)]
pub struct Wishes<'a> {
    /// Only what one of these matches; none for all.
    pub include: &'a [String],
    /// Nothing that one of these matches, whatever else does.
    pub exclude: &'a [String],
    /// Only what is beneath this directory, which takes the place of the root.
    pub sub_path: &'a str,
    /// How many leading parts are taken off each name (after `sub_path`); entries that have no more
    /// than those are left out.
    pub strip_components: usize,
}

/// Why a choice makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// A pattern is none.
    #[error("the pattern {pattern:?} is not a glob ({why}); write for example \"data/**/*.db\"")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// The directory cannot be one of an archive.
    #[error("{path:?} cannot be a directory of an archive: {why}")]
    SubPath {
        /// As written.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Selection {
    /// Reads the wishes.
    pub fn new(wishes: &Wishes<'_>) -> Result<Self, SelectionError> {
        let include = match wishes.include {
            [] => None,
            patterns => Some(globs(patterns)?),
        };
        let sub_path = match wishes.sub_path {
            "" => Vec::new(),
            path => BeneathRoot::parse(path.as_bytes())
                .map_err(|why| SelectionError::SubPath {
                    path: path.to_owned(),
                    why,
                })?
                .0
                .as_bytes()
                .to_vec(),
        };
        Ok(Self {
            include,
            exclude: globs(wishes.exclude)?,
            sub_path,
            strip: wishes.strip_components,
            wished: format!("{wishes:?}"),
        })
    }

    /// The wishes, as a text that is the same for the same.
    pub(crate) fn as_wished(&self) -> &str {
        &self.wished
    }

    /// Where an entry goes; `None` if it is not restored.
    pub(crate) fn place(&self, path: &BeneathRoot) -> Option<BeneathRoot> {
        let name = path.as_bytes();
        let included = self.include.as_ref().is_none_or(|set| matches(set, name));
        if !included || matches(&self.exclude, name) {
            return None;
        }
        path.beneath(&self.sub_path)?.without(self.strip)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, SelectionError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let failed = |error: globset::Error| SelectionError::Pattern {
            pattern: pattern.clone(),
            why: error.kind().to_string(),
        };
        let whole = pattern.trim_start_matches("./").trim_matches('/');
        let glob = GlobBuilder::new(whole).literal_separator(true).build();
        set.add(glob.map_err(failed)?);
    }
    set.build().map_err(|error| SelectionError::Pattern {
        pattern: patterns.join(" "),
        why: error.kind().to_string(),
    })
}

/// Whether it, or a directory above it, is matched.
fn matches(set: &GlobSet, name: &[u8]) -> bool {
    if set.is_empty() || name.is_empty() {
        return false;
    }
    let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.map(|(at, _)| at)
        .chain([name.len()])
        .any(|end| set.is_match(Path::new(OsStr::from_bytes(&name[..end]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(wishes: &Wishes<'_>, name: &str) -> Option<String> {
        let selection = Selection::new(wishes).unwrap();
        let (path, _) = BeneathRoot::parse(name.as_bytes()).unwrap();
        let placed = selection.place(&path)?;
        Some(String::from_utf8(placed.as_bytes().to_vec()).unwrap())
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn globs_choose_files_and_directories() {
        let include = strings(&["data/*.db", "./etc/", "**/keep"]);
        let exclude = strings(&["etc/ssl", "**/*.tmp"]);
        let wishes = Wishes {
            include: &include,
            exclude: &exclude,
            ..Wishes::default()
        };
        for (name, chosen) in [
            ("data/a.db", true),
            ("./data/a.db", true),
            ("data/sub/a.db", false),
            ("data/a.db/beneath", true),
            ("etc", true),
            ("etc/passwd", true),
            ("etc/ssl", false),
            ("etc/ssl/key", false),
            ("etcetera", false),
            ("keep", true),
            ("a/b/keep/c", true),
            ("a/b/keep/c.tmp", false),
            ("./", false),
        ] {
            let expected = chosen.then(|| name.trim_start_matches("./").to_owned());
            assert_eq!(place(&wishes, name), expected, "{name}");
        }
    }

    #[test]
    fn names_are_shortened() {
        let wishes = Wishes {
            sub_path: "/var/lib/",
            ..Wishes::default()
        };
        assert_eq!(place(&wishes, "var/lib"), Some(String::new()));
        assert_eq!(place(&wishes, "var/lib/a/b"), Some("a/b".into()));
        assert_eq!(place(&wishes, "var/library"), None);
        assert_eq!(place(&wishes, "var"), None);
        let wishes = Wishes {
            strip_components: 1,
            ..wishes
        };
        assert_eq!(place(&wishes, "var/lib/a/b"), Some("b".into()));
        assert_eq!(place(&wishes, "var/lib/a"), None);
        assert_eq!(place(&wishes, "var/lib"), None);
        assert_eq!(place(&Wishes::default(), "./"), Some(String::new()));
    }

    #[test]
    fn nonsense_is_refused() {
        let include = strings(&["a[b"]);
        let wishes = Wishes {
            include: &include,
            ..Wishes::default()
        };
        let error = Selection::new(&wishes).unwrap_err();
        assert!(error.to_string().contains("a[b"), "{error}");
        let wishes = Wishes {
            sub_path: "a/../b",
            ..Wishes::default()
        };
        assert!(Selection::new(&wishes).is_err());
    }
}
