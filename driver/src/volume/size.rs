//! How large a volume becomes, from what was asked for.

use crate::bytes::{Bytes, GIB, MIB};

/// The size of a volume for which none was asked, in bytes.
pub const DEFAULT: u64 = GIB;

/// Sizes are rounded up to this where the limit lets them, in bytes.
pub const UNIT: u64 = MIB;

/// Sizes are multiples of this in any case, in bytes: a loop device's block.
const BLOCK: u64 = 4096;

/// A CSI capacity range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeRange {
    /// The least that is needed, in bytes; 0 when that was left open.
    required: u64,
    /// The most that is allowed, in bytes.
    limit: Option<u64>,
}

/// Why no size fits a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A negative number.
    #[error("the capacity range has a negative number; give bytes, or 0 to leave it open")]
    Negative,
    /// More required than allowed.
    #[error("the capacity range requires {required} bytes and limits them to {limit}")]
    Contradiction {
        /// The least.
        required: u64,
        /// The most.
        limit: u64,
    },
    /// No size that can be made is within the limit.
    #[error(
        "no size fits the limit of {limit} bytes: at least {} are needed, by the file system, by \
         what the volume is made from, or by what it has already; sizes are multiples of 4096 bytes, and {required} were \
         required", Bytes(*.minimum)
    )]
    Limit {
        /// The least.
        required: u64,
        /// The most.
        limit: u64,
        /// What the file system or the source needs, or what the volume has.
        minimum: u64,
    },
    /// Rounded up it would not fit 63 bits.
    #[error("{0} bytes are more than any file can have")]
    Huge(u64),
}

impl SizeRange {
    /// From CSI's numbers, where 0 leaves a side open.
    pub fn parse(required: i64, limit: i64) -> Result<Self, SizeError> {
        let required = u64::try_from(required).map_err(|_| SizeError::Negative)?;
        let limit = u64::try_from(limit).map_err(|_| SizeError::Negative)?;
        match (limit > 0).then_some(limit) {
            Some(limit) if limit < required => Err(SizeError::Contradiction { required, limit }),
            limit => Ok(Self { required, limit }),
        }
    }

    /// The size of a new volume that needs at least `minimum` bytes, for its file system or for
    /// what it is made from; where none is asked for it gets `default`.
    pub fn choose(self, minimum: u64, default: u64) -> Result<u64, SizeError> {
        let wanted = match (self.required, self.limit) {
            (0, None) => default,
            // Only a limit: what would be made without one, or as much as is allowed.
            (0, Some(limit)) => default.min(limit - limit % BLOCK),
            (required, _) => required,
        };
        let least = wanted.max(minimum);
        let limit = self.limit.unwrap_or(u64::MAX >> 1);
        let fits = |unit: u64| {
            least
                .checked_next_multiple_of(unit)
                .filter(|size| *size <= limit)
        };
        fits(UNIT).or_else(|| fits(BLOCK)).ok_or(match self.limit {
            Some(limit) => SizeError::Limit {
                required: self.required,
                limit,
                minimum,
            },
            None => SizeError::Huge(self.required),
        })
    }

    /// The size that a volume of `present` bytes comes to have: its own where that will do, else
    /// what is asked for, to the block. Nothing ever shrinks.
    pub fn grow(self, present: u64) -> Result<u64, SizeError> {
        if self.admits(present) {
            return Ok(present);
        }
        let limit = self.limit.unwrap_or(u64::MAX >> 1);
        let grown = self.required.max(present).checked_next_multiple_of(BLOCK);
        grown.filter(|size| *size <= limit).ok_or(match self.limit {
            Some(limit) => SizeError::Limit {
                required: self.required,
                limit,
                minimum: present,
            },
            None => SizeError::Huge(self.required),
        })
    }

    /// Whether a volume of this size is what was asked for.
    pub fn admits(self, size: u64) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: u64 = 16 * MIB;

    fn choose(required: i64, limit: i64) -> Result<u64, SizeError> {
        SizeRange::parse(required, limit)
            .unwrap()
            .choose(MINIMUM, DEFAULT)
    }

    #[test]
    fn sizes_are_rounded_up_as_far_as_the_limit_lets_them() {
        let mib = i64::try_from(MIB).unwrap();
        for (required, limit, size) in [
            (0, 0, DEFAULT),
            (0, 100 * mib, 100 * MIB),
            (0, 100 * mib + 5000, 100 * MIB + 4096),
            (0, i64::MAX, DEFAULT),
            (1, 0, MINIMUM),
            (20 * mib, 0, 20 * MIB),
            (20 * mib, 20 * mib, 20 * MIB),
            (20 * mib + 1, 0, 21 * MIB),
            (20 * mib + 1, 20 * mib + 4096, 20 * MIB + 4096),
            (20 * mib + 1, 21 * mib, 21 * MIB),
        ] {
            assert_eq!(choose(required, limit), Ok(size), "{required} to {limit}");
        }
    }

    #[test]
    fn what_no_size_fits_is_refused() {
        let mib = i64::try_from(MIB).unwrap();
        for (required, limit) in [(1, 2), (0, 15 * mib), (20 * mib + 1, 20 * mib + 4095)] {
            let error = choose(required, limit).unwrap_err();
            assert!(
                matches!(error, SizeError::Limit { .. }),
                "{required} to {limit}"
            );
        }
        assert!(matches!(choose(i64::MAX, 0), Err(SizeError::Huge(_))));
        assert_eq!(SizeRange::parse(-1, 0), Err(SizeError::Negative));
        assert_eq!(SizeRange::parse(0, -1), Err(SizeError::Negative));
        let contradiction = SizeError::Contradiction {
            required: 2,
            limit: 1,
        };
        assert_eq!(SizeRange::parse(2, 1), Err(contradiction));
    }

    #[test]
    fn volumes_grow_to_what_is_asked_for_and_never_shrink() {
        let grow = |required, limit| SizeRange::parse(required, limit).unwrap().grow(20 * MIB);
        let mib = i64::try_from(MIB).unwrap();
        for (required, limit, size) in [
            (0, 0, 20 * MIB),
            (1, 0, 20 * MIB),
            (20 * mib, 20 * mib, 20 * MIB),
            (0, 30 * mib, 20 * MIB),
            (30 * mib, 0, 30 * MIB),
            (20 * mib + 4096, 0, 20 * MIB + 4096),
            (20 * mib + 1, 0, 20 * MIB + 4096),
            (20 * mib + 1, 20 * mib + 4096, 20 * MIB + 4096),
        ] {
            assert_eq!(grow(required, limit), Ok(size), "{required} to {limit}");
        }
        for (required, limit) in [(0, 20 * mib - 1), (20 * mib + 1, 20 * mib + 4095)] {
            let error = grow(required, limit).unwrap_err();
            assert!(matches!(error, SizeError::Limit { .. }), "{error}");
        }
        assert!(matches!(grow(i64::MAX, 0), Err(SizeError::Huge(_))));
    }

    #[test]
    fn an_existing_volume_suits_a_range_that_holds_its_size() {
        let admits = |required, limit| SizeRange::parse(required, limit).unwrap().admits(1000);
        assert!(admits(0, 0) && admits(1000, 1000) && admits(1, 0) && admits(0, 1000));
        assert!(!admits(1001, 0) && !admits(0, 999) && !admits(1, 999));
    }
}
