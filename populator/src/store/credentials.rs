//! By what a store knows who asks: the keys of a BackupStore's Secret, or the controller's own credentials.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::azure::AzureAccessKey;
use object_store::gcp::{GcpSigningCredential, GcpSigningCredentialProvider, ServiceAccountKey};
use serde::Deserialize;

use super::Scheme;

/// What a URL is signed by. Never printed, never written anywhere.
#[derive(Clone)]
pub enum Credentials {
    /// Of a server that speaks S3.
    Amazon {
        /// `AWS_ACCESS_KEY_ID`.
        access_key_id: String,
        /// `AWS_SECRET_ACCESS_KEY`.
        secret_access_key: String,
        /// `AWS_SESSION_TOKEN`, for temporary credentials.
        session_token: Option<String>,
    },
    /// `GOOGLE_SERVICE_ACCOUNT_KEY`: the account's name and its private key, and nothing else of that file,
    /// which may name servers.
    Google(GcpSigningCredentialProvider),
    /// `AZURE_STORAGE_KEY`: the key of the storage account that the BackupStore names.
    Azure(String),
    /// What the controller itself runs as.
    Ambient,
    /// The URL says it all, or there is no server.
    Unneeded,
}

/// The file of keys that Google gives out.
#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
}

impl Credentials {
    /// The keys that the Secret of such a store must have, for people.
    pub fn keys(scheme: Scheme) -> &'static str {
        match scheme {
            Scheme::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Scheme::Gs => "GOOGLE_SERVICE_ACCOUNT_KEY",
            Scheme::Az => "AZURE_STORAGE_KEY",
            Scheme::Https | Scheme::File => "that are asked for nowhere",
        }
    }

    /// Reads them from what a Secret has, or says which one is missing or is none.
    pub fn read(
        scheme: Scheme,
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, &'static str> {
        let key = |name| get(name).ok_or(name);
        match scheme {
            Scheme::S3 => Ok(Self::Amazon {
                access_key_id: key("AWS_ACCESS_KEY_ID")?,
                secret_access_key: key("AWS_SECRET_ACCESS_KEY")?,
                session_token: get("AWS_SESSION_TOKEN"),
            }),
            Scheme::Gs => {
                let name = "GOOGLE_SERVICE_ACCOUNT_KEY";
                google(&key(name)?).ok_or(name)
            }
            Scheme::Az => {
                let name = "AZURE_STORAGE_KEY";
                let key = key(name)?;
                AzureAccessKey::try_new(&key).map_err(|_| name)?;
                Ok(Self::Azure(key))
            }
            Scheme::Https | Scheme::File => Ok(Self::Unneeded),
        }
    }
}

fn google(file: &str) -> Option<Credentials> {
    let account: ServiceAccount = serde_json::from_str(file).ok()?;
    let private_key = ServiceAccountKey::from_pem(account.private_key.as_bytes()).ok()?;
    let provider = StaticCredentialProvider::new(GcpSigningCredential {
        email: account.client_email,
        private_key: Some(private_key),
    });
    Some(Credentials::Google(Arc::new(provider)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key as Google gives them out, with what such a file may say of servers.
    pub(in crate::store) fn google_key() -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        serde_json::json!({
            "type": "service_account", "client_email": "restores@project.example.com",
            "private_key_id": "1", "private_key": key.serialize_pem(),
            "gcs_base_url": "http://169.254.169.254", "disable_oauth": true,
            "token_uri": "http://169.254.169.254",
        })
        .to_string()
    }

    #[test]
    fn keys_are_required_and_must_be_some() {
        let read = |scheme, pairs: &[(&'static str, &str)]| {
            let pairs = pairs.to_vec();
            Credentials::read(scheme, |name| {
                let found = pairs.iter().find(|pair| pair.0 == name);
                found.map(|pair| pair.1.to_owned())
            })
        };
        let google = google_key();
        for (scheme, pairs, missing) in [
            (Scheme::S3, &[][..], Some("AWS_ACCESS_KEY_ID")),
            (
                Scheme::S3,
                &[("AWS_ACCESS_KEY_ID", "id")],
                Some("AWS_SECRET_ACCESS_KEY"),
            ),
            (
                Scheme::S3,
                &[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "k")],
                None,
            ),
            (Scheme::Gs, &[], Some("GOOGLE_SERVICE_ACCOUNT_KEY")),
            (
                Scheme::Gs,
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", "{}")],
                Some("GOOGLE_SERVICE_ACCOUNT_KEY"),
            ),
            (
                Scheme::Gs,
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", google.as_str())],
                None,
            ),
            (
                Scheme::Az,
                &[("AZURE_STORAGE_KEY", "not base64!")],
                Some("AZURE_STORAGE_KEY"),
            ),
            (Scheme::Az, &[("AZURE_STORAGE_KEY", "c2VjcmV0")], None),
            (Scheme::Https, &[], None),
        ] {
            assert_eq!(read(scheme, pairs).err(), missing, "{scheme:?} {pairs:?}");
        }
    }
}
