//! Reading requests. Whatever is wrong with one is INVALID_ARGUMENT, and is found before anything
//! is looked up.

use std::path::{Component, Path, PathBuf};

use csi::v1::{CapacityRange, VolumeCapability};
use tonic::Status;

use crate::operations::Coded;
use crate::operations::create::CreateError;
use crate::operations::list::Page;
use crate::operations::validate::LookupError;
use crate::volume::{Capability, Id, Kind, SizeRange, VolumeId};

/// The longest text of most fields, in bytes, by the CSI specification.
const LONGEST: usize = 128;

/// The longest path that Linux takes, in bytes.
const LONGEST_PATH: usize = 4095;

/// INVALID_ARGUMENT with these words.
pub(super) fn invalid(reason: impl Into<String>) -> Status {
    Status::invalid_argument(reason)
}

/// A text that must be there, not be too long, and have no control characters.
pub(super) fn text<'a>(field: &str, value: &'a str) -> Result<&'a str, Status> {
    if value.is_empty() {
        Err(invalid(format!("{field} is missing")))
    } else if value.len() > LONGEST {
        Err(invalid(format!("{field} has more than {LONGEST} bytes")))
    } else if value.chars().any(char::is_control) {
        Err(invalid(format!("{field} has control characters")))
    } else {
        Ok(value)
    }
}

/// The id of something that must exist: one that this driver never gives is NOT_FOUND.
pub(super) fn id<K: Kind>(field: &str, value: &str) -> Result<Id<K>, Status> {
    former_id(field, value)?.ok_or_else(|| {
        let value: String = value.chars().take(LONGEST).collect();
        status(&LookupError::NotFound(format!("{value:?}")))
    })
}

/// The id of something that need not exist any more.
pub(super) fn former_id<K: Kind>(field: &str, value: &str) -> Result<Option<Id<K>>, Status> {
    if value.is_empty() {
        Err(invalid(format!("{field} is missing")))
    } else {
        Ok(Id::parse(value))
    }
}

/// The id of a volume that must exist.
pub(super) fn volume(value: &str) -> Result<VolumeId, Status> {
    id("volume_id", value)
}

/// The part of a list that is wanted. A token that no page had is ABORTED, by the specification.
pub(super) fn page<K: Kind>(max_entries: i32, starting_token: &str) -> Result<Page<K>, Status> {
    let most = usize::try_from(max_entries)
        .map_err(|_| invalid("max_entries is negative; use 0 for all"))?;
    let after = match starting_token {
        "" => None,
        token => Some(Id::parse(token).ok_or_else(|| {
            Status::aborted("starting_token is none of this driver's; begin without one")
        })?),
    };
    Ok(Page {
        after,
        most: (most > 0).then_some(most),
    })
}

/// An error as gRPC has it.
pub(super) fn status(error: &impl Coded) -> Status {
    Status::new(error.code(), error.to_string())
}

/// A path that must be there, absolute and plain.
pub(super) fn path(field: &str, value: &str) -> Result<PathBuf, Status> {
    let plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
    if value.is_empty() {
        Err(invalid(format!("{field} is missing")))
    } else if value.len() > LONGEST_PATH || value.chars().any(char::is_control) {
        Err(invalid(format!(
            "{field} is too long, or has control characters"
        )))
    } else if !value.starts_with('/') || !Path::new(value).components().all(plain) {
        Err(invalid(format!(
            "{field} must be an absolute path without `..`"
        )))
    } else {
        Ok(PathBuf::from(value))
    }
}

/// A capability that must be there and be offered.
pub(super) fn capability(value: Option<&VolumeCapability>) -> Result<Capability, Status> {
    let capability = value.ok_or_else(|| invalid("volume_capability is missing"))?;
    Capability::parse(capability).map_err(|error| invalid(error.to_string()))
}

/// Several capabilities, at least one.
pub(super) fn capabilities(values: &[VolumeCapability]) -> Result<Vec<Capability>, Status> {
    if values.is_empty() {
        return Err(invalid("volume_capabilities is empty"));
    }
    values
        .iter()
        .map(|value| Capability::parse(value).map_err(|error| invalid(error.to_string())))
        .collect()
}

/// A range of sizes; all sizes when it is left out.
pub(super) fn size(range: Option<&CapacityRange>) -> Result<SizeRange, Status> {
    let Some(range) = range else {
        return Ok(SizeRange::default());
    };
    SizeRange::parse(range.required_bytes, range.limit_bytes)
        .map_err(|error| status(&CreateError::Size(error)))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::volume::OfVolume;

    #[test]
    fn paths_are_absolute_and_plain() {
        for good in [
            "/a",
            "/var/lib/kubelet/plugins/x/globalmount",
            "/a/./b",
            "/a b/ä",
        ] {
            assert_eq!(path("p", good).unwrap(), Path::new(good));
        }
        let long = format!("/{}", "x".repeat(LONGEST_PATH));
        for bad in ["", "a", "../a", "/a/../b", "/a\n", "/a\0", &long] {
            assert_eq!(
                path("p", bad).unwrap_err().code(),
                Code::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn texts_are_there_and_short() {
        assert_eq!(text("name", &"x".repeat(128)).unwrap().len(), 128);
        for bad in ["", "a\u{7}", &"x".repeat(129)] {
            assert_eq!(
                text("name", bad).unwrap_err().code(),
                Code::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn ids_that_were_never_given_belong_to_no_volume() {
        assert_eq!(volume("").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(volume("../../etc").unwrap_err().code(), Code::NotFound);
        let former = |value| former_id::<OfVolume>("volume_id", value);
        assert_eq!(former("").unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(former("../../etc").unwrap(), None);
    }
}
