//! What the name of an object says: whether it is an archive, and of when. Where it can be read in two ways,
//! the later time counts, so that nothing is ever taken for older than it is.

use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// Endings of archives and images, after that of a compression.
const ENDINGS: [&str; 3] = [".tar", ".img", ".raw"];

/// Those that say both.
const SHORT_ENDINGS: [&str; 6] = [".tgz", ".tzst", ".txz", ".tbz2", ".tbz", ".tlz4"];

const COMPRESSIONS: [&str; 6] = [".gz", ".zst", ".zstd", ".xz", ".bz2", ".lz4"];

/// Whether an object of this name is an archive or an image, rather than a checksum or a list beside one.
pub(super) fn is_archive(key: &str) -> bool {
    let name = key.to_ascii_lowercase();
    let stem = COMPRESSIONS.iter().find_map(|it| name.strip_suffix(it));
    let stem = stem.unwrap_or(&name);
    ENDINGS.iter().any(|it| stem.ends_with(it)) || SHORT_ENDINGS.iter().any(|it| name.ends_with(it))
}

/// The latest time that a key speaks of, in UTC where it names no other. Of a minute or a day of which no more
/// is said, it is the end.
pub(super) fn time(key: &str) -> Option<Timestamp> {
    let bytes = key.as_bytes();
    let dates = dates(bytes);
    let ends = dates.iter().skip(1).map(|next| next.begin);
    let ends = ends.chain([bytes.len()]);
    let moments = dates.iter().zip(ends).map(|(found, end)| {
        // What belongs to the next date is no time of this one.
        (found.date, time_of_day(&bytes[found.end..end]))
    });
    let moments: Vec<_> = moments.collect();
    let is_told = |date| {
        moments
            .iter()
            .any(|(of, time)| *of == date && time.is_some())
    };
    let times = moments.iter().filter_map(|(date, time)| match time {
        // A folder of the day in which the time is.
        None if is_told(*date) => None,
        None => moment(*date, (Time::MAX, 0)),
        Some(time) => moment(*date, *time),
    });
    times.max()
}

/// A date in a name, and where it stands.
struct Found {
    begin: usize,
    end: usize,
    date: Date,
}

fn dates(bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut begin = 0;
    while begin < bytes.len() {
        let is_inside = begin > 0 && bytes[begin - 1].is_ascii_digit();
        let read = (!is_inside)
            .then(|| year_first(&bytes[begin..]).or_else(|| year_last(&bytes[begin..])));
        match read.flatten() {
            Some((date, length)) => {
                let end = begin + length;
                found.push(Found { begin, end, date });
                begin = end;
            }
            None => begin += 1,
        }
    }
    found
}

/// `2025-01-31`, with other signs or none between its parts, and how long it is.
fn year_first(bytes: &[u8]) -> Option<(Date, usize)> {
    let mut text = Text(bytes);
    let year = text.number(4).filter(|year| (1900..2100).contains(year))?;
    let sign = text.sign(b"-_./");
    let month = text.number(2)?;
    if text.sign(b"-_./") != sign {
        return None;
    }
    let day = text.number(2)?;
    // A time may follow at once where there are no signs at all.
    let more = text.0.iter().take_while(|it| it.is_ascii_digit()).count();
    if more > 0 && !(more == 6 && sign.is_none()) {
        return None;
    }
    Some((date(year, month, day)?, bytes.len() - text.0.len()))
}

/// `31-01-2025` or `01-31-2025`: the later of the two.
fn year_last(bytes: &[u8]) -> Option<(Date, usize)> {
    let mut text = Text(bytes);
    let first = text.number(2)?;
    let sign = text.sign(b"-_.")?;
    let second = text.number(2)?;
    if text.sign(b"-_.") != Some(sign) {
        return None;
    }
    let year = text.number(4).filter(|year| (1900..2100).contains(year))?;
    if text.0.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let date = date(year, second, first).max(date(year, first, second))?;
    Some((date, bytes.len() - text.0.len()))
}

