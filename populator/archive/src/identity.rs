//! What encrypted archives are opened with.

use std::fmt;

use age::secrecy::SecretString;
use age::{scrypt, x25519};

/// Keys and a passphrase for archives that are encrypted with age
/// (<https://age-encryption.org/v1>). They are never printed.
#[derive(Clone, Default)]
pub struct Identities {
    keys: Vec<x25519::Identity>,
    passphrase: Option<SecretString>,
}

/// Why a file of identities is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// A line that is neither an identity nor a comment. It is not shown, for it may be a secret.
    #[error(
        "line {line} is no identity of age; keep one AGE-SECRET-KEY-1… a line, as age-keygen writes \
         it (keys of SSH, of plugins and encrypted ones are not read)"
    )]
    NotAnIdentity {
        /// Its number, from 1.
        line: usize,
    },
    /// Comments at most.
    #[error("it holds no identity; make one with age-keygen")]
    NoIdentity,
    /// It would be anybody's.
    #[error("the passphrase is empty; write it as the first line")]
    NoPassphrase,
}

impl Identities {
    /// Adds the X25519 identities of a file as `age-keygen` writes it: one a line, and comments.
    pub fn add_keys(&mut self, file: &str) -> Result<(), IdentityError> {
        let before = self.keys.len();
        for (index, line) in file.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.parse();
            let line = index + 1;
            self.keys
                .push(key.map_err(|_| IdentityError::NotAnIdentity { line })?);
        }
        if self.keys.len() == before {
            return Err(IdentityError::NoIdentity);
        }
        Ok(())
    }

    /// Sets the passphrase: the first line of a file.
    pub fn set_passphrase(&mut self, file: &str) -> Result<(), IdentityError> {
        let line = file.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(IdentityError::NoPassphrase);
        }
        self.passphrase = Some(line.to_owned().into());
        Ok(())
    }

    /// Whether nothing that is encrypted can be opened.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.passphrase.is_none()
    }

    /// What to try on an archive that is encrypted with a passphrase, or to keys; maybe nothing.
    /// scrypt is given up above `work_factor`.
    pub(crate) fn for_age(self, passphrase: bool, work_factor: u8) -> Vec<Box<dyn age::Identity>> {
        if !passphrase {
            return self.keys.into_iter().map(boxed).collect();
        }
        let identity = |passphrase| {
            let mut identity = scrypt::Identity::new(passphrase);
            identity.set_max_work_factor(work_factor);
            boxed(identity)
        };
        self.passphrase.into_iter().map(identity).collect()
    }
}

fn boxed(identity: impl age::Identity + 'static) -> Box<dyn age::Identity> {
    Box::new(identity)
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.len();
        let passphrase = self.passphrase.as_ref().map_or("no", |_| "a");
        write!(f, "Identities({keys} keys, {passphrase} passphrase)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_identities() {
        let secret = x25519::Identity::generate().to_string();
        let secret = age::secrecy::ExposeSecret::expose_secret(&secret);
        let mut identities = Identities::default();
        let file = format!("# created: today\n# public key: age1\n{secret}\r\n\n{secret}");
        identities.add_keys(&file).unwrap();
        identities.set_passphrase("correct horse\nrest").unwrap();
        let shown = format!("{identities:?}");
        assert_eq!(shown, "Identities(2 keys, a passphrase)");
        for (file, error) in [
            ("", IdentityError::NoIdentity),
            ("# none\n", IdentityError::NoIdentity),
            ("\nage1xyz", IdentityError::NotAnIdentity { line: 2 }),
        ] {
            assert_eq!(identities.add_keys(file), Err(error), "{file}");
        }
        let empty = identities.set_passphrase("\nsecond");
        assert_eq!(empty, Err(IdentityError::NoPassphrase));
        let damaged = identities.add_keys(&secret[..60]).unwrap_err();
        assert!(!damaged.to_string().contains(&secret[20..40]), "{damaged}");
    }
}
