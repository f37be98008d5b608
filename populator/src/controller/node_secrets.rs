//! The Secrets that a CSI driver wants on a node, read for it and sealed for the node's agent.

use std::collections::BTreeMap;

use crds::restore_order::{NodeSecrets, SecretName};
use k8s_openapi::api::core::v1::Secret;

use super::agents::Agents;
use super::api;
use super::context::Context;
use super::refusal::Refusal;
use crate::seal::{self, Contents};
use crate::units;

/// Bytes of what is sealed: an order holds more than that, and all of it must fit into one object of the API
/// server's store, which takes 1.5 MiB (etcd, `--max-request-bytes`).
const SEALED_MAX: usize = 512 << 10;

/// Why what a CSI driver wants on a node cannot be handed to it. Each is cured by the administrator, and
/// looked at again until then.
#[derive(thiserror::Error, strum::EnumDiscriminants, Debug, Clone, PartialEq, Eq)]
#[strum_discriminants(derive(strum::EnumIter, Hash), allow(missing_docs))]
pub enum NodeSecretError {
    /// A Secret is missing.
    #[error(
        "the Secret {secret}, which the CSI driver {driver} wants on the node, does not exist; have the administrator create it, or name another one in the StorageClass"
    )]
    NotFound {
        /// `NAMESPACE/NAME`.
        secret: String,
        /// The driver.
        driver: String,
    },
    /// The API server does not hand a Secret out.
    #[error(
        "the populator may not read the Secret {secret}, which the CSI driver {driver} wants on the node ({why}); have the administrator give its ServiceAccount get on Secrets"
    )]
    Unreadable {
        /// `NAMESPACE/NAME`.
        secret: String,
        /// The driver.
        driver: String,
        /// What the API server said.
        why: String,
    },
    /// What is in a Secret is nothing that CSI can carry.
    #[error(
        "the value {key} of the Secret {secret}, which the CSI driver {driver} wants on the node, is not text in UTF-8, as CSI wants it; have the administrator correct it"
    )]
    NotText {
        /// `NAMESPACE/NAME`.
        secret: String,
        /// The driver.
        driver: String,
        /// The key in it.
        key: String,
    },
    /// More than an order can carry.
    #[error(
        "the Secrets that the CSI driver {driver} wants on the node are {human} together, and at most 512 KiB can be handed over; have the administrator make them smaller", human = units::bytes(*bytes)
    )]
    TooLarge {
        /// The driver.
        driver: String,
        /// Their size.
        bytes: u64,
    },
}

impl NodeSecretError {
    /// One word in CamelCase, for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "SecretNotFound",
            Self::Unreadable { .. } => "SecretUnreadable",
            Self::NotText { .. } => "SecretInvalid",
            Self::TooLarge { .. } => "SecretTooLarge",
        }
    }
}

/// For whom Secrets are sealed, and for whose sake.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    /// The agents, of which one is meant.
    pub agents: &'a Agents,
    /// The node of that one.
    pub node: &'a str,
    /// The CSI driver.
    pub driver: &'a str,
}

/// What the Secrets hold at this moment, sealed.
pub async fn sealed(
    context: &Context,
    secrets: &NodeSecrets,
    whom: For<'_>,
) -> Result<String, Refusal> {
    let outdated = || Refusal::AgentOutdated {
        node: whom.node.to_owned(),
        what: "be handed the Secrets that the driver wants",
    };
    let key = whom.agents.sealing_key(whom.node).ok_or_else(outdated)?;
    let stage = read(context, secrets.stage.as_ref(), whom.driver).await?;
    let publish = if secrets.publish == secrets.stage {
        stage.clone()
    } else {
        read(context, secrets.publish.as_ref(), whom.driver).await?
    };
    let sealed = seal::seal(key, &Contents { stage, publish }).map_err(|_| outdated())?;
    if sealed.len() > SEALED_MAX {
        let (driver, bytes) = (whom.driver.to_owned(), sealed.len() as u64);
        return Err(NodeSecretError::TooLarge { driver, bytes }.into());
    }
    Ok(sealed)
}

async fn read(
    context: &Context,
    name: Option<&SecretName>,
    driver: &str,
) -> Result<BTreeMap<String, String>, NodeSecretError> {
    let Some(SecretName { namespace, name }) = name else {
        return Ok(BTreeMap::new());
    };
    let (secret, driver) = (format!("{namespace}/{name}"), driver.to_owned());
    let found = match context.of::<Secret>(namespace).get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(NodeSecretError::NotFound { secret, driver }),
        Err(error) => {
            let why = api::short(&error);
            return Err(NodeSecretError::Unreadable {
                secret,
                driver,
                why,
            });
        }
    };
    texts(&found).map_err(|key| NodeSecretError::NotText {
        secret,
        driver,
        key,
    })
}

/// The values of a Secret, which CSI wants as text, or the key of the first that is none.
fn texts(secret: &Secret) -> Result<BTreeMap<String, String>, String> {
    let values = secret.data.iter().flatten();
    values
        .map(|(key, value)| match String::from_utf8(value.0.clone()) {
            Ok(text) => Ok((key.clone(), text)),
            Err(_) => Err(key.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_handed_over_as_they_are() {
        let read = |data| texts(&serde_json::from_value(json!({ "data": data })).unwrap());
        // "a\n", which may be a part of it.
        let one = read(json!({"userKey": "YQo="})).unwrap();
        assert_eq!(one["userKey"], "a\n");
        assert_eq!(read(json!({})).unwrap(), BTreeMap::new());
        assert_eq!(read(json!({"raw": "/w=="})), Err("raw".to_owned()));
    }
}
