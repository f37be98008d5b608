//! By what a BackupStore is read: the keys in its Secret, or what the controller itself is, where the administrator
//! lends that.

use crds::BackupStore;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};

use crate::controller::api;
use crate::controller::context::Context;
use crate::controller::refusal::Refusal;
use crate::store::{Ambient, Credentials, Scheme};

/// Reads the keys of a store. Nothing watches Secrets: the controller sees one only when a
/// BackupStore of the same namespace names it, and only then.
pub async fn credentials(context: &Context, store: &BackupStore) -> Result<Credentials, Refusal> {
    let namespace = store.namespace().unwrap_or_default();
    let Some(secret) = named(store, &namespace, &context.reach.ambient)? else {
        return Ok(without(store));
    };
    let found = Api::<Secret>::namespaced(context.client.clone(), &namespace)
        .get_opt(secret)
        .await
        .map_err(|error| Refusal::SecretUnreadable {
            secret: secret.to_owned(),
            store: store.name_any(),
            why: api::short(&error),
        })?;
    let scheme = scheme(store);
    let found = found.ok_or_else(|| Refusal::SecretNotFound {
        secret: secret.to_owned(),
        store: store.name_any(),
        namespace,
        keys: Credentials::keys(scheme),
    })?;
    Credentials::read(scheme, |name| value(&found, name)).map_err(|key| Refusal::SecretIncomplete {
        secret: secret.to_owned(),
        store: store.name_any(),
        key,
    })
}

fn scheme(store: &BackupStore) -> Scheme {
    // The API server has it checked.
    Scheme::of(&store.spec.url).unwrap_or(Scheme::S3)
}

fn without(store: &BackupStore) -> Credentials {
    if scheme(store).needs_credentials() {
        Credentials::Ambient
    } else {
        Credentials::Unneeded
    }
}

/// The Secret to read, if there is one to read. The controller's own credentials are for the namespaces that are
/// listed, and for the clouds' own servers: what is signed by them may carry a token that opens more, which a server
/// of the tenant's choice, or one that passes for the cloud's by a certificate of the tenant's, must never see.
fn named<'a>(
    store: &'a BackupStore,
    namespace: &str,
    ambient: &Ambient,
) -> Result<Option<&'a str>, Refusal> {
    let spec = &store.spec;
    match &spec.credentials_secret_ref {
        _ if !scheme(store).needs_credentials() => Ok(None),
        Some(secret) => Ok(Some(&secret.name)),
        None if !ambient.serves(namespace) => Err(Refusal::AmbientDenied {
            store: store.name_any(),
            namespace: namespace.to_owned(),
        }),
        None if spec.endpoint.is_some() || spec.ca_bundle.is_some() => {
            Err(Refusal::AmbientElsewhere {
                store: store.name_any(),
            })
        }
        None => Ok(None),
    }
}

fn value(secret: &Secret, name: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(name)?;
    let value = std::str::from_utf8(&value.0).ok()?;
    // A line end that came with a file is never a part of a key.
    Some(value.trim_end().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn store(spec: &serde_json::Value) -> BackupStore {
        serde_json::from_value(json!({
            "apiVersion": "backup.example.com/v1", "kind": "BackupStore",
            "metadata": {"name": "store", "namespace": "team"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn values_are_trimmed_and_may_be_missing() {
        let secret: Secret = serde_json::from_value(json!({
            // "id\n" and nothing.
            "data": {"AWS_ACCESS_KEY_ID": "aWQK", "EMPTY": ""},
        }))
        .unwrap();
        assert_eq!(value(&secret, "AWS_ACCESS_KEY_ID").as_deref(), Some("id"));
        assert_eq!(value(&secret, "EMPTY"), None);
        assert_eq!(value(&secret, "NONE"), None);
        assert_eq!(value(&Secret::default(), "NONE"), None);
    }

    #[test]
    fn the_controllers_own_credentials_are_for_those_listed_and_the_clouds_own_servers() {
        let listed = Ambient::new(&["team".to_owned()]);
        let nobody = Ambient::default();
        let own = store(&json!({"url": "s3://b"}));
        assert_eq!(named(&own, "team", &listed), Ok(None));
        assert!(matches!(without(&own), Credentials::Ambient));
        let reason = |store: &BackupStore, ambient: &Ambient| {
            named(store, "team", ambient).unwrap_err().reason()
        };
        assert_eq!(reason(&own, &nobody), "AmbientCredentialsDenied");
        for spec in [
            json!({"url": "s3://b", "endpoint": "https://s.example.com"}),
            json!({"url": "gs://b", "endpoint": "https://s.example.com"}),
            json!({"url": "az://b", "account": "a", "endpoint": "https://s.example.com"}),
            json!({"url": "s3://b", "caBundle": "-----BEGIN CERTIFICATE-----"}),
        ] {
            let elsewhere = store(&spec);
            assert_eq!(reason(&elsewhere, &listed), "AmbientCredentialsDenied");
        }
        let named_one = store(&json!({
            "url": "s3://b", "endpoint": "https://s.example.com",
            "credentialsSecretRef": {"name": "keys"},
        }));
        assert_eq!(named(&named_one, "team", &nobody), Ok(Some("keys")));
        let web = store(&json!({"url": "https://h"}));
        assert_eq!(named(&web, "team", &nobody), Ok(None));
        assert!(matches!(without(&web), Credentials::Unneeded));
    }
}
