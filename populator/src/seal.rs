//! What the controller hands to one agent alone, in an order that others may read: the Secrets that a CSI driver
//! wants on the node. Agents may read no Secret, whoever's.
//!
//! An agent makes itself a key and tells the public half in its Lease; what is sealed for that is a file of
//! age (age-encryption.org/v1, X25519) in base64.

use std::collections::BTreeMap;
use std::fmt;

use age::secrecy::ExposeSecret as _;
use age::x25519::{Identity, Recipient};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

/// What is in the Secrets for a driver's calls on a node.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// For NodeStageVolume.
    pub stage: BTreeMap<String, String>,
    /// For NodePublishVolume.
    pub publish: BTreeMap<String, String>,
}

// It is not to be printed.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

/// The key of an agent, by which it opens what was sealed for it.
#[derive(Clone)]
pub struct Key(Identity);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.public()).finish()
    }
}

/// Why something was not sealed, or not opened.
#[derive(thiserror::Error, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// The public key is none.
    #[error("the agent's key cannot be understood")]
    Key,
    /// Nobody who has this key was meant, or it was damaged.
    #[error("they were sealed for another key than this agent's")]
    Closed,
    /// It is not what was agreed.
    #[error("what was sealed cannot be understood")]
    Contents,
}

impl Key {
    /// A new one.
    pub fn generate() -> Self {
        Self(Identity::generate())
    }

    /// What [`Key::secret`] has said.
    pub fn read(secret: &str) -> Result<Self, SealError> {
        secret.trim().parse().map(Self).map_err(|_| SealError::Key)
    }

    /// The key itself, as the program age has it in a file.
    pub fn secret(&self) -> String {
        self.0.to_string().expose_secret().to_owned()
    }

    /// What others need to seal something for it.
    pub fn public(&self) -> String {
        self.0.to_public().to_string()
    }

    /// Opens what was sealed for it.
    pub fn open(&self, sealed: &str) -> Result<Contents, SealError> {
        let sealed = BASE64.decode(sealed).map_err(|_| SealError::Closed)?;
        let opened = age::decrypt(&self.0, &sealed).map_err(|_| SealError::Closed)?;
        serde_json::from_slice(&opened).map_err(|_| SealError::Contents)
    }
}

/// Seals something for the agent that has told the key `public`.
pub fn seal(public: &str, contents: &Contents) -> Result<String, SealError> {
    let public: Recipient = public.parse().map_err(|_| SealError::Key)?;
    let contents = serde_json::to_vec(contents).map_err(|_| SealError::Contents)?;
    let sealed = age::encrypt(&public, &contents).map_err(|_| SealError::Key)?;
    Ok(BASE64.encode(sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_who_is_meant_can_open_it() {
        let contents = Contents {
            stage: [("userKey".to_owned(), "AQB".to_owned())].into(),
            publish: BTreeMap::new(),
        };
        let key = Key::generate();
        let sealed = seal(&key.public(), &contents).unwrap();
        assert!(!sealed.contains("AQB"));
        assert_eq!(key.open(&sealed), Ok(contents.clone()));
        let kept = Key::read(&format!("{}\n", key.secret())).unwrap();
        assert_eq!(kept.open(&sealed), Ok(contents.clone()));
        assert_eq!(Key::generate().open(&sealed), Err(SealError::Closed));
        for rubbish in ["", "%", &sealed[..40], "YWJj"] {
            assert_eq!(key.open(rubbish), Err(SealError::Closed), "{rubbish}");
        }
        assert_eq!(seal("age1", &contents), Err(SealError::Key));
        assert!(Key::read("rubbish").is_err());
        assert!(!format!("{key:?}{contents:?}").contains("AGE-SECRET"));
    }
}
