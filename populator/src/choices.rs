//! From what people choose in a VolumeBackup to what the engine does: a pure function, by which the
//! controller judges a choice before there is a volume, and the agent carries it out.

use archive::{
    Limits, Map, Names, Options, Ownership, OwnershipError, Selection, SelectionError, Verified,
    Wishes,
};
use crds::RestoreOptions;
use crds::restore_options::{MetadataPolicy, Name, RequireVerified};

use crate::units;

/// What the API server lets through and nobody can do, in words that say what to do.
#[derive(thiserror::Error, Debug, Clone, PartialEq, Eq)]
pub enum ChoiceError {
    /// The entries.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// The owners.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// A figure or a digest.
    #[error("{field} cannot be {value:?}; write {example}")]
    Value {
        /// Where it stands.
        field: &'static str,
        /// As written.
        value: String,
        /// What would be right.
        example: &'static str,
    },
}

/// Whether `wanted` can be done.
pub fn check(wanted: &RestoreOptions) -> Result<(), ChoiceError> {
    check_retry(wanted)?;
    options(wanted, &Options::new(archive::Budget::new(0))).map(drop)
}

/// `base`, with what is `wanted`.
pub fn options(wanted: &RestoreOptions, base: &Options) -> Result<Options, ChoiceError> {
    Ok(Options {
        selection: selection(wanted)?,
        ownership: ownership(wanted)?,
        limits: limits(wanted, &base.limits)?,
        strict: wanted.metadata_policy == Some(MetadataPolicy::Strict),
        sha256: sha256(wanted)?,
        required: match wanted.require_verified {
            None | Some(RequireVerified::None) => Verified::None,
            Some(RequireVerified::Stream) => Verified::Stream,
            Some(RequireVerified::PerFile) => Verified::PerFile,
            Some(RequireVerified::Sha256) => Verified::Sha256,
        },
        ..base.clone()
    })
}

fn selection(wanted: &RestoreOptions) -> Result<Selection, ChoiceError> {
    Ok(Selection::new(&Wishes {
        include: &wanted.include,
        exclude: &wanted.exclude,
        sub_path: wanted.sub_path.as_deref().unwrap_or_default(),
        strip_components: number("stripComponents", wanted.strip_components.unwrap_or(0))?,
    })?)
}

fn ownership(wanted: &RestoreOptions) -> Result<Ownership, ChoiceError> {
    let Some(ownership) = &wanted.ownership else {
        return Ok(Ownership::Numbers);
    };
    if let Some(names) = &ownership.names {
        let table = |names: &[Name]| -> Result<Vec<(String, u32)>, ChoiceError> {
            let row = |it: &Name| Ok((it.name.clone(), number("ownership.names", it.id)?));
            names.iter().map(row).collect()
        };
        let names = Names::new(table(&names.users)?, table(&names.groups)?);
        return Ok(Ownership::Names(names));
    }
    if let Some(map) = &ownership.map {
        return Ok(Ownership::Map(Map::parse(&map.users, &map.groups)?));
    }
    match &ownership.all {
        Some(all) => Ok(Ownership::One {
            uid: number("ownership.all.uid", all.uid)?,
            gid: number("ownership.all.gid", all.gid)?,
        }),
        None => Ok(Ownership::Numbers),
    }
}

/// What the controller alone goes by.
fn check_retry(wanted: &RestoreOptions) -> Result<(), ChoiceError> {
    let most = wanted.retry.as_ref();
    match most.and_then(|it| it.max_bytes_fetched.as_ref()) {
        Some(bytes) if units::quantity(bytes).is_none() => Err(ChoiceError::Value {
            field: "retry.maxBytesFetched",
            value: bytes.clone(),
            example: "a quantity, for example 300Gi",
        }),
        Some(_) | None => Ok(()),
    }
}

fn limits(wanted: &RestoreOptions, base: &Limits) -> Result<Limits, ChoiceError> {
    let mut limits = base.clone();
    let Some(most) = &wanted.limits else {
        return Ok(limits);
    };
    if let Some(entries) = most.entries {
        limits.entries = number("limits.entries", entries)?;
    }
    if let Some(unpacked) = &most.unpacked {
        limits.unpacked = units::quantity(unpacked).ok_or_else(|| ChoiceError::Value {
            field: "limits.unpacked",
            value: unpacked.clone(),
            example: "a quantity, for example 100Gi",
        })?;
    }
    if let Some(ratio) = most.ratio {
        limits.ratio = number("limits.ratio", ratio)?;
    }
    Ok(limits)
}

