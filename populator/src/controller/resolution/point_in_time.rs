//! Which object is restored: the newest that is no newer than `restorePoint`. Never is a newer one taken
//! instead of an older.

use jiff::Timestamp;

use super::listings::{Listings, Place};
use super::names;
use crate::controller::refusal::Refusal;
use crate::store::{Access, Entry, Found, Location, ObjectUrl, PrefixUrl, StoreError, Version};

/// How an object is known to be no newer than `restorePoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointInTime {
    /// The bucket keeps versions, and this one was written before.
    Version,
    /// It is the newest under its prefix, by the time in its name.
    Name,
    /// It is the newest under its prefix, by when it was written.
    Written,
    /// It is not: no versions are kept, or known, and it is used as it stands.
    Unknown,
}

/// What a store calls what was written while the bucket kept no versions.
const NO_VERSION: &str = "null";

/// One exact object.
pub(super) struct Chosen {
    pub(super) url: ObjectUrl,
    pub(super) found: Found,
    pub(super) point_in_time: PointInTime,
}

/// Finds what a VolumeBackup means.
pub(super) struct Finder<'a> {
    pub(super) access: &'a Access,
    pub(super) listings: &'a Listings,
    /// Whose listing it would be.
    pub(super) namespace: &'a str,
    pub(super) restore_point: Timestamp,
}

impl Finder<'_> {
    /// What `location` names at that time.
    pub(super) async fn find(&self, location: &Location) -> Result<Chosen, Refusal> {
        match location {
            Location::Object(url) => self.object(url).await,
            Location::Prefix(prefix) => self.newest(prefix).await,
        }
    }

    async fn place(&self, url: &str) -> Result<Place, Refusal> {
        self.listings.place(self.namespace, url).await
    }

    async fn object(&self, url: &ObjectUrl) -> Result<Chosen, Refusal> {
        let chosen = |found, point_in_time| Chosen {
            url: url.clone(),
            found,
            point_in_time,
        };
        let now = self.access.look(url, None).await;
        match &now {
            Ok(found)
                if found
                    .last_modified
                    .is_none_or(|it| it <= self.restore_point) =>
            {
                let of_version = found.version.is_some() && found.last_modified.is_some();
                let point_in_time = if of_version {
                    PointInTime::Version
                } else {
                    PointInTime::Unknown
                };
                return Ok(chosen(now?, point_in_time));
            }
            Ok(_) | Err(StoreError::NoObject { .. }) => {}
            Err(error) => return Err(error.clone().into()),
        }
        // It is newer, or gone.
        let mut history = History::new(url, self.restore_point);
        let place = self.place(&url.to_string()).await?;
        let told = self
            .access
            .in_time(self.access.versions(url, |version| history.see(version)))
            .await;
        drop(place);
        let version = match (now, told) {
            // Nobody may list versions, or this store has none.
            (Ok(found), Err(StoreError::ListingDenied { .. } | StoreError::Answer { .. }))
                if found.version.is_none() =>
            {
                return Ok(chosen(found, PointInTime::Unknown));
            }
            // The bucket has never kept any, or none are asked for in stores of its kind.
            (Ok(found), Ok(())) if found.version.is_none() && !history.has_versions => {
                return Ok(chosen(found, PointInTime::Unknown));
            }
            (Ok(_), told) => {
                told?;
                history.current()?
            }
            // It was never there, or nobody can say.
            (Err(absent), Err(_)) => return Err(absent.into()),
            (Err(absent), Ok(())) if history.is_empty() => return Err(absent.into()),
            (Err(_), Ok(())) => history.current()?,
        };
        let mut found = self.access.look(url, Some(&version)).await?;
        // A store does not call `null` a version when it is looked at.
        found.version = Some(version);
        Ok(chosen(found, PointInTime::Version))
    }

    async fn newest(&self, prefix: &PrefixUrl) -> Result<Chosen, Refusal> {
        let place = self.place(&prefix.to_string()).await?;
        let mut search = Search::new(prefix, self.restore_point);
        self.access
            .in_time(self.access.list(prefix, |entry| search.see(&entry)))
            .await?;
        drop(place);
        let Candidate {
            url, point_in_time, ..
        } = search.end()?;
        let found = self.access.look(&url, None).await?;
        match found.last_modified {
            // It was replaced since it was listed.
            Some(written)
                if point_in_time == PointInTime::Written && written > self.restore_point =>
            {
                Err(Refusal::TooNew {
                    what: url.to_string(),
                    time: written,
                    restore_point: self.restore_point,
                })
            }
            Some(_) | None => Ok(Chosen {
                url,
                found,
                point_in_time,
            }),
        }
    }
}

