//! What a volume will hold: by this, an agent knows orders that can share a download, and snapshots that it
//! keeps.

use std::collections::BTreeMap;

use crds::RestoreOptions;
use crds::cache::Content;
use crds::restore_order::VolumeMode;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::claim::Claim;
use super::class::Class;
use super::resolution::Pinned;
use crate::store::Scheme;

/// All that changes what is in a volume when it is complete. Fields may be added, for which nothing that was
/// kept before is used again.
#[derive(Serialize)]
struct Ingredients<'a> {
    /// Whose VolumeBackup it is: nobody gets what another namespace's credentials have read.
    namespace: &'a str,
    /// Where the object lies, on which server too.
    location: &'a str,
    version: Option<&'a str>,
    etag: &'a str,
    size: i64,
    options: RestoreOptions,
    driver: &'a str,
    parameters: &'a BTreeMap<String, String>,
    /// Some take metadata away, or set it.
    mount_options: &'a [String],
    volume_mode: VolumeMode,
    fs_type: &'a str,
}

/// The content of the volume that a PVC gets. None for what a store cannot tell from what it had before.
pub fn of(claim: &Claim, class: &Class, pinned: &Pinned) -> Option<Content> {
    let archive = &pinned.archive;
    let url = &pinned.signed.url;
    let location = match Scheme::of(&archive.url) {
        // Elsewhere the rest of the URL is our signature; here it may be what names the object.
        Some(Scheme::Https | Scheme::File) => url,
        Some(Scheme::S3 | Scheme::Gs | Scheme::Az) | None => {
            url.split('?').next().unwrap_or_default()
        }
    };
    let ingredients = Ingredients {
        namespace: &claim.backup_namespace,
        location,
        version: archive.version.as_deref(),
        etag: archive.etag.as_deref()?,
        size: archive.size,
        options: RestoreOptions {
            // When it would have been given up, it does not say.
            retry: None,
            ..pinned.options.clone()
        },
        driver: &class.driver,
        parameters: &class.parameters,
        mount_options: &class.mount_options,
        volume_mode: claim.volume_mode,
        fs_type: &class.fs_type,
    };
    let json = serde_json::to_vec(&ingredients).ok()?;
    Some(Content {
        key: hex::encode(Sha256::digest(json)),
        backup: format!("{}/{}", claim.backup_namespace, claim.backup),
        cache: pinned.cache,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::decision::tests::{claim, class, pinned};

    type Change = fn(&mut Claim, &mut Class, &mut Pinned);

    fn key(change: impl Fn(&mut Claim, &mut Class, &mut Pinned)) -> String {
        let (mut claim, mut class, mut pinned) = (claim(|_| ()), class(), pinned());
        change(&mut claim, &mut class, &mut pinned);
        of(&claim, &class, &pinned).unwrap().key
    }

    #[test]
    fn whatever_changes_the_volume_changes_the_key() {
        let plain = key(|_, _, _| ());
        let changes: [Change; 10] = [
            |claim, _, _| claim.backup_namespace = "other".to_owned(),
            |claim, _, _| claim.volume_mode = VolumeMode::Block,
            |_, class, _| class.driver = "other".to_owned(),
            |_, class, _| class.fs_type = "xfs".to_owned(),
            |_, class, _| class.mount_options.push("noacl".to_owned()),
            |_, class, _| drop(class.parameters.insert("a".to_owned(), "b".to_owned())),
            |_, _, pinned| pinned.archive.etag = Some("other".to_owned()),
            |_, _, pinned| pinned.archive.version = Some("other".to_owned()),
            |_, _, pinned| pinned.options.sub_path = Some("other".to_owned()),
            |_, _, pinned| pinned.signed.url = "https://other/b/k?signed".to_owned(),
        ];
        let mut keys: Vec<String> = changes.into_iter().map(key).collect();
        keys.push(plain);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), changes.len() + 1);
    }

    #[test]
    fn what_does_not_change_it_does_not() {
        let plain = key(|_, _, _| ());
        let other = key(|claim, _, pinned| {
            claim.name = "other".to_owned();
            claim.required_bytes += 1;
            pinned.options.retry = Some(crds::restore_options::Retry::default());
            pinned.signed.url = pinned.signed.url.replace('?', "?signed-anew&");
        });
        assert_eq!(plain, other);
    }

    #[test]
    fn the_query_of_a_web_server_may_name_the_object() {
        let key_of = |query: &str| {
            key(|_, _, pinned| {
                pinned.archive.url = "https://server/download".to_owned();
                pinned.signed.url = format!("https://server/download?{query}");
            })
        };
        assert_ne!(key_of("id=1"), key_of("id=2"));
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_shared() {
        let mut pinned = pinned();
        pinned.archive.etag = None;
        assert_eq!(of(&claim(|_| ()), &class(), &pinned), None);
    }
}