fn sha256(wanted: &RestoreOptions) -> Result<Option<[u8; 32]>, ChoiceError> {
    let Some(checksum) = &wanted.checksum else {
        return Ok(None);
    };
    let mut digest = [0; 32];
    hex::decode_to_slice(&checksum.sha256, &mut digest).map_err(|_| ChoiceError::Value {
        field: "checksum.sha256",
        value: checksum.sha256.clone(),
        example: "64 hexadecimal digits, as sha256sum prints them",
    })?;
    Ok(Some(digest))
}

/// A number of the API, which has none below 0 nor above what the schema says.
fn number<T: TryFrom<i64>>(field: &'static str, number: i64) -> Result<T, ChoiceError> {
    T::try_from(number).map_err(|_| ChoiceError::Value {
        field,
        value: number.to_string(),
        example: "a number that its description allows",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive::Budget;
    use serde_json::{Value, json};

    fn chosen(wanted: Value) -> Result<Options, String> {
        let wanted: RestoreOptions = serde_json::from_value(wanted).unwrap();
        options(&wanted, &Options::new(Budget::new(0))).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_chosen_is_the_default() {
        let plain = chosen(json!({})).unwrap();
        let default = Options::new(Budget::new(0));
        assert_eq!(plain.limits, default.limits);
        assert_eq!(plain.ownership, default.ownership);
        let rest = |it: &Options| (it.strict, it.sha256, it.required, it.existing, it.devices);
        assert_eq!(rest(&plain), rest(&default));
    }

    #[test]
    fn every_choice_reaches_the_engine() {
        let options = chosen(json!({
            "checksum": {"sha256": "0F".repeat(32)}, "requireVerified": "Sha256",
            "include": ["a/**"], "exclude": ["**/*.tmp"], "stripComponents": 1, "subPath": "a",
            "ownership": {"all": {"uid": 4_294_967_294_u32, "gid": 8}},
            "metadataPolicy": "Strict",
            "limits": {"entries": 5, "unpacked": "1Gi", "ratio": 7},
        }))
        .unwrap();
        assert_eq!(options.sha256, Some([15; 32]));
        assert_eq!((options.required, options.strict), (Verified::Sha256, true));
        let one = Ownership::One {
            uid: u32::MAX - 1,
            gid: 8,
        };
        assert_eq!(options.ownership, one);
        let limits = (
            options.limits.entries,
            options.limits.unpacked,
            options.limits.ratio,
        );
        assert_eq!(limits, (5, 1 << 30, 7));
        // What is chosen of the entries is tried in the engine.
        assert_ne!(
            format!("{:?}", options.selection),
            format!("{:?}", Selection::default())
        );
    }

    #[test]
    fn owners_by_name_and_by_rule() {
        let names =
            json!({"users": [{"name": "lisa", "id": 7}], "groups": [{"name": "g", "id": 8}]});
        let expected = Names::new([("lisa", 7)], [("g", 8)]);
        let options = chosen(json!({"ownership": {"names": names}})).unwrap();
        assert_eq!(options.ownership, Ownership::Names(expected));
        let rules = ["1-9:100".to_owned()];
        let expected = Map::parse(&rules, &[]).unwrap();
        let options = chosen(json!({"ownership": {"map": {"users": rules}}})).unwrap();
        assert_eq!(options.ownership, Ownership::Map(expected));
    }

    #[test]
    fn what_the_api_server_cannot_see_is_refused_in_a_sentence() {
        for (wanted, words) in [
            (json!({"include": ["a[b"]}), "a[b"),
            (json!({"exclude": ["{"]}), "is not a glob"),
            (json!({"subPath": "a/../b"}), "a/../b"),
            (json!({"stripComponents": -1}), "stripComponents"),
            (json!({"ownership": {"map": {"users": ["9-1:0"]}}}), "9-1:0"),
            (
                json!({"ownership": {"map": {"groups": ["1-5:0", "5:7"]}}}),
                "5:7",
            ),
            (json!({"ownership": {"all": {"uid": -1, "gid": 0}}}), "uid"),
            (json!({"checksum": {"sha256": "0f"}}), "checksum.sha256"),
            (json!({"limits": {"unpacked": "much"}}), "limits.unpacked"),
        ] {
            let said = chosen(wanted).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