/// Looks through the versions of an object, the newest first, of which no more is kept than what may be the
/// answer: the one that a reader would have got at that time.
struct History<'a> {
    url: &'a ObjectUrl,
    restore_point: Timestamp,
    current: Option<Version>,
    /// Of those that are too new.
    oldest: Option<Timestamp>,
    has_versions: bool,
}

impl<'a> History<'a> {
    fn new(url: &'a ObjectUrl, restore_point: Timestamp) -> Self {
        Self {
            url,
            restore_point,
            current: None,
            oldest: None,
            has_versions: false,
        }
    }

    fn see(&mut self, version: Version) {
        self.has_versions |= version.id != NO_VERSION;
        let time = version.last_modified;
        if time > self.restore_point {
            if !version.is_deletion {
                self.oldest = Some(self.oldest.map_or(time, |oldest| oldest.min(time)));
            }
            return;
        }
        // Of the same moment a deletion counts for the later, and else what is listed first.
        let rank = |it: &Version| (it.last_modified, it.is_deletion);
        if self
            .current
            .as_ref()
            .is_none_or(|it| rank(&version) > rank(it))
        {
            self.current = Some(version);
        }
    }

    fn is_empty(&self) -> bool {
        self.current.is_none() && self.oldest.is_none()
    }

    fn current(self) -> Result<String, Refusal> {
        match (self.current, self.oldest) {
            (Some(deleted), _) if deleted.is_deletion => Err(Refusal::DeletedThen {
                url: self.url.to_string(),
                deleted: deleted.last_modified,
                restore_point: self.restore_point,
            }),
            (Some(version), _) => Ok(version.id),
            (None, Some(time)) => Err(Refusal::TooNew {
                what: format!("the oldest version of {}", self.url),
                time,
                restore_point: self.restore_point,
            }),
            (None, None) => Err(Refusal::NoArchive {
                url: self.url.to_string(),
                others: 0,
            }),
        }
    }
}

/// An archive under a prefix.
struct Candidate {
    time: Timestamp,
    written: Timestamp,
    url: ObjectUrl,
    point_in_time: PointInTime,
}

impl Candidate {
    /// What decides between two: that they were written last, and at last any order at all.
    fn rank(&self) -> (Timestamp, Timestamp, &str) {
        (self.time, self.written, &self.url.key)
    }
}

/// Looks through a listing, of which no more is kept than what may be the answer.
struct Search<'a> {
    prefix: &'a PrefixUrl,
    restore_point: Timestamp,
    newest: Option<Candidate>,
    /// Of those that are too new.
    oldest: Option<Candidate>,
    others: u64,
}

impl<'a> Search<'a> {
    fn new(prefix: &'a PrefixUrl, restore_point: Timestamp) -> Self {
        Self {
            prefix,
            restore_point,
            newest: None,
            oldest: None,
            others: 0,
        }
    }

    fn see(&mut self, entry: &Entry) {
        let Some(candidate) = self.candidate(entry) else {
            self.others += 1;
            return;
        };
        let (kept, is_better): (_, fn(&Candidate, &Candidate) -> bool) =
            if candidate.time <= self.restore_point {
                (&mut self.newest, |new, old| new.rank() > old.rank())
            } else {
                (&mut self.oldest, |new, old| new.rank() < old.rank())
            };
        if kept.as_ref().is_none_or(|kept| is_better(&candidate, kept)) {
            *kept = Some(candidate);
        }
    }

    fn candidate(&self, entry: &Entry) -> Option<Candidate> {
        let name = entry.key.strip_prefix(&self.prefix.prefix)?;
        let url = self.prefix.object(&entry.key)?;
        let written = entry.last_modified;
        let (time, point_in_time) = match names::time(name) {
            Some(time) => (time, PointInTime::Name),
            None => (written, PointInTime::Written),
        };
        (entry.size > 0 && names::is_archive(name)).then_some(Candidate {
            time,
            written,
            url,
            point_in_time,
        })
    }

