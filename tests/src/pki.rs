//! Certificates: one authority a cluster, made at start and thrown away with it.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub certificate: String,
}

/// A certificate and its key, both PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS #8.
    pub key: String,
}

impl Authority {
    /// A new authority.
    pub fn new() -> Result<Self> {
        let mut params = named("volume-populator tests", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// A certificate for a server at these addresses.
    pub fn server(&self, name: &str, addresses: &[IpAddr]) -> Result<Identity> {
        let mut params = named(name, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        self.sign(&params)
    }

    /// A certificate for a client: Kubernetes takes `user` and `group` from its subject.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Identity> {
        let mut params = named(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// The text of a kubeconfig with which `user` of `group` speaks to `server`.
    pub fn kubeconfig(&self, server: &str, user: &str, group: Option<&str>) -> Result<String> {
        let identity = self.client(user, group)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {
                "server": server,
                "certificate-authority-data": base64(&self.certificate),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": base64(&identity.certificate),
                "client-key-data": base64(&identity.key),
            }}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "current-context": "tests",
        });
        Ok(format!("{config:#}\n"))
    }
}

impl Identity {
    /// Writes `<name>.crt` and `<name>.key` into `folder`.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        for (ending, text) in [("crt", &self.certificate), ("key", &self.key)] {
            let path = folder.join(format!("{name}.{ending}"));
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params
}

/// Base64 as kubeconfig fields want it. Kubernetes' own byte strings serialize to it.
fn base64(text: &str) -> serde_json::Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_carries_the_authority_and_an_identity() {
        let authority = Authority::new().unwrap();
        let text = authority
            .kubeconfig("https://10.96.0.1:443", "admin", Some("system:masters"))
            .unwrap();
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://10.96.0.1:443"));
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(
            user.client_certificate_data
                .as_ref()
                .unwrap()
                .starts_with("LS0tLS1CRUdJTi")
        );
    }

    #[test]
    fn two_identities_have_two_keys() {
        let authority = Authority::new().unwrap();
        let (one, two) = (
            authority.client("a", None).unwrap(),
            authority.client("a", None),
        );
        assert_ne!(one.key, two.unwrap().key);
    }
}
