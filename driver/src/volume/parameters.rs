//! The parameters of a StorageClass.

use std::collections::BTreeMap;

/// What external-provisioner adds with `--extra-create-metadata`, and the file system, which it
/// takes out of CreateVolume's parameters but leaves in GetCapacity's (there it stands in the
/// capability). Taken, and of no effect.
const METADATA: [&str; 4] = [
    "csi.storage.k8s.io/fstype",
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name",
];

/// A parameter that means nothing here. Passing over it would hide a typing mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the StorageClass parameter {key:?} is unknown; this driver has none of its own and takes {}",
    METADATA.join(", ")
)]
pub struct UnknownParameter {
    key: String,
}

/// Checks that every parameter is known.
pub fn check(parameters: &BTreeMap<String, String>) -> Result<(), UnknownParameter> {
    match parameters
        .keys()
        .find(|key| !METADATA.contains(&key.as_str()))
    {
        Some(key) => Err(UnknownParameter { key: key.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_taken_and_the_unknown_is_named() {
        let mut parameters = BTreeMap::from(METADATA.map(|key| (key.to_owned(), "x".to_owned())));
        assert_eq!(check(&parameters), Ok(()));
        parameters.insert("fsTyp".into(), "xfs".into());
        let error = check(&parameters).unwrap_err();
        assert_eq!(
            error,
            UnknownParameter {
                key: "fsTyp".into()
            }
        );
        assert!(
            error.to_string().contains("csi.storage.k8s.io/pvc/name"),
            "{error}"
        );
    }
}