fn date(year: i16, month: i16, day: i16) -> Option<Date> {
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn moment(date: Date, (time, ahead): (Time, i32)) -> Option<Timestamp> {
    let offset = Offset::from_seconds(ahead).ok()?;
    offset.to_timestamp(date.to_datetime(time)).ok()
}

/// A time of day and the seconds that it is ahead of UTC. `T1000`, `T10:00:00`, `_10-00-00`, `-100000` and
/// ` 10:00` are times; other numbers after a date may be anything.
fn time_of_day(rest: &[u8]) -> Option<(Time, i32)> {
    let mut text = Text(rest);
    let lead = text.sign(b"Tt_- ");
    let is_marked = matches!(lead, Some(b'T' | b't'));
    let hour = text.number(2)?;
    let sign = text.sign(b":-_");
    let minute = text.number(2)?;
    let before = text.0;
    let second = if text.sign(b":-_") == sign {
        text.number(2)
    } else {
        None
    };
    if second.is_none() {
        text.0 = before;
    }
    let is_time = is_marked || second.is_some() || sign == Some(b':');
    if !is_time || (lead.is_none() && second.is_none()) {
        return None;
    }
    let nanosecond = match second {
        Some(_) => text.fraction(),
        None => 999_999_999,
    };
    let offset = text.offset();
    if offset.is_none() && text.0.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let part = |number: i16| i8::try_from(number).ok();
    let second = part(second.unwrap_or(59))?;
    let time = Time::new(part(hour)?, part(minute)?, second, nanosecond).ok()?;
    Some((time, offset.unwrap_or(0)))
}

/// What is left to read.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn sign(&mut self, signs: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        signs.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    fn number(&mut self, digits: usize) -> Option<i16> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        if !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    /// Nanoseconds after a point or a comma.
    fn fraction(&mut self) -> i32 {
        let mut text = Text(self.0);
        if text.sign(b".,").is_none() {
            return 0;
        }
        let mut nanoseconds = 0;
        let mut scale = 100_000_000;
        while let Some(digit) = text.number(1) {
            nanoseconds += i32::from(digit) * scale;
            scale /= 10;
            self.0 = text.0;
        }
        nanoseconds
    }

    /// `Z`, `+0100`, `+01:00`, and west of Greenwich `-0500`, `-05:00` and `-05` too: to read that makes it
    /// later, and not to read `+01` does.
    fn offset(&mut self) -> Option<i32> {
        let mut text = Text(self.0);
        let seconds = match text.sign(b"Zz+-")? {
            b'+' => text.ahead(true)?,
            b'-' => -text.ahead(false)?,
            _ => 0,
        };
        if text.0.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        self.0 = text.0;
        Some(seconds)
    }

    fn ahead(&mut self, with_minutes: bool) -> Option<i32> {
        let hours = self.number(2).filter(|hours| *hours <= 14)?;
        let before = self.0;
        self.sign(b":");
        let minutes = self.number(2).filter(|minutes| *minutes < 60);
        if minutes.is_none() {
            if with_minutes {
                return None;
            }
            self.0 = before;
        }
        let ahead =
            SignedDuration::from_mins(i64::from(hours) * 60 + i64::from(minutes.unwrap_or(0)));
        i32::try_from(ahead.as_secs()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_endings() {
        for archive in [
            "db.tar",
            "db.tar.gz",
            "a/DB.TAR.ZST",
            "db.tgz",
            "db.tar.lz4",
            "disk.img",
            "disk.raw.zst",
        ] {
            assert!(is_archive(archive), "{archive}");
        }
        for other in [
            "db.tar.gz.sha256",
            "db.tar.md5",
            "list.json",
            "db.gz",
            "tar",
            "db.tar/",
            "db.tar.gz.part",
        ] {
            assert!(!is_archive(other), "{other}");
        }
    }

    fn assert_read(names: &[(&str, &str)]) {
        for (key, expected) in names {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(time(key), Some(expected), "{key}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_read(&[
            ("db-2025-01-01T10:00:00Z.tar", "2025-01-01T10:00:00Z"),
            ("db-20250101T100000Z.tar", "2025-01-01T10:00:00Z"),
            ("db_20250101100000.tar", "2025-01-01T10:00:00Z"),
            ("db-20250101-100000.tar", "2025-01-01T10:00:00Z"),
            ("db_2025-01-01_10-00-00.tar", "2025-01-01T10:00:00Z"),
            ("db-20250101T1000.tar", "2025-01-01T10:00:59.999999999Z"),
            ("db 2025-01-01 10:00.tar", "2025-01-01T10:00:59.999999999Z"),
            ("db-2025-01-01T10:00:00.25Z.tar", "2025-01-01T10:00:00.25Z"),
            ("db-2025-01-01T10:00:00+01:00.tar", "2025-01-01T09:00:00Z"),
            ("db-2025-01-01T10:00:00+0130.tar", "2025-01-01T08:30:00Z"),
            ("db-2025-01-01T10:00:00-0500.tar", "2025-01-01T15:00:00Z"),
            ("db-2025-01-01T10:00:00-05.tar", "2025-01-01T15:00:00Z"),
            ("db-2025-01-01T10:00:00+05.tar", "2025-01-01T10:00:00Z"),
        ]);
    }

    #[test]
    fn a_day_is_taken_to_its_end() {
        assert_read(&[
            ("db-20250101.tar", "2025-01-01T23:59:59.999999999Z"),
            ("2025/01/02/db.tar", "2025-01-02T23:59:59.999999999Z"),
            ("db-2025-01-01-5.tar", "2025-01-01T23:59:59.999999999Z"),
            ("db-20250101-0003.tar", "2025-01-01T23:59:59.999999999Z"),
            ("db-2025-01-01_10-00.tar", "2025-01-01T23:59:59.999999999Z"),
            (
                "1712008800_2024_04_01_16.10.2-ee_gitlab_backup.tar",
                "2024-04-01T23:59:59.999999999Z",
            ),
            ("db-20250101-1234567.tar", "2025-01-01T23:59:59.999999999Z"),
            (
                "db-2025-01-01T99:00:00.tar",
                "2025-01-01T23:59:59.999999999Z",
            ),
        ]);
    }

    #[test]
    fn of_several_dates_the_latest_counts_and_none_is_a_time() {
        assert_read(&[
            (
                "2025-01-01/2025-01-01T22:00:00Z.tar.gz",
                "2025-01-01T22:00:00Z",
            ),
            (
                "2025-01-02/2025-01-01T22:00:00Z.tar",
                "2025-01-02T23:59:59.999999999Z",
            ),
            (
                "2025/01/01/2025-01-01-backup.tar",
                "2025-01-01T23:59:59.999999999Z",
            ),
            (
                "2024-12-31_2025-01-01.tar",
                "2025-01-01T23:59:59.999999999Z",
            ),
            ("from-20241231_20250101_030000.tar", "2025-01-01T03:00:00Z"),
            ("31-12-2025_01-15.tar", "2025-12-31T23:59:59.999999999Z"),
            ("01-02-2025.tar", "2025-02-01T23:59:59.999999999Z"),
        ]);
    }

    #[test]
    fn what_is_no_date_says_nothing() {
        for key in [
            "db-20251301.tar",
            "db-2025-02-30.tar",
            "db-120250101.tar",
            "db-1735689600.tar",
            "db-2025_01-15.tar",
            "db.tar",
            "",
            "ünï-2025",
        ] {
            assert_eq!(time(key), None, "{key}");
        }
    }
}