    fn end(self) -> Result<Candidate, Refusal> {
        match (self.newest, self.oldest) {
            (Some(newest), _) => Ok(newest),
            (None, Some(oldest)) => Err(Refusal::TooNew {
                what: format!(
                    "the oldest archive under {}, {},",
                    self.prefix, oldest.url.key
                ),
                time: oldest.time,
                restore_point: self.restore_point,
            }),
            (None, None) => Err(Refusal::NoArchive {
                url: self.prefix.to_string(),
                others: self.others,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn searched(
        keys: &[(&str, &str)],
        restore_point: &str,
    ) -> Result<(String, PointInTime), Refusal> {
        let prefix = PrefixUrl {
            scheme: crate::store::Scheme::S3,
            bucket: "b".to_owned(),
            prefix: "db/".to_owned(),
        };
        let mut search = Search::new(&prefix, time(restore_point));
        for (key, written) in keys {
            search.see(&Entry {
                key: (*key).to_owned(),
                size: 9,
                last_modified: time(written),
            });
        }
        let found = search.end()?;
        Ok((found.url.key, found.point_in_time))
    }

    #[test]
    fn the_newest_archive_by_then_is_taken() {
        let keys = [
            ("db/20250101T0300.tar", "2025-06-01T00:00:00Z"),
            ("db/20250102T0300.tar.gz", "2025-06-01T00:00:00Z"),
            ("db/20250102T0300.tar.gz.sha256", "2025-06-01T00:00:00Z"),
            ("db/20250103T0300.tar", "2025-06-01T00:00:00Z"),
            ("db//odd.tar", "2025-01-02T12:00:00Z"),
            ("db/unnamed.tar", "2025-01-02T01:00:00Z"),
        ];
        let at = |point| searched(&keys, point);
        let named = |key: &str| Ok((key.to_owned(), PointInTime::Name));
        assert_eq!(at("2025-01-02T12:00:00Z"), named("db/20250102T0300.tar.gz"));
        assert_eq!(at("2026-01-01T00:00:00Z"), named("db/20250103T0300.tar"));
        assert_eq!(
            at("2025-01-02T02:00:00Z"),
            Ok(("db/unnamed.tar".to_owned(), PointInTime::Written))
        );
        assert_eq!(at("2025-01-01T03:01:00Z"), named("db/20250101T0300.tar"));
    }

    #[test]
    fn none_that_old_is_an_error_and_says_what_there_is() {
        let keys = [
            ("db/20250102.tar", "2025-01-02T05:00:00Z"),
            ("db/20250103.tar", "2025-01-03T05:00:00Z"),
        ];
        let refused = searched(&keys, "2025-01-02T12:00:00Z").unwrap_err();
        assert_eq!(refused.reason(), "NewerThanRestorePoint");
        assert!(refused.to_string().contains("db/20250102.tar"), "{refused}");
        let none = searched(
            &[("db/list.json", "2025-01-01T00:00:00Z")],
            "2025-01-02T00:00:00Z",
        );
        let refused = none.unwrap_err();
        assert_eq!(refused.reason(), "NoArchive");
        assert!(refused.to_string().contains("(1 objects"), "{refused}");
    }

    #[test]
    fn the_version_that_was_current_is_taken() {
        let url = ObjectUrl::parse("s3://b/k").unwrap();
        let version = |id: &str, written: &str, is_deletion| Version {
            key: "k".to_owned(),
            id: id.to_owned(),
            last_modified: time(written),
            is_deletion,
        };
        let at = |point| {
            let mut history = History::new(&url, time(point));
            for (id, written, is_deletion) in [
                ("4", "2025-01-04T00:00:00Z", false),
                ("superseded", "2025-01-04T00:00:00Z", false),
                ("3", "2025-01-03T00:00:00Z", true),
                ("2", "2025-01-02T00:00:00Z", false),
                ("null", "2025-01-01T00:00:00Z", false),
            ] {
                history.see(version(id, written, is_deletion));
            }
            assert!(history.has_versions && !history.is_empty());
            history.current()
        };
        assert_eq!(at("2025-01-01T12:00:00Z"), Ok("null".to_owned()));
        assert_eq!(at("2025-01-02T00:00:00Z"), Ok("2".to_owned()));
        let deleted = at("2025-01-03T12:00:00Z").unwrap_err();
        assert_eq!(deleted.reason(), "DeletedAtRestorePoint");
        assert_eq!(at("2025-01-05T00:00:00Z"), Ok("4".to_owned()));
        let refused = at("2024-01-01T00:00:00Z").unwrap_err();
        assert_eq!(refused.reason(), "NewerThanRestorePoint");
        assert!(refused.to_string().contains("2025-01-01"), "{refused}");
    }
}
