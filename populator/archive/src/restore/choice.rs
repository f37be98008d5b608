//! What becomes of an entry's metadata by what the caller has chosen: a pure decision.

use std::borrow::Cow;

use crate::entry::{CAPABILITY, Entry, Kind, LABEL, Metadata};
use crate::options::{Labels, Options, Privileges};
use crate::outcome::Losses;
use crate::ownership::Ownership;

/// setuid and setgid.
const SPECIAL: u32 = 0o6000;

/// The metadata that the file of `entry` gets. What the choice loses is added to `lost`, and what it
/// leaves out to `omitted`.
pub(super) fn chosen<'a>(
    entry: &'a Entry,
    options: &Options,
    lost: &mut Losses,
    omitted: &mut Losses,
) -> Cow<'a, Metadata> {
    let mut metadata = Cow::Borrowed(&entry.metadata);
    if matches!(entry.kind, Kind::HardLink(_)) {
        // What it links to has its own.
        return metadata;
    }
    if options.labels == Labels::Drop && has(&metadata, LABEL) {
        metadata.to_mut().xattrs.retain(|it| it.name != LABEL);
        omitted.add("SELinux label", &entry.path);
    }
    // A link has no mode of its own, and the bits of a directory give nobody rights.
    let may_run = !matches!(entry.kind, Kind::Directory | Kind::Symlink(_));
    if options.privileges == Privileges::Drop {
        if may_run && metadata.mode & SPECIAL != 0 {
            metadata.to_mut().mode &= !SPECIAL;
            omitted.add("setuid or setgid", &entry.path);
        }
        if has(&metadata, CAPABILITY) {
            metadata.to_mut().xattrs.retain(|it| it.name != CAPABILITY);
            omitted.add("file capability", &entry.path);
        }
    }
    if options.ownership != Ownership::Numbers {
        for kind in options.ownership.apply(metadata.to_mut(), &entry.names) {
            lost.add(kind, &entry.path);
        }
    }
    metadata
}

fn has(metadata: &Metadata, xattr: &[u8]) -> bool {
    metadata.xattrs.iter().any(|it| it.name == xattr)
}
